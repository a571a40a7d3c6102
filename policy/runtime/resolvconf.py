"""The host's own resolv.conf: which servers it asks, which suffixes it searches.

Owns the reading of resolv.conf(5). Never returns a local stub (systemd-resolved's 127.0.0.53 and
127.0.0.54): its servers stand in the file that it writes beside, which is read instead.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from pathlib import Path

HOST_FILES = ("/etc/resolv.conf", "/run/systemd/resolve/resolv.conf")
"""In this order; the first that names a server that is no stub is believed."""

_STUBS = frozenset({"127.0.0.53", "127.0.0.54"})


def _words(path: str, keyword: str) -> list[list[str]]:
    try:
        text = Path(path).read_text("utf-8", "replace")
    except OSError:
        return []
    lines = (line.split() for line in text.splitlines() if not line.startswith(("#", ";")))
    return [words[1:] for words in lines if words and words[0] == keyword]


def _server(text: str) -> str | None:
    try:
        address = str(ipaddress.ip_address(text))
    except ValueError:
        return None
    return None if address in _STUBS else address


def host_upstreams(paths: Iterable[str] = HOST_FILES) -> tuple[str, ...]:
    """Return the host's servers in their order, without repetitions; empty if no file names one.

    A link-local server keeps its zone (``fe80::1%eth0``).
    """
    for path in paths:
        servers = (_server(words[0]) for words in _words(path, "nameserver") if words)
        found = tuple(dict.fromkeys(server for server in servers if server is not None))
        if found:
            return found
    return ()


def host_search_domains(paths: Iterable[str] = HOST_FILES) -> tuple[str, ...]:
    """Return the suffixes of the first file that has a ``search`` or ``domain`` line, lower-case."""
    for path in paths:
        lines = _words(path, "search") or _words(path, "domain")
        if lines:
            return tuple(suffix.strip(".").lower() for suffix in lines[-1] if suffix.strip("."))
    return ()
