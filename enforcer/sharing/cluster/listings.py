"""Grants, refusals, pods and health of other nodes, as rows: what a request about them finds.

Runs in a thread of the door. Owns which keys a request needs, and what of their records it asks for; the
bounds and the doubts are ``reading``'s. Invariant: what a lost node left behind is marked.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from enforcer.asked import Request, Row
from enforcer.sharing.cluster import rows
from enforcer.sharing.cluster.reading import MAX_ROWS, Node, Read, Reader, Reading, Task
from enforcer.sharing.records.formats import BlockedRecord, blocked_from, grant_from, pod_from
from enforcer.sharing.records.keys import address_text
from enforcer.sharing.redis.entries import Entry
from enforcer.sharing.redis.troubles import Lost
from policy.addresses import to_packed

LONGEST_S = 1e9
"""No instant further away is shown, or asked for: thirty years are within every calendar."""
ENTRIES_A_NODE = 50
"""Refusals of one node, however many nodes there are."""
Nodes = Mapping[str, Node]


def read(reader: Reader, task: Task) -> Read:
    """Read what the request asks of all other nodes, or of the one that it names."""
    reading = Reading(reader, task)
    try:
        return _read(reading)
    except Lost as lost:
        reading.warn(f"rows of other nodes are missing: {lost.trouble}")
        return reading.result()


def _read(reading: Reading) -> Read:
    request, nodes = reading.task.request, reading.nodes()
    if request.node and request.node not in nodes:
        known = ", ".join(sorted(nodes)[:10]) or "none"
        return reading.result(f"no node {request.node} shares its state; known besides this one: {known}")
    asked = {request.node: nodes[request.node]} if request.node else nodes
    match request.command:
        case "status":
            for name, node in asked.items():
                reading.take(rows.node_row(node.record) if node.record else rows.lost_row(name, node.problem))
        case "blocked":
            _read_blocked(reading, asked)
        case "inventory":
            _read_pods(reading, asked)
        case _:
            _read_grants(reading, asked)
    return reading.result()


def _read_grants(reading: Reading, nodes: Nodes) -> None:
    request, seen = reading.task.request, set[bytes]()
    for pattern in _patterns(reading.task, "grant"):
        for batch in reading.batches(pattern):
            keys = _others(reading, batch)
            found = reading.reader.hashes(keys), reading.reader.pttls(keys)
            for key, fields, left_ms in zip(keys, *found, strict=True):
                if not fields or left_ms <= 0 or key in seen:
                    continue  # it has just ended, or SCAN gave it twice
                record = reading.believed(key, fields, grant_from)
                if record is None or not _is_asked(request, record.namespace, record.pod):
                    continue
                if not reading.is_current(nodes.get(record.node), record.session):
                    continue
                seen.add(key)
                left_s = min(left_ms / 1000, LONGEST_S)  # who can write to Redis can prolong any key
                for row in rows.grant_rows(record, left_s, lost=_is_lost(nodes, record.node)):
                    if request.name in {"", row["name"]}:
                        reading.take(row)


def _read_pods(reading: Reading, nodes: Nodes) -> None:
    request = reading.task.request
    pods: dict[tuple[str, str, str], Row] = {}
    for pattern in _patterns(reading.task, "pod"):
        for batch in reading.batches(pattern):
            keys = _others(reading, batch)
            for key, fields in zip(keys, reading.reader.hashes(keys), strict=True):
                record = reading.believed(key, fields, pod_from) if fields else None
                if record is None or not _is_asked(request, record.namespace, record.pod):
                    continue
                if not reading.is_current(nodes.get(record.node), record.session):
                    continue
                row = rows.pod_row(record, lost=_is_lost(nodes, record.node))
                known = pods.setdefault((record.node, record.namespace, record.pod), row)
                if known is row:
                    reading.take(row)
                elif record.pod_ip not in known["podIPs"]:
                    known["podIPs"].append(record.pod_ip)


def _read_blocked(reading: Reading, nodes: Nodes) -> None:
    """Read the latest refusals of each node; what an attacker writes a second time has an old number."""
    request, now_ms = reading.task.request, reading.reader.time_ms()
    since_s = min(max(request.since_s, 0.0), LONGEST_S)  # whoever may open the socket may write any number
    first = b"%d" % max(now_ms - int(since_s * 1000), 0) if since_s else b"-"
    share = max(ENTRIES_A_NODE, MAX_ROWS // max(len(nodes), 1))
    for name in sorted(nodes):
        if not reading.may_go_on():
            return
        stream = reading.task.keys.of(name).blocked
        entries = reading.reader.range(stream, first, b"%d" % now_ms, share, reverse=True)
        if len(entries) >= share:
            reading.warn(
                f"of each node only the latest {share} refusals are shown; narrow with --since or --node"
            )
        records = _in_order(reading, stream, entries)
        asked = (
            (each, record) for each, record in records if _is_asked(request, record.namespace, record.pod)
        )
        found = [
            rows.blocked_row(record, max(each.age_ms, 0) / 1000, lost=_is_lost(nodes, name))
            for each, record in asked
        ]
        for row in found if request.raw else _grouped(found):
            reading.take(row)


def _in_order(
    reading: Reading, stream: bytes, latest_first: Sequence[Entry]
) -> Iterator[tuple[Entry, BlockedRecord]]:
    numbers: dict[str, int] = {}
    for entry in reversed(latest_first):
        record = reading.believed(stream, entry.fields, blocked_from)
        if record is None:
            continue
        if record.seq <= numbers.get(record.session, -1):
            reading.doubts["stale"] += 1
            continue
        numbers[record.session] = record.seq
        yield entry, record


def _grouped(found: Iterable[Row]) -> Iterable[Row]:
    """Put equal refusals (all but the wording of the reason) of one pod together, the latest's words."""
    groups: dict[tuple[object, ...], Row] = {}
    for row in found:
        key = tuple(row[field] for field in _SAME)
        known = groups.get(key)
        if known is not None:
            row["count"] += known["count"]
            row["firstSeen"] = known["firstSeen"]
        groups[key] = row
    return groups.values()


_SAME = (
    "kind",
    "namespace",
    "pod",
    "podIP",
    "name",
    "qtype",
    "address",
    "protocol",
    "port",
    "policy",
    "rule",
)


def _others(reading: Reading, keys: Iterable[bytes]) -> list[bytes]:
    """Leave out this node's own keys: its memory knows better."""
    own = reading.task.keys.own
    return [key for key in keys if not key.startswith(own)]


def _patterns(task: Task, kind: str) -> list[bytes]:
    """Return the patterns of the keys that a request is about: by pod address where that is known."""
    request = task.request
    every = (
        task.keys.of(request.node).pattern(kind) if request.node else task.keys.pattern(kind, anywhere=True)
    )
    stem = every.removesuffix(b"*")
    if kind == "pod":
        return [stem + _literal(text) for text in task.addresses] or [every]
    to = _literal(request.address) + b":*" if request.address else b"*"
    return [stem + _literal(text) + b":" + to for text in task.addresses] or [every]


def _literal(address: str) -> bytes:
    """Return an address as keys have it, its brackets escaped for a pattern."""
    return address_text(to_packed(address)).replace(b"[", rb"\[").replace(b"]", rb"\]")


def _is_asked(request: Request, namespace: str, pod: str) -> bool:
    return request.namespace in {"", namespace} and request.pod in {"", pod}


def _is_lost(nodes: Nodes, name: str) -> bool:
    node = nodes.get(name)
    return node is None or node.record is None
