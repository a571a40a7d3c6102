"""The way of captured lookups on this host: by a routing rule, or by translation where it refuses one.

Owns the choice and what ``status`` says of it. Never installs rulesets (``enforcer.installation``).
Invariant: lookups are translated to an address that the node itself has.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from contextlib import suppress
from typing import Literal, NamedTuple, Protocol


class WayDoor(Protocol):
    """What ``enforcer.routes.Routes`` offers here."""

    def install_dns_rule(self) -> None:
        """Make the rule; ``OSError`` if the host refuses."""

    def remove_dns_rule(self) -> None:
        """Take away what was made of it."""

    def addresses(self) -> frozenset[bytes]:
        """Return the node's own addresses, packed."""


class Way(NamedTuple):
    """How lookups are led to the resolver; ``problems`` say why it is not the better way."""

    capture_by: Literal["rule", "rewrite"] = "rule"
    problems: tuple[str, ...] = ()


def way_of_dns(routes: WayDoor, *, capture: bool) -> Way:
    """Install the rule where lookups are captured, or find out that the host refuses it."""
    if not capture:
        return Way()
    try:
        routes.install_dns_rule()
    except OSError as error:
        with suppress(OSError):
            routes.remove_dns_rule()
        said = f"the host refuses the DNS routing rule ({error.strerror}): lookups are translated"
        return Way("rewrite", (said,))
    return Way()


def rewrite_to(addresses: Iterable[bytes]) -> tuple[str, ...]:
    """Choose one of the node's addresses per family, that captured lookups may be translated to."""
    chosen: dict[int, str] = {}
    for packed in sorted(addresses):
        address = ipaddress.ip_address(packed)
        if not (address.is_loopback or address.is_link_local or address.is_unspecified):
            chosen.setdefault(address.version, str(address))
    return tuple(chosen[version] for version in sorted(chosen))
