"""The settings of ``state``, and the base that every section of the tree has.

Owns names, bounds and defaults of shared state; the rest of the tree is in ``policy.runtime.sections``.
Never reads a file or a variable.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from policy.runtime.kinds import Count, Text
from policy.runtime.reader import Key
from policy.runtime.redis_url import RedisUrl

ABSOLUTE = Text("an absolute path", r"/[^\x00-\x1f\x7f]*", 4096)


class Section(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What all sections share: frozen, keys in camelCase as in Kubernetes."""


class RedisSettings(Section, frozen=True, kw_only=True):
    """Where Redis is, and the secrets for it. Files are read again when they change."""

    url: Annotated[str, Key(RedisUrl(), restart=True)]
    """Where Redis is: `redis://[USER@]HOST[:PORT][/DB]`, `rediss://…` over TLS,
    `unix://[USER@]/PATH[?db=DB]`, `redis+sentinel://HOST[:PORT],…/MASTER[/DB]`, `redis+cluster://HOST[:PORT],…`,
    the last two also as `rediss+…` over TLS.

    It has no place for a password: URLs are shown and logged.
    """
    password_file: Annotated[str, Key(ABSOLUTE, restart=True, default="none")] = ""
    """A file with the password of the URL's user.

    Read at every connection, so a changed password needs no restart.
    """
    sentinel_password_file: Annotated[str, Key(ABSOLUTE, restart=True, default="none")] = ""
    """A file with the Sentinels' own password.

    Sentinels have their own; most have none.
    """
    hmac_key_file: Annotated[str, Key(ABSOLUTE, restart=True)]
    """A file with the cluster's HMAC key, 16 to 4096 octets, the same on every node.

    Whoever writes to Redis without it is not believed; without a key nothing would be told from a forgery.
    """
    previous_hmac_key_file: Annotated[str, Key(ABSOLUTE, restart=True, default="none")] = ""
    """A file with a key by which records are believed as well, though none is sealed with it.

    To change the key without a gap: first the new one here on every node, then the two swapped on every
    node, then the old one away.
    """
    ca_file: Annotated[str, Key(ABSOLUTE, restart=True, default="the host's certificate store")] = ""
    """The CA that signed Redis's certificate, in PEM; it alone is trusted then.

    A private CA is usual for Redis.
    """
    cert_file: Annotated[str, Key(ABSOLUTE, restart=True, default="none")] = ""
    """The certificate that Redis is shown, in PEM.

    Redis asks for one unless `tls-auth-clients` is `no`.
    """
    key_file: Annotated[str, Key(ABSOLUTE, restart=True, default="none")] = ""
    """The private key of certFile, in PEM.

    It needs no password: nobody is there to type it.
    """
    pending_records: Annotated[int, Key(Count(1000, 10_000_000), restart=True)] = 100_000
    """Records that wait for Redis; beyond it the oldest go, counted, and everything is written again when
    Redis is back.

    A Redis that is slow or away must not fill this node's memory.
    """


class StateSettings(Section, frozen=True, kw_only=True):
    """Where state is kept: in the node's memory and the kernel, and shared with other nodes in Redis."""

    redis: RedisSettings | None = None
    """Shared state of several nodes.

    Absent: this node stands alone and needs no server. Losing Redis costs the sharing and nothing else.
    """
