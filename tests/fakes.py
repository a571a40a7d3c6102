"""Fakes of the kernel's doors; tests/kernel/test_contract.py holds them to the real ones' behaviour."""

from __future__ import annotations

import errno
import hashlib
import itertools
import re
from collections.abc import Callable, Iterator, Sequence

from enforcer.bridge_sets import Entry, Turn
from enforcer.elements import (
    PREFIX_SETS,
    RANGE_SETS,
    Add,
    Change,
    Element,
    InstalledElement,
    Remove,
    interface_key,
)
from enforcer.kernel import Capabilities, Event, KernelRejected
from enforcer.plan import absence
from enforcer.ways import Ended, Grant, changes_of
from policy.addresses import to_packed

_SET = re.compile(r"^\s*set (\w+) \{ type ([^;]+);(.*)\}$", re.MULTILINE)
_FILLED = re.compile(r"add element inet \w+ (uplinks) \{ ([^}]*) \}")
_ELEMENTS = re.compile(r" elements = \{ [^}]*\};")
_HELD = re.compile(r"^\s*(?:set|map) (\w+) \{ [^;]+; elements = \{ ([^}]*) \}; \}$", re.MULTILINE)
_SIZE = re.compile(r"size (\d+)")


def _between_ports(text: str) -> Iterator[tuple[str, Entry]]:
    """Read the elements of a bridge table's text."""
    for name, said in _HELD.findall(text):
        for element in said.split(", "):
            yield name, tuple(map(_value, re.split(r" [.:] ", element)))


def _value(word: str) -> str | bytes:
    if word.startswith('"'):
        return word.strip('"')
    if re.fullmatch(r"(\w\w:){5}\w\w", word):
        return bytes.fromhex(word.replace(":", ""))
    return bytes.fromhex(word[2:]) if word.startswith("0x") else to_packed(word)


class _Held:
    def __init__(self, element: Element, now: float) -> None:
        self.element = element
        self.until = now + element.timeout_ms / 1000 if element.timeout_ms else None

    def is_over(self, now: float) -> bool:
        return self.until is not None and self.until <= now


class FakeKernel:
    """Sets, timeouts and refusals as the kernel has them, in memory, with the caller's clock.

    ``now`` returns monotonic seconds. Expired elements count against a set's size until a later
    ``commit`` at least ``GC_S`` after their end, as in the kernel. ``refuse`` makes the next commits
    fail; ``flush`` and ``meddle`` are somebody else's nft.
    """

    GC_S = 1.0

    def __init__(self, now: Callable[[], float]) -> None:
        """An empty kernel."""
        self._now = now
        self._tables: dict[str, dict[str, dict[bytes, _Held]]] = {}
        self._sizes: dict[str, int] = {}
        self._text: dict[str, str] = {}
        self._events: set[Event] = set()
        self._refusals: list[int] = []
        self._installs = 0
        self.no_bridges = False
        """This kernel has no bridge family."""
        self.bridge_texts: list[str] = []
        self.bridge_commits: list[tuple[Turn, ...]] = []
        self.between_ports: set[tuple[str, Entry]] = set()
        """What the sets of the bridges' table hold: name and element."""
        self.commits: list[tuple[Change, ...]] = []

    def close(self) -> None:
        """The guard goes with its owner."""
        self._drop("nameward_guard")

    def refuse(self, number: int, times: int = 1) -> None:
        """Refuse the next ``times`` commits with this errno."""
        self._refusals += [number] * times

    def flush(self) -> None:
        """Somebody runs ``nft flush ruleset``: the policy table goes, the owned guard stays."""
        self.flush_bridge()
        if self._drop("nameward"):
            self._events.add("gone")

    def flush_bridge(self) -> None:
        """Somebody deletes the bridges' table."""
        self._text.pop("bridge", None)
        self.between_ports.clear()

    def meddle(self) -> None:
        """Somebody adds a rule to the policy table."""
        self._text["nameward"] += "# meddled"
        self._events.add("changed")

    def install(self, text: str) -> None:
        """Replace the policy table by this text's; uplinks alone are filled. The bridges' table likewise."""
        if "table bridge nameward {" in text:
            if self.no_bridges:
                raise KernelRejected(errno.EOPNOTSUPP)
            self._installs += 1
            self.bridge_texts.append(text)
            self._text["bridge"] = f"{self._installs} {_ELEMENTS.sub('', text)}"
            self.between_ports = set(_between_ports(text))
            return
        self._install("nameward", text)

    def commit_bridge(self, turns: Sequence[Turn]) -> None:
        """As ``Kernel.commit_bridge``: all or nothing, and what is not there cannot go."""
        if not turns:
            return
        gone = {(each.set, each.entry) for each in turns if not each.comes}
        if "bridge" not in self._text or not gone <= self.between_ports:
            raise KernelRejected(errno.ENOENT)
        self.bridge_commits.append(tuple(turns))
        self.between_ports -= gone
        self.between_ports |= {(each.set, each.entry) for each in turns if each.comes}

    def install_guard(self, text: str) -> None:
        """Replace the guard table."""
        self._install("nameward_guard", text)

    def _install(self, table: str, text: str) -> None:
        if f"table inet {table} {{" not in text:
            raise KernelRejected(errno.EINVAL, words=f"no table {table} in this text")
        self._installs += 1
        self._tables[table] = {name: {} for name, _, _ in _SET.findall(text)}
        self._text[table] = f"{self._installs} {text}"
        for name, _, options in _SET.findall(text):
            size = _SIZE.search(options)
            self._sizes[f"{table} {name}"] = int(size[1]) if size else 0
        for name, said in _FILLED.findall(text):
            keys = [interface_key(each.strip('" ')) for each in said.split(",")]
            self._commit(table, [Add(Element(name, key)) for key in keys])

    def _drop(self, table: str) -> bool:
        self._text.pop(table, None)
        return self._tables.pop(table, None) is not None

    def commit(self, changes: Sequence[Change]) -> None:
        """All or nothing, as ``Kernel.commit``."""
        if self._refusals and changes:
            raise KernelRejected(self._refusals.pop(0), 0)
        self._commit("nameward", changes)
        if changes:
            self.commits.append(tuple(changes))

    def commit_grants(self, grants: Sequence[Grant]) -> None:
        """As ``Kernel.commit_grants``."""
        self.commit(changes_of(grants))

    def commit_ends(self, ended: Sequence[Ended]) -> None:
        """As ``Kernel.commit_ends``."""
        self.commit(absence((way.live, pair + way.tail, b"") for way, pair in ended))

    def commit_guard(self, changes: Sequence[Change]) -> None:
        """As ``Kernel.commit_guard``."""
        if "nameward_guard" not in self._tables:
            raise KernelRejected(errno.ENOENT)
        self._commit("nameward_guard", changes)

    def _commit(self, table: str, changes: Sequence[Change]) -> None:
        if not changes:
            return
        now = self._now()
        sets = self._tables.get(table, {})
        touched = {change.set if isinstance(change, Remove) else change.element.set for change in changes}
        trial = {name: dict(sets[name]) for name in touched if name in sets}
        for name, held in trial.items():
            trial[name] = {k: h for k, h in held.items() if h.until is None or h.until + self.GC_S > now}
        for index, change in enumerate(changes):
            name = change.set if isinstance(change, Remove) else change.element.set
            if name not in trial:
                raise KernelRejected(errno.ENOENT, index)
            self._apply(trial[name], f"{table} {name}", change, index, now)
        sets.update(trial)

    def _apply(self, held: dict[bytes, _Held], name: str, change: Change, index: int, now: float) -> None:
        if isinstance(change, Remove):
            if change.key not in held or held[change.key].is_over(now):
                raise KernelRejected(errno.ENOENT, index)
            del held[change.key]
            return
        element = change.element
        there = held.get(element.key)
        if there is not None and not there.is_over(now):
            if not isinstance(change, Add):
                held[element.key] = _Held(there.element._replace(timeout_ms=element.timeout_ms), now)
            elif element.set in RANGE_SETS and there.element.key_end != element.key_end:
                raise KernelRejected(errno.EEXIST, index)
            return
        if element.set in RANGE_SETS | PREFIX_SETS:
            self._refuse_overlap(held, element, index)
        if self._sizes[name] and len(held) >= self._sizes[name]:
            raise KernelRejected(errno.ENFILE, index)
        held[element.key] = _Held(element, now)

    def _refuse_overlap(self, held: dict[bytes, _Held], element: Element, index: int) -> None:
        fields = _fields(element)
        for other in held.values():
            if all(a <= d and c <= b for (a, b), (c, d) in zip(fields, _fields(other.element), strict=True)):
                raise KernelRejected(errno.EEXIST, index)

    def fingerprint(self) -> str:
        """Digest of the policy table's text, and of which install it was."""
        return self._digest("nameward")

    def guard_fingerprint(self) -> str:
        """As ``fingerprint`` for the guard."""
        return self._digest("nameward_guard")

    def bridge_fingerprint(self) -> str:
        """As ``fingerprint`` for the bridges' table."""
        return self._digest("bridge")

    def _digest(self, table: str) -> str:
        text = self._text.get(table)
        return "" if text is None else hashlib.sha256(text.encode()).hexdigest()

    def elements(self, name: str) -> list[InstalledElement]:
        """As ``Kernel.elements``."""
        table = self._tables.get("nameward", {})
        if name not in table:
            raise KernelRejected(errno.ENOENT)
        now = self._now()
        return [
            InstalledElement(
                held.element.key,
                held.element.key_end,
                None if held.until is None else round((held.until - now) * 1000),
                held.element.comment,
            )
            for held in table[name].values()
            if not held.is_over(now)
        ]

    def counters(self) -> dict[str, tuple[int, int]]:
        """No packets here."""
        return {}

    def drain_events(self) -> set[Event]:
        """What others did since the last call."""
        seen, self._events = self._events, set()
        return seen

    def probe(self) -> Capabilities:
        """A kernel that can everything."""
        return Capabilities(renews=True, owns=True)


def _fields(element: Element) -> list[tuple[bytes, bytes]]:
    """First and last of each field of an interval element: addresses, protocol, port."""
    end = element.key_end or element.key
    if element.set in PREFIX_SETS:
        return [(element.key, end)]
    size = 4 if element.set.endswith("4") else 16
    cuts = [0, size, 2 * size, *([2 * size + 4, 2 * size + 8] if len(element.key) > 2 * size else [])]
    return [(element.key[a:b], end[a:b]) for a, b in itertools.pairwise(cuts)]
