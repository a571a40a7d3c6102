"""Grants on their way to Redis: from marks to commands, piece by piece, and what the replies say.

Pure. Owns the choice between a new record, a longer life and a removal, made when a piece is composed and
never before. Invariant: a reply that is not what an honest Redis says of what we wrote leads to another
writing that first removes whatever lies there, of any type; never to an assumption.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import NamedTuple

from enforcer.ledger import ElementKey, Holding
from enforcer.sharing.publishing.composing import FIELDS, Composer
from enforcer.sharing.publishing.ledger import RedisLedger
from enforcer.sharing.publishing.outbox import Outbox
from enforcer.sharing.records.keys import Keys, Place
from enforcer.sharing.records.seal import Keyring
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
COPIED = Sort(3, (0,))
"""Of a record of the same pod that the same transaction wrote: it costs Redis less than writing one whole."""
REMOVED = Sort(1, ())


WALKED = 40
"""Of a piece, grants that are written anew with all others: when every node does that at once, each waits for
its turn of one Redis, and shorter transactions come round sooner."""


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
        marked = self._next(count)
        self._compose(marked, piece, anew=False)
        count = min(count - len(marked), WALKED)
        if count and self._walk is not None:
            walked = list(islice(self._walk, count))
            self._compose(walked, piece, anew=True)
            if len(walked) < count:
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
                yield from [holding.key for holding in account.held(destination)]

    def _compose(self, keys: Iterable[ElementKey], piece: Piece, *, anew: bool) -> None:
        """Add what brings the records of these keys up to date; the loop of all, so flat."""
        self._composer.begin(self._keyring(), self._now())
        commands, about = piece
        accounts, buried, composer, now = (
            self._ledger.accounts,
            self._outbox.ended,
            self._composer,
            self._now(),
        )
        for key in keys:
            elements, packed, _ = key
            size = 4 if elements[-1] == "4" else 16
            account = accounts.get(packed[:size])
            holding = account.at(key) if account is not None else None
            if account is None or holding is None or holding.until <= now:
                self._take_away(key, holding, piece)
                continue
            if anew or (holding.shared is None and key in buried):
                sort = COPIED if anew and composer.has_model(account) else REPLACED
            elif holding.shared is None:
                sort = FRESH
            elif composer.says(holding):
                about.append((RENEWED, key))
                commands.append(composer.renew(account, holding))
                continue
            else:
                sort = CHANGED
            about.append((sort, key))
            commands += composer.write(account, holding, replaces=sort is REPLACED, copies=sort is COPIED)

    def _take_away(self, key: ElementKey, holding: Holding | None, piece: Piece) -> None:
        if holding is not None:
            holding.shared = None
        if key in self._outbox.ended:
            piece.about.append((REMOVED, key))
            piece.commands.append(self._composer.remove(key[0], key[1]))

    def _holding(self, key: ElementKey) -> Holding | None:
        elements, packed, _ = key
        size = 4 if elements[-1] == "4" else 16
        account = self._ledger.accounts.get(packed[:size])
        return account.at(key) if account is not None else None

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
                if count == 3 or not (isinstance(wrote, int) or _is_wrong_type(wrote)):
                    return False
                self._clear(key)
            elif lives == 1 or (sort is REMOVED and lives == 0):
                continue
            elif lives != 0:
                return False
            again.append(key)
        self.published += len(piece.about) - len(again)
        for key in again:
            holding = self._holding(key)
            if holding is not None:
                holding.shared = None
        if again:
            self._outbox.touch(again)
        return True

    def _clear(self, key: ElementKey) -> None:
        """Something else lies under the key: it is removed when it is written next, or at last then."""
        holding = self._holding(key)
        if holding is not None:
            self._outbox.bury(key, holding.until)

    def is_held(self, keys: Keys, name: bytes, place: Place) -> bool:
        """Say whether a key that was found in Redis is that of a live grant."""
        account = self._ledger.accounts.get(to_packed(place.pod_ip))
        held = account.held(to_packed(place.address)) if account is not None else []
        now = self._now()
        return any(each.until > now and keys.grant(each.key[0], each.key[1]) == name for each in held)


def _is_wrong_type(reply: object) -> bool:
    return str(reply).startswith("WRONGTYPE")
