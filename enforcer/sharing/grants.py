"""Grants on their way to Redis: from marks to commands, piece by piece, and what the replies say.

Pure. Owns the choice between a new record, a longer life and a removal, made when a piece is composed and
never before. Invariant: a reply that is not what an honest Redis says of what we wrote leads to another
writing that first removes whatever lies there, of any type; never to an assumption.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import NamedTuple

from enforcer.ledger import Account, ElementKey, Holding
from enforcer.sharing.composing import FIELDS, Composer
from enforcer.sharing.keys import Keys, Place
from enforcer.sharing.ledger import RedisLedger
from enforcer.sharing.outbox import Outbox
from enforcer.sharing.seal import Keyring
from policy.addresses import to_packed


class Sort(NamedTuple):
    """What is done with a record: so many replies tell of it, ``added`` fields are fine."""

    replies: int
    added: tuple[int, ...]


RENEWED = Sort(1, ())
FRESH = Sort(2, (FIELDS,))
"""Nothing should lie there; if something does, it is replaced at the next turn."""
CHANGED = Sort(2, (0, FIELDS))
REPLACED = Sort(3, (FIELDS,))
REMOVED = Sort(1, ())


class Piece(NamedTuple):
    """Commands, and of what the replies tell, in their order."""

    commands: list[bytes]
    about: list[tuple[Sort, ElementKey]]


class GrantFeed:
    """Makes pieces of what the outbox marks, and of everything after ``begin``."""

    def __init__(
        self,
        ledger: RedisLedger,
        outbox: Outbox,
        composer: Composer,
        keyring: Callable[[], Keyring],
        now: Callable[[], float],
    ) -> None:
        self._ledger = ledger
        self._outbox = outbox
        self._composer = composer
        self._keyring = keyring
        self._now = now
        self._marked: Iterator[ElementKey] = iter(())
        self._walk: Iterator[ElementKey] | None = None
        self._is_drained = True
        self.published = 0
        """Records written, prolonged or removed, as acknowledged."""

    def begin(self) -> None:
        """Write every grant anew, from the next piece on."""
        self._walk = self._everything()

    def end(self) -> None:
        """Let go of what waits: Redis is lost."""
        self._walk, self._marked, self._is_drained = None, iter(()), True

    @property
    def is_walking(self) -> bool:
        """Say whether there are grants that were not written since ``begin``."""
        return self._walk is not None

    @property
    def has_more(self) -> bool:
        """Say whether the next piece would have something."""
        return self._walk is not None or not self._is_drained or bool(self._outbox)

    def piece(self, count: int) -> Piece:
        """Return up to ``count`` grants' commands; what was marked goes before what is walked."""
        piece = Piece([], [])
        now = self._now()
        self._composer.begin(self._keyring(), now)
        for key in self._next(count):
            self._compose(key, piece, now, anew=False)
            count -= 1
        if count and self._walk is not None:
            for key in islice(self._walk, count):
                self._compose(key, piece, now, anew=True)
                count -= 1
            if count:
                self._walk = None
                self._composer.forget(self._ledger.accounts)
        return piece

    def _next(self, count: int) -> list[ElementKey]:
        if self._is_drained:
            self._marked = iter(self._outbox.take())
        taken = list(islice(self._marked, count))
        self._is_drained = len(taken) < count
        return taken

    def _everything(self) -> Iterator[ElementKey]:
        for account in list(self._ledger.accounts.values()):
            for destination in list(account.destinations):
                yield from list(account.destinations.get(destination, ()))

    def _compose(self, key: ElementKey, piece: Piece, now: float, *, anew: bool) -> None:
        account, holding = self._held(key)
        commands, about = piece
        if account is not None and holding is not None and holding.until > now:
            sort = self._sort(key, holding, anew=anew)
            about.append((sort, key))
            if sort is RENEWED:
                commands.append(self._composer.renew(account, holding))
                return
            if sort is REPLACED:
                commands.append(self._composer.remove(key[0], key[1]))
            commands += self._composer.write(account, holding)
            return
        if holding is not None:
            holding.shared = None
        if self._outbox.is_buried(key):
            about.append((REMOVED, key))
            commands.append(self._composer.remove(key[0], key[1]))

    def _sort(self, key: ElementKey, holding: Holding, *, anew: bool) -> Sort:
        if anew:
            return REPLACED
        if holding.shared is None:
            return REPLACED if self._outbox.is_buried(key) else FRESH
        return RENEWED if self._composer.says(holding) else CHANGED

    def _held(self, key: ElementKey) -> tuple[Account | None, Holding | None]:
        elements, packed, _ = key
        size = 4 if elements[-1] == "4" else 16
        account = self._ledger.accounts.get(packed[:size])
        if account is None:
            return None, None
        held = account.destinations.get(packed[size : 2 * size])
        return account, held.get(key) if held else None

    def answered(self, piece: Piece, replies: Sequence[object]) -> bool:
        """Take the replies of a piece; False: Redis refused something, so that nothing is sure."""
        at = 0
        again: list[ElementKey] = []
        for sort, key in piece.about:
            count, added = sort
            at += count
            lives = replies[at - 1]
            if added:
                wrote = replies[at - 2]
                if wrote in added and lives == 1:
                    continue
                if sort is REPLACED or not (isinstance(wrote, int) or _is_wrong_type(wrote)):
                    return False
                self._clear(key)
            elif lives == 1 or (sort is REMOVED and lives == 0):
                continue
            elif lives != 0:
                return False
            again.append(key)
        self.published += len(piece.about) - len(again)
        for key in again:
            _, holding = self._held(key)
            if holding is not None:
                holding.shared = None
        if again:
            self._outbox.touch(again)
        return True

    def _clear(self, key: ElementKey) -> None:
        """Something else lies under the key: it is removed when it is written next, or at last then."""
        _, holding = self._held(key)
        if holding is not None:
            self._outbox.bury(key, holding.until)

    def is_held(self, keys: Keys, name: bytes, place: Place) -> bool:
        """Say whether a key that was found in Redis is that of a live grant."""
        account = self._ledger.accounts.get(to_packed(place.pod_ip))
        held = account.destinations.get(to_packed(place.address), {}) if account is not None else {}
        now = self._now()
        return any(
            each.until > now and keys.grant(each.key[0], each.key[1]) == name for each in held.values()
        )


def _is_wrong_type(reply: object) -> bool:
    return str(reply).startswith("WRONGTYPE")
