"""Twisted's epoll reactor, imported without TLS: a tenth of a start, and few configurations need it.

Owns that import, the first of the reactor. Twisted's own way where OpenSSL is not installed: its transports
cannot begin TLS then. ``twisted.protocols.tls`` speaks it over any transport, for whoever imports it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["EPollReactor"]


@contextmanager
def _without(name: str) -> Iterator[None]:
    """Have imports of a module that nobody has imported yet fail."""
    if name in sys.modules:
        yield
        return
    sys.modules[name] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[name]


with _without("OpenSSL"):
    from twisted.internet.epollreactor import EPollReactor
