"""Grant requests under way, for replies on hold and for renewals.

Owns their ids and gathers the outcomes of one asking. Never decides what they mean. Invariant: an
address counts as realized only if it is for every source address that was asked for.
"""

from __future__ import annotations

from policy.authority import GrantAnswered, GrantRequested
from resolver.effects import AskGrants, Effect
from resolver.exchange import Asking


class Askings:
    """What the authority has not answered yet."""

    def __init__(self) -> None:
        self._by_id: dict[int, Asking] = {}
        self._next_id = 1

    def ask(
        self, asking: Asking, sources: tuple[bytes, ...], ttl_s: int, generation: int, out: list[Effect]
    ) -> None:
        """Send one request for each source."""
        asking.first_id = ident = self._next_id
        for source in sources:
            self._by_id[ident] = asking
            request = GrantRequested(
                ident, generation, asking.pod.uid, source, asking.name, asking.addresses, ttl_s
            )
            out.append(AskGrants(request))
            ident += 1
        asking.awaited = len(sources)
        asking.last_id = ident - 1
        self._next_id = ident

    def answered(self, message: GrantAnswered) -> Asking | None:
        """Take one answer; the asking, once it was the last it waited for."""
        asking = self._by_id.pop(message.id, None)
        if asking is None:
            return None
        asking.take(message)
        return None if asking.awaited else asking

    def forget(self, asking: Asking) -> None:
        """Await no more of an asking's answers."""
        if asking.awaited:
            for ident in range(asking.first_id, asking.last_id + 1):
                self._by_id.pop(ident, None)
            asking.awaited = 0

    def forget_renewals(self) -> None:
        """Await no more answers that nobody waits for."""
        for asking in [asking for asking in self._by_id.values() if asking.exchange is None]:
            self.forget(asking)
