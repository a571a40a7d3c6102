"""What a person may ask of the running node: grants, blocked, status, explain, as rows.

Owns the rows' fields (camelCase, as everywhere). Reads everything, changes nothing. Rows are made
one by one as they are taken, so that a listing of a million grants neither blocks nor piles up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from enforcer.blocked import BlockedRecords, Group, Refused
from enforcer.ledger import Account, Holding, Ledger
from policy.addresses import from_packed, to_packed
from policy.runtime.clock import wall_now
from policy.snapshot import Snapshot

Row = dict[str, Any]


class Request(msgspec.Struct, frozen=True, rename="camel"):
    """One request line. ``protocol`` "" and ``port`` None ask for any; ``since_s`` 0 for all times."""

    command: str
    namespace: str = ""
    pod: str = ""
    name: str = ""
    node: str = ""
    address: str = ""
    protocol: str = ""
    port: int | None = None
    since_s: float = msgspec.field(default=0.0, name="sinceSeconds")
    raw: bool = False
    follow: bool = False


class RequestError(Exception):
    """The request cannot be answered; the text is one sentence for the one who asked."""


class Inspection:
    """Answers requests from the enforcer's own state."""

    def __init__(
        self,
        node: str,
        ledger: Ledger,
        blocked: BlockedRecords,
        snapshot: Callable[[], Snapshot | None],
        status: Callable[[], Row],
    ) -> None:
        self._node = node
        self._ledger = ledger
        self._blocked = blocked
        self._snapshot = snapshot
        self._status = status

    def rows(self, request: Request, now: float) -> Iterator[Row]:
        """Return the rows of one request; ``RequestError`` at once if there are none to be had."""
        match request.command:
            case "grants":
                return self._grants(request, now)
            case "blocked":
                return self._refusals(request, now)
            case "status":
                return iter([self._status()])
            case "explain":
                return iter([self._explain(request, now)])
        raise RequestError(f"unknown command {request.command!r}; one of grants, blocked, status, explain")

    def follow(
        self, request: Request, take: Callable[[Row], None], now: Callable[[], float]
    ) -> Callable[[], None]:
        """Give ``take`` every refusal from now on; the returned function ends that."""

        def heard(refused: Refused) -> None:
            if _is_asked(request, refused):
                take(_refusal(self._node, refused, refused.times, refused.at, now()))

        return self._blocked.listen(heard)

    def _grants(self, request: Request, now: float) -> Iterator[Row]:
        for account in list(self._ledger.accounts.values()):
            identity = account.identity
            if request.namespace not in {"", identity.namespace} or request.pod not in {"", identity.pod}:
                continue
            for holding in list(account.holdings()):
                if holding.until > now:
                    yield from _grant_rows(self._node, account, holding, request.name, now)

    def _refusals(self, request: Request, now: float) -> Iterator[Row]:
        oldest = now - request.since_s if request.since_s else float("-inf")
        if request.raw:
            for refused in list(self._blocked.raw):
                if refused.at >= oldest and _is_asked(request, refused):
                    yield _refusal(self._node, refused, refused.times, refused.at, now)
            return
        for group in list(self._blocked.groups()):
            if group.last.at >= oldest and _is_asked(request, group.last):
                yield _group(self._node, group, now)

    def _explain(self, request: Request, now: float) -> Row:
        snapshot = self._snapshot()
        if snapshot is None:
            raise RequestError("no policies are loaded yet; see nameward status")
        pod = snapshot.pod(f"{request.namespace}/{request.pod}")
        if pod is None:
            raise RequestError(f"no pod {request.namespace}/{request.pod} is known; see nameward status")
        name = request.name.rstrip(".").lower()
        protocol = request.protocol or "tcp"
        address = None if name else _packed(request.address)
        decision = snapshot.decide(pod, name or None, address, protocol, request.port)
        rows = list(self._grants(msgspec.structs.replace(request, name=name), now))
        shown = name if address is None else from_packed(address)
        return {
            "verdict": decision.verdict,
            "namespace": pod.namespace,
            "pod": pod.name,
            "name": shown,
            "port": request.port,
            "protocol": protocol,
            "policy": decision.policy,
            "rule": decision.rule,
            "reason": decision.reason,
            "nearest": decision.nearest,
            "grants": [row for row in rows if address is None or row["address"] == shown],
        }


def _packed(text: str) -> bytes:
    try:
        return to_packed(text)
    except ValueError:
        raise RequestError("a name or an address is needed") from None


def port_text(protocol: str, first: int, last: int) -> int | str:
    """Return a port, a range such as "8000-8100", or "any"."""
    if protocol not in {"tcp", "udp"} or (first, last) == (0, 65535):
        return "any"
    return first if first == last else f"{first}-{last}"


def _grant_rows(node: str, account: Account, holding: Holding, name: str, now: float) -> Iterator[Row]:
    identity, opens = account.identity, holding.opens
    for reason, until in holding.reasons.items():
        if until <= now or name not in {"", reason.name}:
            continue
        yield {
            "namespace": identity.namespace,
            "pod": identity.pod,
            "uid": identity.uid,
            "podIP": from_packed(identity.source),
            "node": node,
            "name": reason.name,
            "address": from_packed(opens.destination),
            "protocol": opens.protocol,
            "port": port_text(opens.protocol, opens.first, opens.last),
            "policy": reason.policy,
            "rule": reason.rule,
            "realizedAt": wall_now(now - holding.realized_at),
            "expiresAt": wall_now(now - until),
            "remainingSeconds": round(until - now, 1),
        }


def _is_asked(request: Request, refused: Refused) -> bool:
    return request.namespace in {"", refused.namespace} and request.pod in {"", refused.pod}


def _group(node: str, group: Group, now: float) -> Row:
    return _refusal(node, group.last, group.count, group.first_at, now)


def _refusal(node: str, refused: Refused, count: int, first_at: float, now: float) -> Row:
    return {
        "kind": refused.kind,
        "namespace": refused.namespace,
        "pod": refused.pod,
        "podIP": refused.pod_ip,
        "node": node,
        "name": refused.name,
        "qtype": refused.qtype,
        "address": refused.address,
        "protocol": refused.protocol,
        "port": refused.port,
        "policy": refused.policy,
        "rule": refused.rule,
        "reason": refused.reason,
        "count": count,
        "firstSeen": wall_now(now - first_at),
        "lastSeen": wall_now(now - refused.at),
    }
