"""Where Redis is: the URL of ``state.redis.url``, read into a place.

Owns the syntax and the sentence for a wrong one. Never resolves a name, opens nothing, and never
repeats a password that was written into a URL. ``parse_redis_url`` returns a place or raises ``Wrong``.
"""

from __future__ import annotations

import re
from enum import Enum
from typing import NamedTuple

from policy.runtime.kinds import Wrong, typed

PORT, SENTINEL_PORT = 6379, 26379
_FORMS = (
    "redis://[USER@]HOST[:PORT][/DB], rediss://… (TLS), unix://[USER@]/PATH[?db=DB], "
    "redis+sentinel://[USER@]HOST[:PORT],HOST[:PORT]/MASTER[/DB] or redis+cluster://[USER@]HOST[:PORT],…"
)
_URL = re.compile(
    r"(?P<scheme>[a-z+]+)://(?:(?P<user>[^@/?#]*)@)?(?P<hosts>[^/?#@]*)(?P<rest>/[^?#@]*)?(?P<query>\?.*)?"
)
_HOST = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,252})")
_BRACKETED = re.compile(r"\[([0-9A-Fa-f:.]+(?:%[A-Za-z0-9_.-]+)?)\]")
_USER = re.compile(r"[^\s\x00-\x1f\x7f:]{1,128}")
_MASTER = re.compile(r"[A-Za-z0-9_.-]{1,128}")
_HIGHEST_DB = 1_000_000
_MOST_HOSTS = 32


class Kind(Enum):
    """How the servers stand together."""

    SINGLE = "single"
    SENTINEL = "sentinel"
    CLUSTER = "cluster"


class Address(NamedTuple):
    """One server: a host (name, IPv4, or IPv6 without brackets) with its port; or a socket's ``path``."""

    host: str
    port: int
    path: str = ""

    def __str__(self) -> str:
        """As a person writes it."""
        if self.path:
            return self.path
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class RedisPlace(NamedTuple):
    """Where Redis is. ``addresses``: the server, the Sentinels, or the Cluster's first known nodes.

    ``master`` is the name that Sentinel knows the server by; ``user`` "" is Redis's default user.
    """

    kind: Kind
    addresses: tuple[Address, ...]
    user: str = ""
    db: int = 0
    tls: bool = False
    master: str = ""


def parse_redis_url(text: str) -> RedisPlace:
    """Read one URL. Raises ``Wrong`` with what is wrong and what to write."""
    if not text.isascii() or re.search(r"[\x00-\x20\x7f]", text):
        raise Wrong("the URL has blanks or characters beyond ASCII", f"write {_FORMS}")
    authority = re.split(r"[/?#]", text.partition("://")[2], maxsplit=1)[0]
    if ":" in authority.rpartition("@")[0]:
        raise Wrong("there is a password in the URL", "write it to a file and name that as passwordFile")
    found = _URL.fullmatch(text)
    if found is None:
        raise Wrong("this is no URL of Redis", f"write {_FORMS}")
    scheme, _, together = found["scheme"].partition("+")
    user = found["user"]
    if user is not None and not _USER.fullmatch(user):
        raise Wrong("the user in the URL is no name", "write USER@ before the host, or leave it out")
    read = _READERS.get((scheme, together))
    if read is None:
        raise Wrong(f"unknown scheme {found['scheme']!r:.30}", f"write {_FORMS}")
    place = read(found["hosts"], found["rest"] or "", found["query"] or "")
    return place._replace(user=user or "", tls=scheme == "rediss")


def _single(hosts: str, rest: str, query: str) -> RedisPlace:
    _no_query(query)
    if "," in hosts:
        raise Wrong(
            "several hosts need redis+sentinel:// or redis+cluster://",
            "say how they stand together, or name one",
        )
    return RedisPlace(Kind.SINGLE, (_address(hosts, PORT),), db=_db(rest.removeprefix("/")))


def _unix(hosts: str, rest: str, query: str) -> RedisPlace:
    if hosts or not rest.strip("/"):
        raise Wrong("unix:// is followed by an absolute path", "write unix:///run/redis/redis.sock")
    if len(rest) > 107:
        raise Wrong("the path of the socket has more than 107 octets", "choose a shorter one")
    found = re.fullmatch(r"\?db=([^&]*)", query) if query else None
    if query and found is None:
        raise Wrong("only ?db=DB may follow the path", "write unix:///run/redis/redis.sock?db=1")
    return RedisPlace(Kind.SINGLE, (Address("", 0, rest),), db=_db(found[1] if found else ""))


def _sentinel(hosts: str, rest: str, query: str) -> RedisPlace:
    _no_query(query)
    master, _, db = rest.removeprefix("/").partition("/")
    if not _MASTER.fullmatch(master):
        raise Wrong("the master's name is missing", "write redis+sentinel://HOST:26379,HOST:26379/MASTER")
    return RedisPlace(Kind.SENTINEL, _addresses(hosts, SENTINEL_PORT), db=_db(db), master=master)


def _cluster(hosts: str, rest: str, query: str) -> RedisPlace:
    _no_query(query)
    if rest.strip("/") not in {"", "0"}:
        raise Wrong("a Redis Cluster has one database only", "leave out what follows the hosts")
    return RedisPlace(Kind.CLUSTER, _addresses(hosts, PORT))


_READERS = {
    ("redis", ""): _single,
    ("rediss", ""): _single,
    ("unix", ""): _unix,
    ("redis", "sentinel"): _sentinel,
    ("rediss", "sentinel"): _sentinel,
    ("redis", "cluster"): _cluster,
    ("rediss", "cluster"): _cluster,
}


def _no_query(query: str) -> None:
    if query:
        raise Wrong("the URL has a ?query", "leave it out: files and limits have keys of their own")


def _addresses(hosts: str, port: int) -> tuple[Address, ...]:
    found = tuple(dict.fromkeys(_address(host, port) for host in hosts.split(",")))
    if len(found) > _MOST_HOSTS:
        raise Wrong(f"{len(found)} hosts are too many", f"name at most {_MOST_HOSTS}; the others are found")
    return found


def _address(text: str, default_port: int) -> Address:
    bracketed = _BRACKETED.match(text)
    if bracketed:
        host, rest = bracketed[1], text[bracketed.end() :]
    else:
        host, colon, port = text.partition(":")
        rest = colon + port
    if not host:
        raise Wrong("the URL has no host", f"write {_FORMS}")
    if ":" in rest.removeprefix(":"):
        raise Wrong(f"{text!r:.60} is not HOST:PORT", "write an IPv6 address in brackets: [2001:db8::1]:6379")
    if not bracketed and not _HOST.fullmatch(host):
        raise Wrong(f"{host!r:.60} is not a host", "write a name, an IPv4 address, or IPv6 in brackets")
    if rest and not re.fullmatch(r":[0-9]{1,5}", rest):
        raise Wrong(f"{text!r:.60} has no port after its colon", "write HOST:PORT, or HOST alone")
    port_number = int(rest[1:]) if rest else default_port
    if not 1 <= port_number <= 65535:
        raise Wrong(f"port {port_number} is out of bounds", "write 1 to 65535")
    return Address(host, port_number)


def _db(text: str) -> int:
    if not text:
        return 0
    if not re.fullmatch(r"[0-9]{1,6}", text) or int(text) > _HIGHEST_DB:
        raise Wrong(f"{text!r:.40} is not a database's number", "write a number such as 0, or leave it out")
    return int(text)


class RedisUrl:
    """The kind of setting: a URL as written, once ``parse_redis_url`` accepts it."""

    what = "a URL: redis://, rediss://, unix://, redis+sentinel://, redis+cluster:// (with rediss+ over TLS)"

    def read(self, value: object) -> str:
        """Return the text as written."""
        if not isinstance(value, str):
            raise Wrong(f"expected {self.what}, found {typed(value)}", f"write {_FORMS}")
        if len(value) > 2000:
            raise Wrong("the URL is longer than 2,000 characters", "name fewer hosts: the others are found")
        parse_redis_url(value)
        return value

    def show(self, value: str) -> str:
        """Return the text as written."""
        return value
