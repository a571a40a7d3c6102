"""What a policy says, after parsing: rules in order, destinations, ports.

Values only; ``policy.manifest`` makes them, ``policy.snapshot`` decides with them. A rule that
was not understood keeps that fact: a permit then opens nothing and ends the permits after it, a
deny keeps only the parts that were understood (the others hold their widest value), so that it
never fails open.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from policy.pods import Labels

Action = Literal["permit", "deny"]
RuleProtocol = Literal["any", "tcp", "udp", "icmp"]


class Selector(msgspec.Struct, frozen=True):
    """Which pods of the policy's own namespace a rule applies to; both None: all of them."""

    match_labels: Labels | None = None
    service: str | None = None


class Destination(msgspec.Struct, frozen=True):
    """One part of a rule's destination: everything, the Public Internet, a CIDR, or pods.

    ``anywhere`` and ``public`` always mean both address families. ``cidr`` is canonical text.
    ``pods`` selects by namespace ("" = any), pod name ("" = any), service ("" = any) and labels.
    """

    kind: Literal["anywhere", "public", "cidr", "pods"]
    cidr: str = ""
    namespace: str = ""
    pod_name: str = ""
    service: str = ""
    labels: Labels = {}


class PortRange(msgspec.Struct, frozen=True):
    """Ports ``first`` to ``last``, both included, 0 to 65535."""

    first: int
    last: int


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """One rule. ``web_groups`` is None without webGroups, else the patterns' canonical texts."""

    name: str
    action: Action
    destinations: tuple[Destination, ...]
    selector: Selector = Selector()
    web_groups: tuple[str, ...] | None = None
    protocol: RuleProtocol = "any"
    ports: PortRange | None = None
    watch: bool = False
    understood: bool = True


class PodGroup(msgspec.Struct, frozen=True):
    """The selectors of one SmartGroup that pick pods, under its name."""

    name: str
    destinations: tuple[Destination, ...]


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """One FirewallPolicy or WebgroupPolicy; ``source`` says where it was read (file or object)."""

    namespace: str
    name: str
    kind: Literal["FirewallPolicy", "WebgroupPolicy"]
    rules: tuple[Rule, ...]
    source: str = ""
    accepted: bool = True
    """False when parts of it were rejected; what could be kept safe is still in ``rules``."""
    groups: tuple[PodGroup, ...] = ()
    """The SmartGroups of pods that its rules refer to: for inventories, no decision depends on them."""
    uid: str = ""
    generation: int = 0
    """The object's uid and ``metadata.generation``; "" and 0 where no API server has stored it."""

    @property
    def key(self) -> str:
        """``namespace/name``."""
        return f"{self.namespace}/{self.name}"


class CeilingAllowed(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """The only names and CIDRs that may be permitted in a namespace (and pod-name prefix)."""

    namespace: str
    pod_name_prefix: str = ""
    names: tuple[str, ...] = ()
    cidrs: tuple[str, ...] = ()


class CeilingGrant(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """What the administrators permit to pods by namespace and pod-name prefix."""

    namespace: str
    pod_name_prefix: str = ""
    names: tuple[str, ...] = ()
    cidrs: tuple[str, ...] = ()
    ports: tuple[int, ...] = (443,)


class CeilingDenied(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """Names and CIDRs that are denied everywhere, whatever a policy says."""

    names: tuple[str, ...] = ()
    cidrs: tuple[str, ...] = ()


class Ceiling(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """The administrators' ceiling, decided before any policy."""

    denied: CeilingDenied = CeilingDenied()
    allowed: tuple[CeilingAllowed, ...] = ()
    grant: tuple[CeilingGrant, ...] = ()
