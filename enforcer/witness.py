"""The rules by which a pod's packets are seen: proof, per pod, that they meet this node's netfilter.

Pure: lines of nft text. Owns what is noted of governed pods' packets in the forward hook (``met``,
``untracked``: sets that no rule looks up), and the packets to the witness, an address that nobody has.
Invariant: nothing here lets a packet through, and nothing a packet writes here decides about another.
"""

from __future__ import annotations

from enforcer.layout import FAMILIES, TYPES, chain

ADDRESS = {4: "192.0.2.1", 6: "2001:db8::1"}
"""Nobody's addresses (RFC 5737, 3849): governed pods' packets to them are refused, whatever a policy says."""
ASKED_PORT = 9
"""Discard: a pod is asked there, as if by the witness, to have it send a packet to the outside."""
REMEMBERED_S = 600
"""For so long the kernel remembers that it met a pod's packet."""
SEEN_SETS = ("met4", "met6", "untracked4", "untracked6")
_LOOPBACK = 772  # ARPHRD_LOOPBACK


def seen_sets() -> list[str]:
    """Sets of pods' addresses: met on the way out, and met without connection tracking."""
    flags = f"size 65536; flags dynamic,timeout; timeout {REMEMBERED_S}s;"
    return [f"set {name}{v} {{ type {ip}; {flags} }}" for name in ("met", "untracked") for v, ip in TYPES]


def to_witness(ip: str, v: int) -> str:
    """Rule for what a governed pod sends to the witness: first of all, also where it is a reply."""
    return f"{ip} daddr {ADDRESS[v]} goto witness{v}"


def witness_chain(ip: str, v: int) -> list[str]:
    """Chain ``witness4`` or ``witness6``: noted, and refused."""
    return chain(f"witness{v}", [*_noted(ip, v), "goto refuse"])


def leaving(ip: str, v: int) -> list[str]:
    """Rules that note the first packet of a flow on its way out of the node."""
    return _noted(ip, v, "ct state new,untracked ")


def _noted(ip: str, v: int, state: str = "") -> list[str]:
    """Where a packet has no device to leave by (input), it is not noted as met."""
    return [
        f"{state}meta oiftype != {_LOOPBACK} update @met{v} {{ {ip} saddr }}",
        f"ct state untracked update @untracked{v} {{ {ip} saddr }}",
    ]


def arriving(ip: str, v: int) -> str:
    """Rule that notes what comes to a pod untracked, so that it can be no answer."""
    return f"ct state untracked update @untracked{v} {{ {ip} daddr }}"


def asking_chain() -> list[str]:
    """What asks a pod for a sign of life (``enforcer.probe``) leaves with the witness's address.

    Only here, after all other output chains: those may let the node's own addresses alone reach a pod.
    """
    syn = f"tcp dport {ASKED_PORT} tcp flags & (syn | ack) == syn meta skuid 0"
    rules = [f"{syn} {ip} daddr @governed{v} {ip} saddr set {ADDRESS[v]}" for ip, v in FAMILIES]
    return chain("asking", ["type filter hook output priority 310; policy accept;", *rules])
