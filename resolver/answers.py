"""What an upstream answer says to one question: chain, final RRset, SOA, TTL.

Owns which records of an upstream message belong to the question. Never believes one that does not,
never knows a pod. Invariant: any bytes give an Answer or WireError; an Answer holds only records
that are reached from the question by its CNAME chain.
"""

from __future__ import annotations

from typing import Final

from resolver.messages import CNAME, HEADER, NOERROR, NXDOMAIN, RRSIG, SOA, is_within
from resolver.records import (
    RawRecord,
    WireError,
    read_rdatas,
    read_section,
    read_soa,
    read_target,
    skip_questions,
)

MAX_CHAIN: Final = 16
MAX_TTL_S: Final = 0xFFFFFFFF
OBJECT_BYTES: Final = 40
"""What a record takes beside its octets. Names are kept uncompressed: 64 KiB can say a megabyte."""
NO_SOA_TTL_S: Final = 5
"""RFC 2308, 5: a negative answer without SOA is not to be cached; it is for this long, as a failure is."""


class Answer:
    """One upstream answer, for any pod. Names in lower-case wire form, ``ttl_s`` as upstream gave it.

    ``chain``: targets from the question's name on; ``records``: RDATAs at its end, none if negative;
    ``signatures``: RRSIG RDATAs with their owner's index in the chain (0 = the question's name);
    ``size_bytes``: what all of it takes in memory.
    """

    __slots__ = ("chain", "rcode", "records", "rtype", "signatures", "size_bytes", "soa", "ttl_s")

    def __init__(
        self,
        rcode: int,
        chain: tuple[bytes, ...],
        rtype: int,
        records: tuple[bytes, ...],
        soa: tuple[bytes, bytes] | None,
        *,
        signatures: tuple[tuple[int, bytes], ...],
        ttl_s: int,
        size_bytes: int,
    ) -> None:
        self.rcode = rcode
        self.chain = chain
        self.rtype = rtype
        self.records = records
        self.soa = soa
        self.signatures = signatures
        self.ttl_s = ttl_s
        self.size_bytes = size_bytes


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
    raws, authority_at = read_section(wire, skip_questions(wire, questions), answers)
    chain, end, ttl_s = _follow(wire, raws, name, qtype)
    final: list[RawRecord] = []
    if rcode == NOERROR:  # RFC 6604: NXDOMAIN speaks of the chain's end, where nothing can be
        for raw in raws:
            if raw.rtype == qtype and raw.owner == end:
                final.append(raw)
                ttl_s = min(ttl_s, raw.ttl)
    signatures = _signatures(wire, raws, (name, *chain), qtype) if signed else ()
    if final:
        records = read_rdatas(wire, final)
        size_bytes = len(wire) + OBJECT_BYTES * len(records)
        for record in records:
            size_bytes += len(record)
        return Answer(
            NOERROR, chain, qtype, records, None, signatures=signatures, ttl_s=ttl_s, size_bytes=size_bytes
        )
    soa, soa_ttl_s = _read_authority(wire, authority_at, authorities, end)
    return Answer(
        rcode, chain, qtype, (), soa,
        signatures=signatures, ttl_s=min(ttl_s, soa_ttl_s), size_bytes=len(wire),
    )  # fmt: skip


def _follow(
    wire: bytes, raws: list[RawRecord], name: bytes, qtype: int
) -> tuple[tuple[bytes, ...], bytes, int]:
    """Follow the CNAMEs from ``name``: the targets, the last name and the least TTL.

    A question for CNAME has no chain.
    """
    aliases: dict[bytes, RawRecord] = {}
    if qtype != CNAME:
        for raw in raws:
            if raw.rtype == CNAME and raw.owner not in aliases:
                aliases[raw.owner] = raw
    if not aliases:
        return (), name, MAX_TTL_S
    chain: list[bytes] = []
    ttl_s = MAX_TTL_S
    at = name
    while at in aliases:
        raw = aliases[at]
        at = read_target(wire, raw)
        if at == name or at in chain or len(chain) == MAX_CHAIN:
            raise WireError("CNAME chain loops or is too long")
        chain.append(at)
        ttl_s = min(ttl_s, raw.ttl)
    return tuple(chain), at, ttl_s


def _signatures(
    wire: bytes, raws: list[RawRecord], owners: tuple[bytes, ...], qtype: int
) -> tuple[tuple[int, bytes], ...]:
    """Collect the RRSIGs that cover the chain and the final RRset."""
    signed: dict[bytes, list[RawRecord]] = {}
    for raw in raws:
        if raw.rtype == RRSIG:
            signed.setdefault(raw.owner, []).append(raw)
    found: list[tuple[int, bytes]] = []
    last = len(owners) - 1
    for index, owner in enumerate(owners):
        covered = qtype if index == last else CNAME
        covering = [
            raw
            for raw in signed.get(owner, ())
            if int.from_bytes(wire[raw.start : raw.start + 2], "big") == covered
        ]
        if covering:
            found += [(index, rdata) for rdata in read_rdatas(wire, covering)]
    return tuple(found)


def _read_authority(wire: bytes, at: int, count: int, name: bytes) -> tuple[tuple[bytes, bytes] | None, int]:
    """Read the SOA of a zone that ``name`` is in, and min(its TTL, its MINIMUM) (RFC 2308, 5)."""
    for raw in read_section(wire, at, count)[0]:
        if raw.rtype == SOA and is_within(name, raw.owner):
            rdata = read_soa(wire, raw)
            return (raw.owner, rdata), min(raw.ttl, int.from_bytes(rdata[-4:], "big"))
    return None, NO_SOA_TTL_S
