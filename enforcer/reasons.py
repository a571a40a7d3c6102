"""Why a packet was denied, in the words that help most.

Owns the order in which explanations are tried and the bounded classes that metrics count. Never
decides anything: the packet is gone already. The class is one of ``CLASSES``; the text names pods,
names and ports.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from enforcer.ledger import Account, Holding, latest_reason
from policy.addresses import from_packed, guard_class
from policy.grants import Reason, holding, lasts_until
from policy.pods import Pod
from policy.snapshot import Snapshot

CLASSES = (
    "forged-source",
    "unknown-pod",
    "dns-elsewhere",
    "port-not-permitted",
    "grant-expired",
    "grant-revoked",
    "address-class",
    "deny-rule",
    "never-resolved",
    "not-a-flow",
    "resolver-fenced",
    "unmarked",
)
DNS_PORTS = frozenset({53, 853, 5353})


class Why(NamedTuple):
    """One explanation; ``name`` where the address belongs to one."""

    reason_class: str
    reason: str
    name: str = ""
    policy: str = ""
    rule: str = ""


class Tuple(NamedTuple):
    """What the packet wanted; ``port`` 0 where the protocol has none."""

    source: bytes
    destination: bytes
    protocol: str
    port: int


_BY_PREFIX = {
    "unknown": Why("unknown-pod", "unknown pod: no pod of this node has that address"),
    "fence": Why("resolver-fenced", "the resolver may reach its upstreams and the pods it answers only"),
    "guard": Why("unmarked", "no rule let it through (the policy table is being restored, or bypassed)"),
}


def why(prefix: str, packet: Tuple, snapshot: Snapshot | None, account: Account | None, now: float) -> Why:
    """Return the most useful explanation of a packet that the chain ``prefix`` denied."""
    if prefix == "forged":
        text = f"forged source {from_packed(packet.source)}: the address is not this interface's"
        return Why("forged-source", text)
    pod = snapshot.pod_at(packet.source) if snapshot else None
    if prefix == "unknown" and pod is not None:
        return Why("unmarked", "the pod is not admitted yet, or the policy table is being restored")
    known = _BY_PREFIX.get(prefix)
    if known is not None:
        return known
    if snapshot is None or pod is None:
        return _BY_PREFIX["unknown"]
    if prefix == "port" or (packet.port in DNS_PORTS and packet.protocol in {"tcp", "udp"}):
        return Why("dns-elsewhere", f"port {packet.port} is never granted: DNS is answered on this node")
    if account is not None:
        held = account.held(packet.destination)
        explained = _by_holdings(held, packet, now) if held else _by_past(account, packet, now)
        if explained is not None:
            return explained
    return _by_decision(snapshot, pod, packet)


def _by_holdings(held: Iterable[Holding], packet: Tuple, now: float) -> Why | None:
    ours = list(held)
    matching = [each for each in ours if each.covers(packet.protocol, packet.port)]
    if not matching:
        return _other_ports(ours, packet, now)
    reason = latest_reason(max(matching, key=lambda each: lasts_until(each.reasons)).reasons)
    ended_at = max(lasts_until(each.reasons) for each in matching)
    if ended_at <= now:
        return _expired(reason, now - ended_at)
    return Why("not-a-flow", f"no connection of {reason.name} that this node knows", *reason)


def _other_ports(held: list[Holding], packet: Tuple, now: float) -> Why | None:
    alive = [each for each in held if holding(each.reasons, now)]
    if not alive:
        return None
    reason = latest_reason(alive[0].reasons)
    mine = [each for each in alive if reason.name in {known.name for known in each.reasons}]
    what = f"port {packet.port}" if packet.protocol == "tcp" else _asked(packet)
    return Why("port-not-permitted", f"{what} not permitted for {reason.name}, only {_ports(mine)}", *reason)


def _asked(packet: Tuple) -> str:
    return f"{packet.protocol} port {packet.port}" if packet.protocol == "udp" else packet.protocol


def _ports(held: list[Holding]) -> str:
    """Name the ports that are open, tcp without its name: ``443, udp 443``."""
    said = {each.opens[2:] for each in held}
    return ", ".join(_interval(*each) for each in sorted(said)[:8])


def _interval(protocol: str, first: int, last: int) -> str:
    if (first, last) == (0, 65535):
        return protocol
    ports = str(first) if first == last else f"{first}-{last}"
    return ports if protocol == "tcp" else f"{protocol} {ports}"


def _by_past(account: Account, packet: Tuple, now: float) -> Why | None:
    past = account.past.get(packet.destination)
    if past is None:
        return None
    if past.revoked:
        seconds = int(now - past.ended_at)
        return Why("grant-revoked", f"grant of {past.reason.name} revoked {seconds} s ago", *past.reason)
    return _expired(past.reason, now - past.ended_at)


def _expired(reason: Reason, age_s: float) -> Why:
    return Why("grant-expired", f"grant of {reason.name} expired {int(age_s)} s ago", *reason)


def _by_decision(snapshot: Snapshot, pod: Pod, packet: Tuple) -> Why:
    decision = snapshot.decide(pod, None, packet.destination, packet.protocol, packet.port)
    if decision.explicit:
        return Why("deny-rule", decision.reason, "", decision.policy, decision.rule)
    if snapshot.decide(pod, None, packet.destination, packet.protocol, None).permitted:
        return Why("port-not-permitted", decision.reason)
    guarded = guard_class(packet.destination)
    if guarded is not None:
        return Why("address-class", f"{from_packed(packet.destination)} is {guarded}: never opened by a name")
    text = "never resolved by this pod (hard-coded address?)"
    return Why("never-resolved", text, "", decision.policy, decision.rule)
