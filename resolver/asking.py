"""Grant requests under way, for replies on hold and for renewals.

Owns their ids and gathers the outcomes of one asking. Never decides what they mean. Invariant: an
address counts as realized only if it is for every source address that was asked for.
"""

from __future__ import annotations

from policy.authority import GrantAnswered, GrantRequested
from policy.pods import Pod
from resolver.effects import AskGrants, Effect
from resolver.exchange import Exchange


class Asking:
    """The grants of one answer: one request for each source address; ``exchange`` None: a renewal."""

    __slots__ = (
        "addresses", "asked_at", "exchange", "generation", "ids", "lasting", "name", "pod", "reason",
        "refused", "until",
    )  # fmt: skip

    def __init__(
        self, pod: Pod, name: str, addresses: tuple[bytes, ...], exchange: Exchange | None, now: float
    ) -> None:
        self.pod = pod
        self.name = name
        self.addresses = addresses
        self.exchange = exchange
        self.asked_at = now
        self.ids: set[int] = set()
        self.refused: dict[bytes, str] = {}
        self.reason = ""
        self.generation = 0
        self.lasting = True
        self.until = float("inf")

    @property
    def realized(self) -> tuple[bytes, ...]:
        """The addresses that are open, from every source."""
        if not self.refused:
            return self.addresses
        return tuple(address for address in self.addresses if address not in self.refused)


class Askings:
    """What the authority has not answered yet."""

    def __init__(self) -> None:
        self._by_id: dict[int, Asking] = {}
        self._next_id = 1

    def ask(
        self, asking: Asking, sources: tuple[bytes, ...], ttl_s: int, generation: int, out: list[Effect]
    ) -> None:
        """Send one request for each source."""
        for source in sources:
            ident = self._next_id
            self._next_id += 1
            self._by_id[ident] = asking
            asking.ids.add(ident)
            request = GrantRequested(
                ident, generation, asking.pod.uid, source, asking.name, asking.addresses, ttl_s
            )
            out.append(AskGrants(request))

    def answered(self, message: GrantAnswered) -> Asking | None:
        """Take one answer; the asking, once it was the last it waited for."""
        asking = self._by_id.pop(message.id, None)
        if asking is None:
            return None
        asking.ids.discard(message.id)
        asking.generation = max(asking.generation, message.generation)
        asking.reason = asking.reason or message.reason
        asking.lasting = asking.lasting and message.lasting
        missing = len(asking.addresses) - len(message.outcomes)
        outcomes = (*message.outcomes, *["failed"] * missing)
        for address, outcome in zip(asking.addresses, outcomes, strict=False):
            if outcome != "realized":
                asking.refused[address] = outcome
        asking.until = min(asking.until, asking.asked_at + message.remaining_s)
        return None if asking.ids else asking

    def forget(self, asking: Asking) -> None:
        """Await no more of an asking's answers."""
        for ident in asking.ids:
            del self._by_id[ident]
        asking.ids.clear()

    def forget_renewals(self) -> None:
        """Await no more answers that nobody waits for."""
        for asking in {asking for asking in self._by_id.values() if asking.exchange is None}:
            self.forget(asking)
