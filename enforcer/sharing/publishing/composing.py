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
from enforcer.sharing.records.keys import Keys, grant_tail_of
from enforcer.sharing.records.reasons import (
    COMPACT_BYTES,
    SharedReason,
    escape,
    in_two,
    permission,
    reasons_octets,
)
from enforcer.sharing.records.resp import bulk
from enforcer.sharing.records.seal import VERSION, Keyring, octets
from policy.grants import Reason

FIELDS = 11
"""Fields of a record: what Redis says were added where there was nothing."""
SEVERAL = Reason("", "", "")
"""Stands for the reasons of a record that has more than one: it is written anew at every change."""

OWN_FIELDS = 4
"""Of these, fields that differ between the grants of one pod."""
MODEL_S = 5.0
"""A record that is to end sooner is no model: it must not end before it was copied."""

_UNLINK = b"*2\r\n$6\r\nUNLINK\r\n"
_COPY = b"*4\r\n$4\r\nCOPY\r\n"
_REPLACE = b"$7\r\nREPLACE\r\n"
_HSET = b"*%d\r\n$4\r\nHSET\r\n" % (2 + 2 * FIELDS)
_HSET_OWN = b"*%d\r\n$4\r\nHSET\r\n" % (2 + 2 * OWN_FIELDS)
_PEXPIRE = b"*3\r\n$7\r\nPEXPIRE\r\n"


class _Parts(NamedTuple):
    """What the records of an account have in common."""

    account: Account
    generation: int
    key: bytes
    before: bytes
    after: bytes


class _Model(NamedTuple):
    """A record that was just written whole; the pod's others are its copies but for what is their own."""

    parts: _Parts
    named: bytes


class Composer:
    """Makes commands for one node's grants; ``ago`` turns seconds ago into wall-clock text."""

    def __init__(
        self, keys: Keys, session: str, generation: Callable[[], int], ago: Callable[[float], str]
    ) -> None:
        self._keys = keys
        self._session = session
        self._generation_now = generation
        self._generation = 0
        self._now = 0.0
        self._mac: Callable[[bytes], bytes] = Keyring(b"").mac
        self._ago = ago
        self._parts: dict[bytes, _Parts] = {}
        self._realized = (float("nan"), b"")
        self._model: _Model | None = None

    def begin(self, keyring: Keyring, now: float) -> None:
        """Make what follows, all of it in one transaction, by these keys, at this instant and generation."""
        self._mac = keyring.mac
        self._now = now
        self._generation = self._generation_now()
        self._model = None

    def has_model(self, account: Account) -> bool:
        """Say whether a record of the account was written since ``begin`` that ``write`` may copy."""
        return self._model is not None and self._model.parts.account is account

    def write(
        self, account: Account, holding: Holding, *, replaces: bool, copies: bool = False
    ) -> tuple[bytes, ...]:
        """Return the commands that write the record of a live holding: its fields, and its life.

        ``replaces``: whatever lies there is removed first. ``copies``: the same by a copy of the account's
        model, and the fields that are its own. Notes in ``holding.shared`` what the record says.
        """
        parts = self._parts.get(account.source)
        if parts is None or parts.account is not account or parts.generation != self._generation:
            parts = self._made(account)
        named, now = _named(parts, holding), self._now
        left_s = holding.until - now
        if self._realized[0] != holding.realized_at:
            self._realized = holding.realized_at, bulk(octets(self._ago(now - holding.realized_at)))
        reasons, reasons2 = in_two(self._reasons(holding))
        own = b"$10\r\nrealizedAt\r\n%b$7\r\nreasons\r\n$%d\r\n%b\r\n$8\r\nreasons2\r\n$%d\r\n%b\r\n" % (
            self._realized[1], len(reasons), reasons, len(reasons2), reasons2,
        )  # fmt: skip
        said = b"%b%b%b%b" % (named, parts.before, own, parts.after)
        mac, life = self._mac(said), _expire(named, left_s)
        if copies and self._model is not None:
            copy = b"%b%b%b%b" % (_COPY, self._model.named, named, _REPLACE)
            return copy, b"%b%b%b$3\r\nmac\r\n$32\r\n%b\r\n" % (_HSET_OWN, named, own, mac), life
        if replaces and left_s > MODEL_S and len(reasons) <= COMPACT_BYTES >= len(reasons2):
            self._model = _Model(parts, named)
        sealed = b"%b%b$3\r\nmac\r\n$32\r\n%b\r\n" % (_HSET, said, mac)
        return (_UNLINK + named, sealed, life) if replaces else (sealed, life)

    def renew(self, account: Account, holding: Holding) -> bytes:
        """Return the command that lets the record of a live holding last as long as it does."""
        parts = self._parts.get(account.source)
        if parts is None or parts.account is not account:
            parts = self._made(account)
        return _expire(_named(parts, holding), holding.until - self._now)

    def remove(self, elements: str, key: bytes) -> bytes:
        """Return the command that takes away what there is of an element."""
        return _UNLINK + bulk(self._keys.grant(elements, key))

    def says(self, holding: Holding) -> bool:
        """Say whether the record of a live holding differs from what it would be in its time alone."""
        said = holding.shared
        if said is None or said is SEVERAL:
            return False
        only = holding.only
        if only is not None:
            return said == only
        reasons, now = holding.reasons, self._now
        return reasons.get(said, now) > now and sum(until > now for until in reasons.values()) == 1

    def forget(self, accounts: dict[bytes, Account]) -> None:
        """Let go of what was made for accounts that are not among these."""
        if len(self._parts) > 2 * len(accounts) + 16:
            self._parts = {}

    def _made(self, account: Account) -> _Parts:
        identity, generation = account.identity, self._generation
        before = {
            b"generation": b"%d" % generation,
            b"namespace": octets(identity.namespace),
            b"node": octets(self._keys.node),
            b"pod": octets(identity.pod),
        }
        after = {b"session": octets(self._session), b"uid": octets(identity.uid), b"v": VERSION}
        start = self._keys.grants_of(identity.source)
        parts = _Parts(account, generation, start, _pairs(before), _pairs(after))
        self._parts[identity.source] = parts
        return parts

    def _reasons(self, holding: Holding) -> bytes:
        """Return the field of a holding's reasons; none of them outlives it."""
        now = self._now
        left_s, only = holding.until - now, holding.only
        if only is None:
            live = {reason: until - now for reason, until in holding.reasons.items() if until > now}
            if len(live) != 1:
                holding.shared = SEVERAL
                return reasons_octets(SharedReason(*each, min(left_s, its_s)) for each, its_s in live.items())
            (only,) = live
        holding.shared = only
        return b"%b%.1f" % (_said(only), left_s)


@lru_cache(maxsize=8192)
def _said(reason: Reason) -> bytes:
    """Return a reason without its time; a name has several addresses, and comes again."""
    name, policy, rule = reason
    return f"{escape(name)} {permission(policy, rule)} ".encode()


def _named(parts: _Parts, holding: Holding) -> bytes:
    tail = grant_tail_of(holding.destination, holding.way.grants, holding.way.tail)
    return b"$%d\r\n%b%b\r\n" % (len(parts.key) + len(tail), parts.key, tail)


def _pairs(fields: dict[bytes, bytes]) -> bytes:
    return b"".join(bulk(part) for pair in fields.items() for part in pair)


def _expire(named: bytes, remaining_s: float) -> bytes:
    life_ms = int(remaining_s * 1000)
    digits = 5 if 9999 < life_ms < 100_000 else len(str(life_ms))
    return b"%b%b$%d\r\n%d\r\n" % (_PEXPIRE, named, digits, life_ms)
