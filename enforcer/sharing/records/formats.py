"""The records that nodes share, as values and as fields of text.

Pure. Owns which fields a record has and how each is written; ``fields`` and the functions that read are
each other's inverse. Reading checks form only: the seal is checked before (``seal``),
and nothing read is an authority. Invariant: what cannot be read raises ``NotBelieved("malformed")``;
every list and text that is written has a bound.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from enforcer.sharing.records.keys import Place, place_of
from enforcer.sharing.records.reasons import (
    SharedReason,
    escape,
    in_one,
    in_two,
    reasons_from,
    reasons_octets,
    unescape,
)
from enforcer.sharing.records.seal import NotBelieved, octets

MAX_PROBLEMS_BYTES = 2000
MAX_LIST_BYTES = 4000
"""Octets of a list of names in one field: the rest is left out."""

Fields = Mapping[bytes, bytes]
_WHOLE = re.compile(rb"[0-9]{1,18}")


class GrantRecord(NamedTuple):
    """One grant of one node; what it opens stands in its key. ``more`` reasons were left out."""

    pod_ip: str
    address: str
    protocol: str
    port: str
    namespace: str
    pod: str
    uid: str
    node: str
    reasons: tuple[SharedReason, ...]
    more: int
    generation: int
    realized_at: str
    session: str

    def fields(self) -> dict[bytes, bytes]:
        """Return its fields, in the order of their names."""
        reasons, reasons2 = in_two(reasons_octets(self.reasons, self.more))
        return {
            b"generation": b"%d" % self.generation,
            b"namespace": octets(self.namespace),
            b"node": octets(self.node),
            b"pod": octets(self.pod),
            b"realizedAt": octets(self.realized_at),
            b"reasons": reasons,
            b"reasons2": reasons2,
            b"session": octets(self.session),
            b"uid": octets(self.uid),
        }


class PodRecord(NamedTuple):
    """Where a pod is: one of its addresses, and what selects it there."""

    pod_ip: str
    namespace: str
    pod: str
    uid: str
    node: str
    smart_groups: tuple[str, ...]
    policies: tuple[str, ...]
    session: str

    def fields(self) -> dict[bytes, bytes]:
        """Return its fields."""
        return {
            b"namespace": octets(self.namespace),
            b"pod": octets(self.pod),
            b"uid": octets(self.uid),
            b"node": octets(self.node),
            b"smartGroups": _list_octets(self.smart_groups),
            b"policies": _list_octets(self.policies),
            b"session": octets(self.session),
        }


class SharedUpstream(NamedTuple):
    """An upstream's health as its node sees it."""

    address: str
    healthy: bool
    latency_ms: float


class NodeFacts(NamedTuple):
    """What a node says of itself; instants are wall-clock text for people, "" for never."""

    version: str
    generation: int
    policy_hash: str
    pods: int
    grants: int
    started_at: str
    enforcing: bool
    policies: int
    rejected_policies: int
    pending: int
    last_realized_at: str
    problems: tuple[str, ...]
    upstreams: tuple[SharedUpstream, ...]


class NodeRecord(NamedTuple):
    """A heartbeat: the facts, and whose they are. ``beat`` grows within a ``session``."""

    node: str
    session: str
    beat: int
    challenge: str
    heartbeat_at: str
    facts: NodeFacts

    def fields(self) -> dict[bytes, bytes]:
        """Return its fields."""
        facts = self.facts
        return {
            b"node": octets(self.node),
            b"session": octets(self.session),
            b"beat": b"%d" % self.beat,
            b"challenge": octets(self.challenge),
            b"heartbeatAt": octets(self.heartbeat_at),
            b"version": octets(facts.version),
            b"generation": b"%d" % facts.generation,
            b"policyHash": octets(facts.policy_hash),
            b"pods": b"%d" % facts.pods,
            b"grants": b"%d" % facts.grants,
            b"startedAt": octets(facts.started_at),
            b"enforcing": b"true" if facts.enforcing else b"false",
            b"policies": b"%d" % facts.policies,
            b"rejectedPolicies": b"%d" % facts.rejected_policies,
            b"pending": b"%d" % facts.pending,
            b"lastRealizedAt": octets(facts.last_realized_at),
            b"problems": _lines((_one_line(each) for each in facts.problems), MAX_PROBLEMS_BYTES),
            b"upstreams": _lines(map(_upstream_octets, facts.upstreams), MAX_LIST_BYTES),
        }


class BlockedRecord(NamedTuple):
    """Refusals of one kind, ``times`` often; ``seq`` grows within a ``session``, so that a copy shows."""

    kind: str
    node: str
    namespace: str
    pod: str
    pod_ip: str
    name: str
    qtype: str
    address: str
    port: int | None
    protocol: str
    reason: str
    policy: str
    rule: str
    at: str
    times: int
    session: str
    seq: int

    def fields(self) -> dict[bytes, bytes]:
        """Return its fields."""
        return {
            b"kind": octets(self.kind),
            b"node": octets(self.node),
            b"namespace": octets(self.namespace),
            b"pod": octets(self.pod),
            b"podIP": octets(self.pod_ip),
            b"name": octets(self.name),
            b"qtype": octets(self.qtype),
            b"address": octets(self.address),
            b"port": b"" if self.port is None else b"%d" % self.port,
            b"protocol": octets(self.protocol),
            b"reason": octets(self.reason),
            b"policy": octets(self.policy),
            b"rule": octets(self.rule),
            b"at": octets(self.at),
            b"count": b"%d" % self.times,
            b"session": octets(self.session),
            b"seq": b"%d" % self.seq,
        }


def grant_from(key: bytes, fields: Fields) -> GrantRecord:
    """Read a grant; what its key says and its node have to agree."""
    place = _place(key, "grant", fields)
    reasons, more = reasons_from(in_one(_said(fields, b"reasons"), _said(fields, b"reasons2")))
    return GrantRecord(
        pod_ip=place.pod_ip,
        address=place.address,
        protocol=place.protocol,
        port=place.port,
        namespace=_said(fields, b"namespace"),
        pod=_said(fields, b"pod"),
        uid=_said(fields, b"uid"),
        node=place.node,
        reasons=reasons,
        more=more,
        generation=_number(fields, b"generation"),
        realized_at=_said(fields, b"realizedAt"),
        session=_said(fields, b"session"),
    )


def pod_from(key: bytes, fields: Fields) -> PodRecord:
    """Read a pod's record; its key and its node have to agree."""
    place = _place(key, "pod", fields)
    return PodRecord(
        pod_ip=place.pod_ip,
        namespace=_said(fields, b"namespace"),
        pod=_said(fields, b"pod"),
        uid=_said(fields, b"uid"),
        node=place.node,
        smart_groups=_list(fields, b"smartGroups"),
        policies=_list(fields, b"policies"),
        session=_said(fields, b"session"),
    )


def node_from(key: bytes, fields: Fields) -> NodeRecord:
    """Read a heartbeat; its key and its node have to agree."""
    place = _place(key, "node", fields)
    facts = NodeFacts(
        version=_said(fields, b"version"),
        generation=_number(fields, b"generation"),
        policy_hash=_said(fields, b"policyHash"),
        pods=_number(fields, b"pods"),
        grants=_number(fields, b"grants"),
        started_at=_said(fields, b"startedAt"),
        enforcing=_truth(_said(fields, b"enforcing")),
        policies=_number(fields, b"policies"),
        rejected_policies=_number(fields, b"rejectedPolicies"),
        pending=_number(fields, b"pending"),
        last_realized_at=_said(fields, b"lastRealizedAt"),
        problems=tuple(_text_lines(fields, b"problems")),
        upstreams=tuple(map(_upstream, _text_lines(fields, b"upstreams"))),
    )
    return NodeRecord(
        node=place.node,
        session=_said(fields, b"session"),
        beat=_number(fields, b"beat"),
        challenge=_said(fields, b"challenge"),
        heartbeat_at=_said(fields, b"heartbeatAt"),
        facts=facts,
    )


def blocked_from(stream: bytes, fields: Fields) -> BlockedRecord:
    """Read an entry of a node's stream; the stream and its node have to agree."""
    place = _place(stream, "blocked", fields)
    return BlockedRecord(
        kind=_said(fields, b"kind"),
        node=place.node,
        namespace=_said(fields, b"namespace"),
        pod=_said(fields, b"pod"),
        pod_ip=_said(fields, b"podIP"),
        name=_said(fields, b"name"),
        qtype=_said(fields, b"qtype"),
        address=_said(fields, b"address"),
        port=_number(fields, b"port") if fields.get(b"port") else None,
        protocol=_said(fields, b"protocol"),
        reason=_said(fields, b"reason"),
        policy=_said(fields, b"policy"),
        rule=_said(fields, b"rule"),
        at=_said(fields, b"at"),
        times=_number(fields, b"count"),
        session=_said(fields, b"session"),
        seq=_number(fields, b"seq"),
    )


def _place(key: bytes, kind: str, fields: Fields) -> Place:
    """Return what the key says; no record says anything else of its node."""
    try:
        place = place_of(key)
    except ValueError:
        raise NotBelieved("malformed") from None
    if place.kind != kind or _said(fields, b"node") != place.node:
        raise NotBelieved("malformed")
    return place


def _said(fields: Fields, name: bytes) -> str:
    try:
        return fields[name].decode()
    except (KeyError, UnicodeDecodeError):
        raise NotBelieved("malformed") from None


def _number(fields: Fields, name: bytes) -> int:
    said = fields.get(name, b"")
    if not _WHOLE.fullmatch(said):
        raise NotBelieved("malformed")
    return int(said)


def _truth(said: str) -> bool:
    if said not in {"true", "false"}:
        raise NotBelieved("malformed")
    return said == "true"


def _text_lines(fields: Fields, name: bytes) -> list[str]:
    said = _said(fields, name)
    return said.split("\n") if said else []


def _list(fields: Fields, name: bytes) -> tuple[str, ...]:
    return tuple(map(unescape, _said(fields, name).split()))


def _list_octets(names: Iterable[str]) -> bytes:
    return _bounded((octets(escape(each)) for each in names if each), b" ", MAX_LIST_BYTES)


def _lines(lines: Iterable[bytes], bytes_at_most: int) -> bytes:
    return _bounded((line for line in lines if line), b"\n", bytes_at_most)


def _bounded(parts: Iterable[bytes], between: bytes, bytes_at_most: int) -> bytes:
    """Join as many parts as fit, from the first on."""
    kept: list[bytes] = []
    size = 0
    for part in parts:
        size += len(part) + len(between)
        if size > bytes_at_most:
            break
        kept.append(part)
    return between.join(kept)


def _one_line(text: str) -> bytes:
    """Return a problem as one line that fits the field by itself."""
    line = octets(" ".join(text.split()))
    return line[: MAX_PROBLEMS_BYTES // 2].decode("utf-8", "ignore").encode()


def _upstream_octets(upstream: SharedUpstream) -> bytes:
    address, healthy, latency_ms = upstream
    shown = latency_ms if math.isfinite(latency_ms) else 0.0
    return f"{escape(address)} {'healthy' if healthy else 'failing'} {max(shown, 0.0):.1f}".encode()


def _upstream(line: str) -> SharedUpstream:
    parts: Sequence[str] = line.split(" ")
    if len(parts) != 3 or parts[1] not in {"healthy", "failing"}:
        raise NotBelieved("malformed")
    try:
        latency_ms = float(parts[2])
    except ValueError:
        raise NotBelieved("malformed") from None
    return SharedUpstream(unescape(parts[0]), parts[1] == "healthy", latency_ms)
