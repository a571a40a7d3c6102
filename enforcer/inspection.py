"""What a person may ask of the running node: grants, blocked, status, explain, inventory, as rows.

Owns the rows' fields (camelCase, as everywhere), and how this node's rows and those of others make one
answer. Reads everything, changes nothing. Rows are made one by one as they are taken, so that a listing
of a million grants neither blocks nor piles up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from heapq import merge
from typing import NamedTuple

import msgspec

from enforcer.asked import Elsewhere, Found, Request, RequestError, Row, order
from enforcer.blocked import BlockedRecords, Group, Refused
from enforcer.inventory import Inventory
from enforcer.ledger import Account, Holding, Ledger
from policy.addresses import from_packed, to_packed
from policy.pods import Pod
from policy.runtime.clock import wall_now
from policy.snapshot import Snapshot

__all__ = ["Answer", "Inspection", "Request", "RequestError", "Row", "port_text"]


class Answer(NamedTuple):
    """Rows, what is to be said beside them, and what to call when they are not needed any more.

    ``is_held``: other nodes' rows are in memory until it is closed. ``refusal``: in place of rows, why there
    are none.
    """

    rows: Iterator[Row]
    warnings: tuple[str, ...] = ()
    close: Callable[[], None] = lambda: None
    is_held: bool = False
    refusal: str = ""


class Inspection:
    """Answers requests from the enforcer's own state, and from what other nodes share."""

    def __init__(
        self,
        node: str,
        ledger: Ledger,
        blocked: BlockedRecords,
        snapshot: Callable[[], Snapshot | None],
        status: Callable[[], Row],
        *,
        elsewhere: Elsewhere | None = None,
        knows_all: Callable[[], bool] = lambda: True,
    ) -> None:
        """``knows_all``: whether the source says of other nodes' pods too."""
        self._node = node
        self._ledger = ledger
        self._blocked = blocked
        self._snapshot = snapshot
        self._status = status
        self._elsewhere = elsewhere
        self._knows_all = knows_all
        self._inventory: Inventory | None = None

    def answer(
        self, request: Request, now: Callable[[], float], done: Callable[[Answer], None]
    ) -> Callable[[], None]:
        """Give ``done`` the answer, now or later; ``RequestError`` at once if there can be none.

        The returned function says that nobody waits for it any more.
        """
        request = msgspec.structs.replace(request, name=request.name.rstrip(".").lower())
        elsewhere = self._elsewhere if self._is_wide(request) else None
        ending = _Ending()
        if elsewhere is None:
            self._refuse_stranger(request)
            done(Answer(self.rows(request, now())))
            return ending
        pod = self._pod(request)
        if request.command == "explain" and pod is None:
            wanted = Request("inventory", request.namespace, request.pod, node=request.node)
            ending.bind(elsewhere.find(wanted, (), lambda found: done(self._refused(request, found, ending))))
            return ending
        self.rows(request, now())  # a wrong request is refused at once
        addresses = pod.addresses if pod is not None else ()
        ending.bind(
            elsewhere.find(
                request, addresses, lambda found: done(self._joined(request, now(), found, ending))
            )
        )
        return ending

    def _refuse_stranger(self, request: Request) -> None:
        """Refuse to speak for another node of which nothing is known but what the source says of its pods."""
        is_ours = request.node in {"", self._node} or self._elsewhere is not None
        if not is_ours and request.command != "inventory":
            why = "no state is shared (state.redis)"
            raise RequestError(f"this is node {self._node} and {why}: ask on {request.node} itself")

    def _is_wide(self, request: Request) -> bool:
        """Say whether other nodes may have something to add."""
        if request.local or request.node == self._node:
            return False
        return request.command != "explain" or f"{request.namespace}/{request.pod}" not in self._here()

    def _joined(self, request: Request, now: float, found: Found, ending: Callable[[], None]) -> Answer:
        """Put this node's rows, as they are now, among those of the others."""
        if found.refusal and request.command != "inventory":
            return Answer(iter(()), found.warnings, ending, refusal=found.refusal)
        key = order(request.command)
        others = merge(*found.parts, key=key)
        whole = msgspec.structs.replace(request, node="")
        rows = self.rows(whole if request.command == "inventory" else request, now)
        if request.command == "explain":
            (row,) = rows
            row["grants"] += others
            rows = iter([row])
        elif request.command == "inventory":
            known = {pod.key for pod in self._known_pods()}
            strangers = (row for row in others if _key(row) not in known)
            rows = merge(self._placed(rows, request, found), strangers, key=key)
        else:
            rows = merge(rows, others, key=lambda row: row["node"])
        return Answer(rows, found.warnings, ending, is_held=bool(found.parts))

    def _placed(self, rows: Iterator[Row], request: Request, found: Found) -> Iterator[Row]:
        """Say of pods where they are, by others' records where this node does not know, and what is lost."""
        where = {_key(row): row["node"] for part in found.parts for row in part}
        for row in rows:
            row["node"] = row["node"] or where.get(_key(row), "")
            row["lost"] = row["node"] in found.lost
            if request.node in {"", row["node"]}:
                yield row

    def _refused(self, request: Request, found: Found, ending: Callable[[], None]) -> Answer:
        """Say where a pod is that this node's source does not know."""
        key = f"{request.namespace}/{request.pod}"
        nodes = " and ".join(sorted({row["node"] for part in found.parts for row in part}))
        why = f"the policies of pod {key} are known on {nodes} alone: ask there" if nodes else _unknown(key)
        return Answer(iter(()), found.warnings, ending, refusal=why)

    def rows(self, request: Request, now: float) -> Iterator[Row]:
        """Return this node's rows of one request; ``RequestError`` at once if there are none to be had."""
        is_ours = request.node in {"", self._node}
        match request.command:
            case "grants":
                return self._grants(request, now) if is_ours else iter(())
            case "blocked":
                return self._refusals(request, now) if is_ours else iter(())
            case "status":
                return iter([self._status()] if is_ours else [])
            case "explain":
                return iter([self._explain(request, now)])
            case "inventory":
                return self._listed(request, self._current())
        commands = "grants, blocked, status, explain, inventory"
        raise RequestError(f"unknown command {request.command!r}; one of {commands}")

    def follow(
        self,
        request: Request,
        take: Callable[[Row], None],
        warn: Callable[[str], None],
        now: Callable[[], float],
    ) -> Callable[[], None]:
        """Give ``take`` every refusal from now on; the returned function ends that."""
        ends: list[Callable[[], None]] = []
        if request.node in {"", self._node}:

            def heard(refused: Refused) -> None:
                if _is_asked(request, refused):
                    take(_refusal(self._node, refused, refused.times, refused.at, now()))

            ends.append(self._blocked.listen(heard))
        if self._elsewhere is not None and self._is_wide(request):
            ends.append(self._elsewhere.follow(request, take, warn))

        def ended() -> None:
            for end in ends:
                end()

        return ended

    def _grants(self, request: Request, now: float) -> Iterator[Row]:
        accounts = sorted(
            self._ledger.accounts.values(), key=lambda each: (each.identity.key, each.identity.source)
        )
        for account in accounts:
            identity = account.identity
            if request.namespace not in {"", identity.namespace} or request.pod not in {"", identity.pod}:
                continue
            for holding in list(account.holdings()):
                if holding.until > now:
                    yield from _grant_rows(self._node, account, holding, request.name, now)

    def _refusals(self, request: Request, now: float) -> Iterator[Row]:
        oldest = now - request.since_s if request.since_s else float("-inf")
        if request.raw:
            for refused in self._blocked.raw:
                if refused.at >= oldest and _is_asked(request, refused):
                    yield _refusal(self._node, refused, refused.times, refused.at, now)
            return
        for group in self._blocked.groups(request.namespace, request.pod):
            if group.last.at >= oldest:
                yield _group(self._node, group, now)

    def _explain(self, request: Request, now: float) -> Row:
        snapshot = self._current()
        key = f"{request.namespace}/{request.pod}"
        pod = snapshot.pod(key)
        if pod is None:
            raise RequestError(_unknown(key))
        name = request.name.rstrip(".").lower()
        protocol = request.protocol or "tcp"
        address = None if name else _packed(request.address)
        decision = snapshot.decide(pod, name or None, address, protocol, request.port)
        is_ours = request.node in {"", self._node}
        rows = self._grants(msgspec.structs.replace(request, name=name), now) if is_ours else iter(())
        shown = name if address is None else from_packed(address)
        return {
            "verdict": decision.verdict,
            "namespace": pod.namespace,
            "pod": pod.name,
            "node": self._node if key in self._here() else pod.node,
            "name": shown,
            "port": request.port,
            "protocol": protocol,
            "policy": decision.policy,
            "rule": decision.rule,
            "reason": decision.reason,
            "nearest": decision.nearest,
            "grants": [row for row in rows if address is None or row["address"] == shown],
        }

    def _listed(self, request: Request, snapshot: Snapshot) -> Iterator[Row]:
        if self._inventory is None or self._inventory.snapshot is not snapshot:
            self._inventory = Inventory(snapshot)
        for row in self._inventory.rows(self._node, self._here(), knows_all=self._knows_all()):
            is_there = request.node in {"", row["node"] or self._node}
            if is_there and request.namespace in {"", row["namespace"]} and request.pod in {"", row["pod"]}:
                yield row

    def _current(self) -> Snapshot:
        snapshot = self._snapshot()
        if snapshot is None:
            raise RequestError("no policies are loaded yet; see nameward status")
        return snapshot

    def _pod(self, request: Request) -> Pod | None:
        """Return the one pod that is asked for, if it is known."""
        snapshot = self._snapshot()
        named = request.namespace and request.pod and snapshot is not None
        return snapshot.pod(f"{request.namespace}/{request.pod}") if named and snapshot else None

    def _known_pods(self) -> tuple[Pod, ...]:
        snapshot = self._snapshot()
        return snapshot.world.pods if snapshot is not None else ()

    def _here(self) -> set[str]:
        """Return the keys of the pods that this node's kernel knows."""
        return {account.identity.key for account in self._ledger.accounts.values()}


class _Ending:
    """What ends a search: once, whether it is called before the search has begun or after."""

    def __init__(self) -> None:
        self._end: Callable[[], None] | None = None
        self._is_over = False

    def bind(self, end: Callable[[], None]) -> None:
        """Take what is to be called."""
        self._end = end
        if self._is_over:
            end()

    def __call__(self) -> None:
        """End it."""
        if not self._is_over:
            self._is_over = True
            if self._end is not None:
                self._end()


def _unknown(key: str) -> str:
    return f"no pod {key} is known; see nameward inventory"


def _key(row: Row) -> str:
    return f"{row['namespace']}/{row['pod']}"


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
            "lost": False,
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
        "lost": False,
    }
