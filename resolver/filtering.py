"""Which records of an answer one pod may have.

Owns the filter of addresses, service bindings and targets. Never grants, never writes. Invariant:
an address is kept only if some rule permits it to this pod for this name, or it is an exempt
address of the cluster in a cluster answer.
"""

from __future__ import annotations

from policy.decision import AddressAccess
from policy.names import from_wire
from policy.pods import Pod
from resolver.answers import Answer
from resolver.messages import AAAA, HTTPS, MX, PAIR, SRV, SVCB, A
from resolver.verdicts import Decisions, Verdict

_MANDATORY, _PORT = 0, 3
_HINTS = frozenset({4, 5, 6})
"""ipv4hint, ech, ipv6hint: addresses past the filter, and a handshake past the name."""


class Filtered:
    """What is left: RDATAs, those among them that need a grant, whether anything was taken away.

    ``denied`` says why the first address went. ``verdict`` is the one that decided: another than
    the question's where a cluster name led outside.
    """

    __slots__ = ("asked", "changed", "denied", "records", "verdict")

    def __init__(
        self,
        verdict: Verdict,
        records: tuple[bytes, ...],
        asked: tuple[bytes, ...] = (),
        *,
        changed: bool = False,
        denied: AddressAccess | None = None,
    ) -> None:
        self.verdict = verdict
        self.records = records
        self.asked = asked
        self.changed = changed
        self.denied = denied


def filter_answer(answer: Answer, verdict: Verdict, decisions: Decisions, pod: Pod, name: bytes) -> Filtered:
    """Filter the answer to the question ``name`` (wire form) for a governed pod."""
    if verdict.cluster:
        for target in answer.chain:
            if decisions.leaves_cluster(from_wire(target)):
                # decided as if it had been asked (dns.md, Cluster answers)
                verdict = decisions.decide(pod, target, answer.rtype)
                break
        if verdict.kind != "permitted":
            return Filtered(verdict, ())
    if not answer.records:
        return Filtered(verdict, ())
    if answer.rtype in (A, AAAA):
        return _addresses(answer, verdict, decisions, pod)
    owner = answer.chain[-1] if answer.chain else name
    if answer.rtype in (HTTPS, SVCB):
        kept = [_binding(rdata, owner, verdict, decisions, pod) for rdata in answer.records]
        records = tuple(dict.fromkeys(rdata for rdata in kept if rdata is not None))
        return Filtered(verdict, records, changed=records != answer.records)
    if answer.rtype in (SRV, MX):
        skip = 6 if answer.rtype == SRV else 2
        records = tuple(rdata for rdata in answer.records if decisions.may_ask(pod, rdata[skip:]))
        return Filtered(verdict, records, changed=len(records) != len(answer.records))
    return Filtered(verdict, answer.records)


def _addresses(answer: Answer, verdict: Verdict, decisions: Decisions, pod: Pod) -> Filtered:
    access = verdict.access
    if access is None:
        access = decisions.snapshot.access(pod, verdict.name)
    is_cluster = verdict.cluster
    kept: list[bytes] = []
    asked: list[bytes] = []
    denied: AddressAccess | None = None
    for packed in answer.records:
        if is_cluster and decisions.is_exempt_address(packed):
            kept.append(packed)
        elif access.opens(packed):
            kept.append(packed)
            asked.append(packed)
        elif denied is None:
            denied = access.at(packed)
    if len(asked) == len(answer.records):
        return Filtered(verdict, answer.records, answer.records)
    return Filtered(verdict, tuple(kept), tuple(asked), changed=denied is not None, denied=denied)


def _binding(rdata: bytes, owner: bytes, verdict: Verdict, decisions: Decisions, pod: Pod) -> bytes | None:
    """Filter one SVCB or HTTPS RDATA (RFC 9460, 2.2); None: the record goes entirely."""
    end = 2
    while rdata[end]:
        end += rdata[end] + 1
    end += 1
    target = rdata[2:end].lower()
    name = verdict.name
    if target not in (b"\x00", owner):
        if not decisions.may_ask(pod, target):
            return None
        name = from_wire(target)
    kept = [rdata[:end]]
    removed = set()
    mandatory: tuple[int, ...] = ()
    at = end
    while at < len(rdata):
        key, length = PAIR.unpack_from(rdata, at)
        value = rdata[at + 4 : at + 4 + length]
        if key in _HINTS:
            removed.add(key)
        else:
            kept.append(rdata[at : at + 4 + length])
        if key == _MANDATORY:
            mandatory = tuple(int.from_bytes(value[i : i + 2], "big") for i in range(0, length, 2))
        if key == _PORT and not decisions.permits_port(pod, name, int.from_bytes(value, "big")):
            return None
        at += 4 + length
    return None if removed.intersection(mandatory) else b"".join(kept)
