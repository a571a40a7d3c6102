"""How a world gets to the resolver: whole at first and after any doubt, else as what changed.

Pure. Owns both ends: what is said to whom, and what it makes of the world that is held. Invariant: what is
held afterwards equals what was published, and all that did not change is the same objects as before.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from policy.authority import SnapshotPublished, Splice, T, WorldChanged
from policy.changes import spliced, splices
from policy.world import World


class NotHeld(Exception):
    """A change of a world that is not held here."""


class Publication:
    """The present world, as it is said to a resolver that was told another one or none.

    ``encode`` makes a message's frame, and raises for one of more than ``most_bytes``.
    """

    def __init__(self, encode: Callable[[SnapshotPublished | WorldChanged], bytes], most_bytes: int) -> None:
        self._encode = encode
        self._most_bytes = most_bytes
        self.world: World | None = None
        self._before: World | None = None
        self._change = b""
        self._at_most_bytes = most_bytes
        """The whole is no longer than this."""

    def publish(self, world: World) -> None:
        """Take the next world; if even the whole of it fits no frame, raise and keep the one before."""
        before, change = self.world, b""
        if before is world:
            return
        if before is not None:
            change = self._encode(change_of(before, world))
        at_most_bytes = self._at_most_bytes + len(change)
        if before is None or at_most_bytes > self._most_bytes:
            at_most_bytes = len(self._encode(SnapshotPublished(world)))
        self.world, self._before, self._change = world, before, change
        self._at_most_bytes = at_most_bytes

    def frame(self, told: World | None) -> bytes:
        """Return what makes the present world known to a resolver that was told this one; b"" for nothing."""
        if self.world is None or told is self.world:
            return b""
        if told is not None and told is self._before:
            return self._change
        return self._encode(SnapshotPublished(self.world))


def change_of(old: World, new: World) -> WorldChanged:
    """Return what makes the old world into the new one."""
    return WorldChanged(
        old.generation,
        msgspec.structs.replace(new, policies=(), pods=(), services=()),
        _splices(old.policies, new.policies),
        _splices(old.pods, new.pods),
        _splices(old.services, new.services),
    )


def held(old: World | None, message: SnapshotPublished | WorldChanged) -> World:
    """Return the world after a message; ``NotHeld`` if it is a change of another one than is held."""
    if isinstance(message, SnapshotPublished):
        return message.world
    if old is None or old.generation != message.base:
        raise NotHeld(f"a change of generation {message.base}, which is not held")
    try:
        return msgspec.structs.replace(
            message.world,
            policies=_spliced(old.policies, message.policies),
            pods=_spliced(old.pods, message.pods),
            services=_spliced(old.services, message.services),
        )
    except ValueError as error:
        raise NotHeld(str(error)) from error


def _splices(old: tuple[T, ...], new: tuple[T, ...]) -> tuple[Splice[T], ...]:
    return tuple(Splice(*each) for each in splices(old, new))


def _spliced(old: tuple[T, ...], changes: tuple[Splice[T], ...]) -> tuple[T, ...]:
    return spliced(old, ((each.at, each.gone, each.came) for each in changes)) if changes else old
