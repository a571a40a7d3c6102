"""What an upstream answer says to one question: chain, final RRset, SOA, TTL.

Owns which records of an upstream message belong to the question. Never believes one that does not,
never knows a pod. Invariant: any bytes give an Answer or WireError; an Answer holds only records
that are reached from the question by its CNAME chain.
"""

from __future__ import annotations

from typing import NamedTuple

from resolver.messages import CNAME, HEADER, NOERROR, NXDOMAIN, RRSIG, SOA
from resolver.records import (
    RawRecord,
    Section,
    WireError,
    read_rdatas,
    read_section,
    read_soa,
    read_target,
    skip_questions,
)

MAX_CHAIN = 16
OBJECT_BYTES = 40
"""What a record takes beside its octets. Names are kept uncompressed: 64 KiB can say a megabyte."""
NO_SOA_TTL_S = 5
"""RFC 2308, 5: a negative answer without SOA is not to be cached; it is for this long, as a failure is."""


class Answer(NamedTuple):
    """One upstream answer, for any pod. Names in lower-case wire form, ``ttl_s`` as upstream gave it.

    ``chain``: targets from the question's name on; ``records``: RDATAs at its end, none if negative;
    ``signatures``: RRSIG RDATAs with their owner's index in the chain (0 = the question's name);
    ``size_bytes``: what all of it takes in memory.
    """

    rcode: int
    chain: tuple[bytes, ...]
    rtype: int
    records: tuple[bytes, ...]
    soa: tuple[bytes, bytes] | None
    signatures: tuple[tuple[int, bytes], ...]
    ttl_s: int
    size_bytes: int


class UpstreamRefusal(Exception):
    """The upstream answered with an error; ``rcode`` says which."""

    def __init__(self, rcode: int) -> None:
        super().__init__(f"upstream answered with code {rcode}")
        self.rcode = rcode


def read_answer(wire: bytes, name: bytes, qtype: int, *, signed: bool) -> Answer:
    """Read the answer to (name, qtype, IN); ``signed`` keeps RRSIGs.

    Raises WireError for what cannot be read, UpstreamRefusal for RCODEs other than 0 and 3.
    """
    if len(wire) < 12:
        raise WireError("header")
    _, flags, questions, answers, authorities, _ = HEADER.unpack_from(wire)
    rcode = flags & 15
    if rcode not in (NOERROR, NXDOMAIN):
        raise UpstreamRefusal(rcode)
    if flags & 0x0200:
        raise WireError("still truncated")
    section = read_section(wire, skip_questions(wire, questions), answers)
    chain, raws = _follow(wire, section, name, qtype)
    final = [raw for raw in section.by_owner.get(chain[-1] if chain else name, ()) if raw.rtype == qtype]
    if rcode == NXDOMAIN:  # RFC 6604: the code speaks of the chain's end, where nothing can be
        final = []
    signatures = _signatures(wire, section, (name, *chain), qtype) if signed else ()
    ttl_s = min([raw.ttl for raw in raws] + [raw.ttl for raw in final], default=0xFFFFFFFF)
    if final:
        records = read_rdatas(wire, final)
        size_bytes = len(wire) + sum(map(len, records)) + OBJECT_BYTES * len(records)
        return Answer(NOERROR, chain, qtype, records, None, signatures, ttl_s, size_bytes)
    soa, soa_ttl_s = _read_authority(wire, section.end, authorities, chain[-1] if chain else name)
    return Answer(rcode, chain, qtype, (), soa, signatures, min(ttl_s, soa_ttl_s), len(wire))


def _follow(
    wire: bytes, section: Section, name: bytes, qtype: int
) -> tuple[tuple[bytes, ...], list[RawRecord]]:
    """Follow the CNAMEs from ``name``; a question for CNAME has no chain."""
    chain: list[bytes] = []
    raws: list[RawRecord] = []
    if qtype == CNAME:
        return (), raws
    seen = {name}
    at = name
    while True:
        for raw in section.by_owner.get(at, ()):
            if raw.rtype == CNAME:
                break
        else:
            return tuple(chain), raws
        at = read_target(wire, raw)
        if at in seen or len(chain) == MAX_CHAIN:
            raise WireError("CNAME chain loops or is too long")
        seen.add(at)
        chain.append(at)
        raws.append(raw)


def _signatures(
    wire: bytes, section: Section, owners: tuple[bytes, ...], qtype: int
) -> tuple[tuple[int, bytes], ...]:
    """Collect the RRSIGs that cover the chain and the final RRset."""
    found = []
    last = len(owners) - 1
    for index, owner in enumerate(owners):
        covered = qtype if index == last else CNAME
        raws = [
            raw
            for raw in section.by_owner.get(owner, ())
            if raw.rtype == RRSIG and int.from_bytes(wire[raw.start : raw.start + 2], "big") == covered
        ]
        if raws:
            found += [(index, rdata) for rdata in read_rdatas(wire, raws)]
    return tuple(found)


def _read_authority(wire: bytes, at: int, count: int, name: bytes) -> tuple[tuple[bytes, bytes] | None, int]:
    """Read the SOA of a zone that ``name`` is in, and min(its TTL, its MINIMUM) (RFC 2308, 5)."""
    for owner, raws in read_section(wire, at, count).by_owner.items():
        for raw in raws:
            if raw.rtype == SOA and is_within(name, owner):
                rdata = read_soa(wire, raw)
                return (owner, rdata), min(raw.ttl, int.from_bytes(rdata[-4:], "big"))
    return None, NO_SOA_TTL_S


def is_within(name: bytes, zone: bytes) -> bool:
    """Say whether a wire-form name is ``zone`` or under it, on label borders."""
    at = len(name) - len(zone)
    if at < 0 or name[at:] != zone:
        return False
    index = 0
    while index < at:
        index += name[index] + 1
    return index == at
