"""Kinds of values a setting can have: what is accepted, how it reads, how it prints.

Owns the syntax of durations, rates, addresses, upstreams and the rest, and the sentence that a
person gets for a wrong one. Never knows where a setting stands. ``read`` accepts what YAML gives
(or the text of an environment variable) and raises ``Wrong``; ``read(show(x)) == x``.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Generic, NamedTuple, Protocol, TypeVar

import msgspec

from policy.manifest_findings import nearest
from policy.patterns import PatternError, parse_pattern

T = TypeVar("T")
_UNITS_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")


class Wrong(ValueError):
    """A value that its kind does not accept: what is wrong, and what to write instead."""

    def __init__(self, message: str, fix: str) -> None:
        super().__init__(message)
        self.message = message
        self.fix = fix


class Rate(msgspec.Struct, frozen=True):
    """``count`` per ``period_s`` seconds."""

    count: int
    period_s: float


class Upstream(NamedTuple):
    """A server to ask: address in canonical text, port, and for DNS over TLS the name to verify."""

    address: str
    port: int
    tls: bool
    name: str


class Kind(Protocol[T]):
    """What a setting accepts. ``what`` names it for people ("a duration such as 60s")."""

    what: str

    def read(self, value: object) -> T:
        """Return the value, or raise ``Wrong``."""

    def show(self, value: T) -> str:
        """Return the text that reads as this value."""


def typed(value: object) -> str:
    """Describe a YAML value for a message: its type, and the value where it is short."""
    words = {bool: "true or false", int: "the number", float: "the number", str: "the text", list: "a list"}
    if value is None:
        return "nothing"
    if isinstance(value, bool | list):
        return words[type(value)]
    return f"{words[type(value)]} {value!r:.60}" if type(value) in words else "a mapping"


class Text:
    """Text that a pattern describes."""

    def __init__(self, what: str = "text", pattern: str = r"[^\x00-\x1f\x7f]+", longest: int = 253) -> None:
        self.what = what
        self._pattern = re.compile(pattern)
        self._longest = longest

    def read(self, value: object) -> str:
        """Accept text only: a number or a bare yes/no must be quoted in YAML."""
        if not isinstance(value, str):
            raise Wrong(f"expected {self.what}, found {typed(value)}", f'write {self.what}, in "quotes"')
        if len(value) > self._longest or not self._pattern.fullmatch(value):
            raise Wrong(f"{value!r:.80} is not {self.what}", f"write {self.what}")
        return value

    def show(self, value: str) -> str:
        """Return the text itself."""
        return value


class Choice:
    """One word of a list."""

    def __init__(self, *options: str) -> None:
        self.options = options
        self.what = "one of " + ", ".join(options)

    def read(self, value: object) -> str:
        """Accept exactly the listed words; case matters."""
        if isinstance(value, str) and value in self.options:
            return value
        close = nearest(value, self.options) if isinstance(value, str) else None
        fix = f"did you mean {close}? " if close else ""
        raise Wrong(f"expected {self.what}, found {typed(value)}", f"{fix}write {self.what}")

    def show(self, value: str) -> str:
        """Return the word."""
        return value


class Switch:
    """true or false."""

    what = "true or false"

    def read(self, value: object) -> bool:
        """Accept YAML's booleans and the same words as text (environment variables)."""
        words = {"true": True, "false": False}
        if isinstance(value, bool):
            return value
        if isinstance(value, str) and value.lower() in words:
            return words[value.lower()]
        raise Wrong(f"expected true or false, found {typed(value)}", "write true or false")

    def show(self, value: bool) -> str:
        """Return YAML's word for it."""
        return "true" if value else "false"


class Count:
    """A whole number between two bounds."""

    def __init__(self, lowest: int, highest: int) -> None:
        self.lowest, self.highest = lowest, highest
        self.what = f"a whole number from {lowest} to {highest}"

    def read(self, value: object) -> int:
        """Accept an integer or, from the environment, its digits."""
        if isinstance(value, str) and re.fullmatch(r"-?[0-9]{1,18}", value):
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int):
            raise Wrong(f"expected {self.what}, found {typed(value)}", f"write {self.what}")
        if not self.lowest <= value <= self.highest:
            raise Wrong(f"{value} is out of bounds", f"write {self.what}")
        return value

    def show(self, value: int) -> str:
        """Return its digits."""
        return str(value)


def _show_duration(value_s: float) -> str:
    for unit in ("h", "m", "s"):
        if value_s >= _UNITS_S[unit] and value_s % _UNITS_S[unit] == 0:
            return f"{int(value_s / _UNITS_S[unit])}{unit}"
    return "0s" if value_s == 0 else f"{value_s * 1000:g}ms"


class Duration:
    """A length of time with its unit, in seconds."""

    def __init__(self, shortest_s: float, longest_s: float) -> None:
        self._shortest_s, self._longest_s = shortest_s, longest_s
        self.what = f"a duration from {_show_duration(shortest_s)} to {_show_duration(longest_s)}"

    def read(self, value: object) -> float:
        """Accept ``300ms``, ``60s``, ``1m``, ``24h``, ``1h30m``; never a bare number."""
        if isinstance(value, int | float) and not isinstance(value, bool):
            raise Wrong(f"{value} has no unit", f"write {value}s if seconds are meant")
        if not isinstance(value, str) or not re.fullmatch(f"(?:{_DURATION.pattern})+", value):
            raise Wrong(f"expected {self.what}, found {typed(value)}", "write a number and its unit: 60s")
        total_s = round(sum(float(n) * _UNITS_S[unit] for n, unit in _DURATION.findall(value)), 6)
        if not self._shortest_s <= total_s <= self._longest_s:
            raise Wrong(f"{value} is out of bounds", f"write {self.what}")
        return total_s

    def show(self, value: float) -> str:
        """Return it in the largest unit that needs no fraction."""
        return _show_duration(value)


class Rates:
    """So many in so long."""

    what = "a rate such as 300/10m"

    def read(self, value: object) -> Rate:
        """Accept COUNT/DURATION."""
        count, slash, period = value.partition("/") if isinstance(value, str) else ("", "", "")
        if not slash:
            raise Wrong(f"expected {self.what}, found {typed(value)}", "write COUNT/DURATION: 300/10m")
        return Rate(Count(1, 1_000_000).read(count), Duration(1, 86400).read(period))

    def show(self, value: Rate) -> str:
        """Return COUNT/DURATION."""
        return f"{value.count}/{_show_duration(value.period_s)}"


def _address(text: str) -> str:
    try:
        return str(ipaddress.ip_address(text.strip("[]")))
    except ValueError:
        raise Wrong(f"{text!r:.80} is not an IP address", "write an IPv4 or IPv6 address") from None


def _address_and_port(text: str, port: int) -> tuple[str, int]:
    """Split ADDRESS, ADDRESS:PORT, [IPv6] or [IPv6]:PORT; ``port`` where none is written."""
    match = re.fullmatch(r"(\[[0-9A-Fa-f:.]+(?:%[\w.-]+)?\]|[^:\[\]]+)(?::([0-9]{1,9}))?", text)
    if match is None:
        return _address(text), port
    return _address(match[1]), port if match[2] is None else Count(1, 65535).read(match[2])


class Cidr:
    """A network in CIDR notation."""

    what = "a CIDR such as 10.244.0.0/16"

    def read(self, value: object) -> str:
        """Accept a network without host bits; return it in canonical text."""
        if not isinstance(value, str):
            raise Wrong(f"expected {self.what}, found {typed(value)}", f"write {self.what}")
        try:
            loose = ipaddress.ip_network(value, strict=False)
        except ValueError:
            raise Wrong(f"{value!r:.80} is not a CIDR", f"write {self.what}") from None
        if "/" not in value:
            raise Wrong(f"{value} has no prefix length", f"write {loose} for this one address")
        if loose.network_address != ipaddress.ip_interface(value).ip:
            raise Wrong(f"{value} has bits set beyond its prefix", f"write {loose}")
        return str(loose)

    def show(self, value: str) -> str:
        """Return the network."""
        return value


class Network:
    """One address, or a network in CIDR notation."""

    what = "an address such as 10.0.0.2, or a CIDR such as 10.0.0.0/24"

    def read(self, value: object) -> str:
        """Return an address or a network in canonical text; a network of everything is none."""
        if not isinstance(value, str):
            raise Wrong(f"expected {self.what}, found {typed(value)}", f"write {self.what}")
        if "/" not in value:
            return _address(value)
        network = Cidr().read(value)
        if network.endswith("/0"):
            raise Wrong(f"{network} is everywhere", "write the addresses that are meant")
        return network

    def show(self, value: str) -> str:
        """Return the address or network."""
        return value


class Listen:
    """An address to listen on, with its port; empty where ``optional`` turns it off."""

    def __init__(self, port: int | None, *, optional: bool = False) -> None:
        self._port, self._optional = port, optional
        self.what = "ADDRESS:PORT" if port is None else f"ADDRESS or ADDRESS:PORT (port {port})"

    def read(self, value: object) -> str:
        """Return canonical ``address:port`` (IPv6 in brackets)."""
        if self._optional and value == "":
            return ""
        if not isinstance(value, str):
            raise Wrong(f"expected {self.what}, found {typed(value)}", f"write {self.what}")
        address, port = _address_and_port(value, self._port or 0)
        if port == 0:
            raise Wrong(f"{value!r:.80} has no port", "write ADDRESS:PORT")
        return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"

    def show(self, value: str) -> str:
        """Return ``address:port``."""
        return value


def parse_listen(text: str) -> tuple[str, int]:
    """Split the canonical text that ``Listen`` gives into address and port."""
    return _address_and_port(text, 53)


def parse_upstream(text: str) -> Upstream:
    """Read ``ADDRESS[:PORT]`` or ``tls://ADDRESS[:PORT]#NAME``; raise ``Wrong``."""
    scheme, has_scheme, rest = text.partition("://")
    if has_scheme and scheme != "tls":
        raise Wrong(f"unknown scheme {scheme!r:.20}", "write ADDRESS, ADDRESS:PORT or tls://ADDRESS#NAME")
    if not has_scheme:
        address, port = _address_and_port(text, 53)
        return Upstream(address, port, tls=False, name="")
    place, has_name, name = rest.partition("#")
    if not has_name:
        raise Wrong(f"{text!r:.80} says no name for the certificate", f"write {text}#NAME")
    address, port = _address_and_port(place, 853)
    return Upstream(address, port, tls=True, name=Domain().read(name))


class UpstreamText:
    """An upstream server as written."""

    what = "ADDRESS, ADDRESS:PORT or tls://ADDRESS[:PORT]#NAME"

    def read(self, value: object) -> str:
        """Return the text as written once ``parse_upstream`` accepts it."""
        if not isinstance(value, str):
            raise Wrong(f"expected {self.what}, found {typed(value)}", f"write {self.what}")
        parse_upstream(value)
        return value

    def show(self, value: str) -> str:
        """Return the text as written."""
        return value


class Domain:
    """A domain name: lower-case ASCII, no trailing dot."""

    what = "a domain name"

    def read(self, value: object) -> str:
        """Accept letters, digits, hyphens and underscores in labels of at most 63 octets."""
        if not isinstance(value, str):
            raise Wrong(f"expected {self.what}, found {typed(value)}", f"write {self.what}")
        name = value.lower().removesuffix(".")
        if len(name) > 253 or not all(_LABEL.fullmatch(label) for label in name.split(".")):
            raise Wrong(f"{value!r:.80} is not a domain name", "write it as in cluster.local")
        return name

    def show(self, value: str) -> str:
        """Return the name."""
        return value


class PatternText:
    """A domain pattern, as in a WebGroup; in canonical text."""

    what = "a domain pattern such as *.example.com"

    def read(self, value: object) -> str:
        """Accept what a WebGroup accepts."""
        if not isinstance(value, str):
            raise Wrong(f"expected {self.what}, found {typed(value)}", f"write {self.what}")
        try:
            return parse_pattern(value).text
        except PatternError as error:
            raise Wrong(error.message, error.fix) from None

    def show(self, value: str) -> str:
        """Return the pattern."""
        return value


class Items(Generic[T]):
    """A list of one kind of value, in the order written, each once."""

    def __init__(self, kind: Kind[T], fewest: int = 0) -> None:
        self.kind, self._fewest = kind, fewest
        self.what = f"a list; each {kind.what}"

    def read(self, value: object) -> tuple[T, ...]:
        """Accept a list or, from the environment, words between commas; say which item is wrong."""
        if isinstance(value, str):
            value = [word.strip() for word in value.split(",") if word.strip()]
        if not isinstance(value, list):
            raise Wrong(f"expected a list, found {typed(value)}", "write [ … ] or one item a line after '- '")
        if len(value) < self._fewest:
            raise Wrong("the list is empty", f"list at least {self._fewest}: {self.kind.what}")
        found: list[T] = []
        for index, item in enumerate(value):
            try:
                found.append(self.kind.read(item))
            except Wrong as wrong:
                raise Wrong(f"item {index}: {wrong.message}", wrong.fix) from None
        return tuple(dict.fromkeys(found))

    def show(self, value: tuple[T, ...]) -> str:
        """Return YAML's flow form."""
        return "[" + ", ".join(self.kind.show(item) for item in value) + "]"
