"""The user that the resolver runs as: from ``dns.user`` to numbers.

Owns that one look-up. Never root: a resolver with privileges would break invariant 6.
"""

from __future__ import annotations

import pwd
from typing import NamedTuple

DEFAULT_NAME = "nameward-resolver"
DEFAULT_ID = 65353


class Account(NamedTuple):
    """Numbers of a user and its group."""

    uid: int
    gid: int


class AccountError(Exception):
    """``dns.user`` cannot be used; the text says why and what to do."""


def resolver_account(user: str) -> Account:
    """Return the account for ``dns.user``; "" means the default. A bare number needs no such user."""
    try:
        entry = pwd.getpwnam(user or DEFAULT_NAME)
    except KeyError:
        if user and not user.isdecimal():
            message = (
                f"dns.user: there is no user {user}; create it (useradd --system {user}) or write a number"
            )
            raise AccountError(message) from None
        number = int(user) if user else DEFAULT_ID
        found = Account(number, number)
    else:
        found = Account(entry.pw_uid, entry.pw_gid)
    if found.uid == 0 or found.gid == 0 or found.uid > 0xFFFFFFFE:
        raise AccountError(f"dns.user: {user} has the privileges of root; name another user")
    return found
