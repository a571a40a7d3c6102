"""What is wrong with Redis, as one sentence that says what to do.

Owns the sentences and the few words by which they are counted. Opens nothing. Invariant: what a
server said reaches a sentence shortened and printable, and no password ever does.
"""

from __future__ import annotations

from collections.abc import Iterable

_LONGEST = 160


class Trouble(str):
    """One sentence: what is wrong and what to do. ``reason`` is one of ``REASONS``."""

    reason: str

    def __new__(cls, text: str, reason: str) -> Trouble:
        """Make one; ``text`` must already be printable."""
        made = super().__new__(cls, text)
        made.reason = reason
        return made


class Lost(Exception):
    """This connection, or this attempt, is over; ``trouble`` says why."""

    def __init__(self, text: str, reason: str) -> None:
        super().__init__(text)
        self.trouble = Trouble(text, reason)


class RedisSaid(str):
    """An error reply of Redis as a value: ``OOM …``, ``WRONGTYPE …``."""

    __slots__ = ()


REASONS = (
    "answer", "busy", "closed", "cluster", "credentials", "full", "name", "permission", "protocol",
    "readonly", "refused", "starting", "stopped", "timeout", "tls", "unreachable",
)  # fmt: skip
"""Every word a trouble is counted by."""

_ENDING = {
    "OOM": ("is full and refuses writes", "raise maxmemory, or free memory", "full"),
    "READONLY": ("is a replica and refuses writes", "name the master, or use redis+sentinel://", "readonly"),
    "MISCONF": (
        "cannot save to its disk and refuses writes",
        "free its disk, or turn persistence off: none is needed",
        "readonly",
    ),
    "NOREPLICAS": ("has too few replicas and refuses writes", "see min-replicas-to-write", "readonly"),
    "NOPERM": (
        "refuses a command or key to this user",
        "give it the ACL line of docs/redis.md",
        "permission",
    ),
    "NOAUTH": ("wants a password", "name its file as state.redis.passwordFile", "credentials"),
    "WRONGPASS": (
        "refuses user or password",
        "correct the user in the URL or the passwordFile",
        "credentials",
    ),
    "LOADING": ("is still loading its data", "wait", "starting"),
    "MASTERDOWN": ("is a replica without its master", "look at its replication", "readonly"),
    "CLUSTERDOWN": ("Cluster does not serve these keys", "see CLUSTER INFO", "cluster"),
    "MOVED": ("has these keys no more", "if the URL says redis://, write redis+cluster://", "cluster"),
    "ASK": ("Cluster is moving these keys", "wait until it is done", "cluster"),
    "TRYAGAIN": ("Cluster is moving these keys", "wait until it is done", "cluster"),
    "CROSSSLOT": ("is a Cluster", "write redis+cluster:// in state.redis.url", "cluster"),
    "BUSY": ("is busy with somebody's script", "end it with SCRIPT KILL", "busy"),
}
_ENDING_ERR = (
    ("max number of clients", ("has no room for another client", "raise maxclients", "busy")),
    (
        "AUTH <password> called without",
        ("has no password, and we have one", "remove passwordFile", "credentials"),
    ),
    ("DB index", ("has no such database", "correct the number at the URL's end", "answer")),
    ("unknown command", ("does not know a command that is needed", "use Redis 6.2 or newer", "answer")),
)


def printable(text: str) -> str:
    """Return a stranger's words short and without anything a terminal would obey."""
    short = text if len(text) <= _LONGEST else text[:_LONGEST] + "…"
    return "".join(letter if letter.isprintable() else "?" for letter in short)


def said_trouble(said: str, where: str) -> Trouble | None:
    """Return the trouble that an error reply means for everything, None if it is about one command."""
    said = said.removeprefix("EXECABORT Transaction discarded because of: ")
    word = said.split(" ", 1)[0]
    known = _ENDING.get(word)
    if known is None and word == "ERR":
        known = next((entry for start, entry in _ENDING_ERR if start in said), None)
    if known is None:
        return None
    what, fix, reason = known
    return Trouble(f"Redis at {where} {what}: {fix} ({printable(said)})", reason)


def worst(replies: Iterable[object], where: str) -> Trouble | None:
    """Return the first trouble among replies, looking into transactions too."""
    for reply in replies:
        if isinstance(reply, RedisSaid):
            found = said_trouble(reply, where)
        elif isinstance(reply, list):
            found = worst((part for part in reply if isinstance(part, RedisSaid)), where)
        else:
            continue
        if found is not None:
            return found
    return None
