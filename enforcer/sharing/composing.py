"""The commands of one grant, made from its holding at the cost of a few microseconds.

Pure. Owns the short way from a holding to octets; ``formats.GrantRecord`` says the same at leisure, and a
test holds both together. What does not change between grants of a pod address is made once. The fields
are in the order of their names, so that what Redis is told is what the MAC is made over.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

from enforcer.ledger import Account, Holding
from enforcer.sharing.keys import Keys, grant_tail
from enforcer.sharing.reasons import SharedReason, escape, permission, reasons_octets
from enforcer.sharing.resp import bulk
from enforcer.sharing.seal import VERSION, Keyring, octets
from policy.grants import Reason

WRITE = 3
"""Commands of one ``write``."""
SEVERAL = Reason("", "", "")
"""Stands for the reasons of a record that has more than one: it is written anew at every change."""

_UNLINK = b"*2\r\n$6\r\nUNLINK\r\n"
_HSET = b"*22\r\n$4\r\nHSET\r\n"
_PEXPIRE = b"*3\r\n$7\r\nPEXPIRE\r\n"
_permission = lru_cache(maxsize=4096)(permission)


class _Parts(NamedTuple):
    """What the records of an account have in common."""

    account: Account
    generation: int
    key: bytes
    before: bytes
    after: bytes


class Composer:
    """Makes commands for one node's grants; ``ago`` turns seconds ago into wall-clock text."""

    def __init__(
        self, keys: Keys, session: str, generation: Callable[[], int], ago: Callable[[float], str]
    ) -> None:
        self._keys = keys
        self._session = session
        self._generation = generation
        self._ago = ago
        self._parts: dict[bytes, _Parts] = {}
        self._realized = (float("nan"), b"")

    def write(
        self, account: Account, holding: Holding, keyring: Keyring, now: float
    ) -> tuple[bytes, bytes, bytes]:
        """Return the commands that put the record of a live holding in place of whatever is there.

        Notes in ``holding.shared`` what the record says.
        """
        parts = self._parts_of(account)
        elements, key, _ = holding.key
        tail = grant_tail(elements, key)
        named = b"$%d\r\n%b%b\r\n" % (len(parts.key) + len(tail), parts.key, tail)
        reasons = self._reasons(holding, now)
        realized = self._realized_at(holding.realized_at, now)
        said = b"%b%b%b$7\r\nreasons\r\n$%d\r\n%b\r\n%b" % (
            named, parts.before, realized, len(reasons), reasons, parts.after,
        )  # fmt: skip
        sealed = b"%b%b$3\r\nmac\r\n$32\r\n%b\r\n" % (_HSET, said, keyring.mac(said))
        return _UNLINK + named, sealed, _expire(named, holding.until - now)

    def renew(self, account: Account, holding: Holding, now: float) -> bytes:
        """Return the command that lets the record of a live holding last as long as it does."""
        return _expire(self._named(account, holding.key[0], holding.key[1]), holding.until - now)

    def remove(self, elements: str, key: bytes) -> bytes:
        """Return the command that takes away what there is of an element."""
        return _UNLINK + bulk(self._keys.grant(elements, key))

    def says(self, holding: Holding, now: float) -> bool:
        """Say whether the record of a live holding differs from what it would be in its time alone."""
        said = holding.shared
        if said is None or said is SEVERAL:
            return False
        reasons = holding.reasons
        if len(reasons) == 1:
            return said in reasons
        return reasons.get(said, now) > now and sum(until > now for until in reasons.values()) == 1

    def forget(self, accounts: dict[bytes, Account]) -> None:
        """Let go of what was made for accounts that are not among these."""
        if len(self._parts) > 2 * len(accounts) + 16:
            self._parts = {}

    def _named(self, account: Account, elements: str, key: bytes) -> bytes:
        start, tail = self._parts_of(account).key, grant_tail(elements, key)
        return b"$%d\r\n%b%b\r\n" % (len(start) + len(tail), start, tail)

    def _parts_of(self, account: Account) -> _Parts:
        source = account.identity.source
        parts = self._parts.get(source)
        generation = self._generation()
        if parts is None or parts.account is not account or parts.generation != generation:
            parts = self._parts[source] = self._made(account, generation)
        return parts

    def _made(self, account: Account, generation: int) -> _Parts:
        identity = account.identity
        before = {
            b"generation": b"%d" % generation,
            b"namespace": octets(identity.namespace),
            b"node": octets(self._keys.node),
            b"pod": octets(identity.pod),
        }
        after = {b"session": octets(self._session), b"uid": octets(identity.uid), b"v": VERSION}
        return _Parts(
            account,
            generation,
            self._keys.grants_of(identity.source),
            _pairs(before) + bulk(b"realizedAt"),
            _pairs(after),
        )

    def _reasons(self, holding: Holding, now: float) -> bytes:
        """Return the field of a holding's reasons; none of them outlives it."""
        reasons, end = holding.reasons, holding.until
        if len(reasons) > 1:
            live = {reason: until for reason, until in reasons.items() if until > now}
            if len(live) > 1:
                holding.shared = SEVERAL
                return reasons_octets(
                    SharedReason(*reason, min(until, end) - now) for reason, until in live.items()
                )
            reasons = live or reasons
        for reason in reasons:
            holding.shared = reason
            name, policy, rule = reason
            return f"{escape(name)} {_permission(policy, rule)} {end - now:.1f}".encode()
        holding.shared = SEVERAL
        return b""

    def _realized_at(self, at: float, now: float) -> bytes:
        if self._realized[0] != at:
            self._realized = (at, bulk(octets(self._ago(now - at))))
        return self._realized[1]


def _pairs(fields: dict[bytes, bytes]) -> bytes:
    return b"".join(bulk(part) for pair in fields.items() for part in pair)


def _expire(named: bytes, remaining_s: float) -> bytes:
    life = b"%d" % max(remaining_s * 1000, 1.0)
    return b"%b%b$%d\r\n%b\r\n" % (_PEXPIRE, named, len(life), life)
