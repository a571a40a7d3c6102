"""The names of what is shared, in both directions.

Pure. Owns the form of every key: ``nameward:<cluster>:{<node>}:<kind>…``, IPv6 addresses in brackets.
``{<node>}`` is what Redis Cluster hashes, so that one node's keys lie together. Invariants: two
different things never have one name, and a name that is read is a name that could have been written.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

from enforcer.elements import describe
from enforcer.layout import ICMP
from policy.addresses import canonical, from_packed

_NAME = r"[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?"
_ADDRESS = r"\[[0-9a-f:.]{2,45}\]|[0-9.]{7,15}"
_KEY = re.compile(rf"nameward:({_NAME}):\{{({_NAME})\}}:([a-z]{{1,16}})((?::.*)?)")
_GRANT = re.compile(
    rf":({_ADDRESS}):({_ADDRESS}):([a-z]{{1,8}}|[0-9]{{1,3}}):(any|[0-9]{{1,5}}(?:-[0-9]{{1,5}})?)"
)
_POD = re.compile(rf":({_ADDRESS})")
MAX_KEY_BYTES = 512


class Place(NamedTuple):
    """What a key of one node names; the addresses are canonical text, "" where it has none."""

    cluster: str
    node: str
    kind: str
    pod_ip: str = ""
    address: str = ""
    protocol: str = ""
    port: str = ""


class Keys:
    """The keys of one node, and those of the cluster."""

    def __init__(self, cluster: str, node: str) -> None:
        self.cluster = cluster
        self.node = node
        self.everyones = f"nameward:{cluster}:".encode()
        """What all keys of the cluster begin with."""
        self.own = f"nameward:{cluster}:{{{node}}}:".encode()
        """What this node's keys begin with."""
        self.heartbeat = self.own + b"node"
        self.blocked = self.own + b"blocked"
        self.requests = self.own + b"requests"
        self.acks = self.own + b"acks"
        self.nodes = self.everyones + b"nodes"

    def of(self, node: str) -> Keys:
        """Return the keys of another node of the cluster."""
        return Keys(self.cluster, node)

    def grant(self, elements: str, key: bytes) -> bytes:
        """Return the key of the grant whose element this is (``enforcer.elements``)."""
        size = 4 if elements[-1] == "4" else 16
        return self.grants_of(key[:size]) + grant_tail(elements, key)

    def grants_of(self, source: bytes) -> bytes:
        """Return what the keys of all grants of a (packed) pod address begin with."""
        return b"%bgrant:%b:" % (self.own, address_text(source))

    def pod(self, source: bytes) -> bytes:
        """Return the key of the pod at a packed address."""
        return b"%bpod:%b" % (self.own, address_text(source))

    def owner(self, source: bytes) -> bytes:
        """Return the key that says whose a packed address is; in no node's slot."""
        return b"%bowner:%b" % (self.everyones, address_text(source))

    def pattern(self, kind: str, *, anywhere: bool = False) -> bytes:
        """Return the pattern that matches the keys of a kind, of this node or of all."""
        return (self.everyones + b"{*}:" if anywhere else self.own) + kind.encode() + b":*"


def address_text(packed: bytes) -> bytes:
    """Return an address as keys have it."""
    if len(packed) == 4:
        return b"%d.%d.%d.%d" % tuple(packed)
    return b"[%b]" % from_packed(packed).encode()


def grant_tail(elements: str, key: bytes) -> bytes:
    """Return ``<dst-ip>:<proto>:<port>`` of a grant's element."""
    size = 4 if elements[-1] == "4" else 16
    return grant_tail_of(key[size : 2 * size], elements, key[2 * size :])


def grant_tail_of(destination: bytes, elements: str, rest: bytes) -> bytes:
    """Return what ``grant_tail`` does, of the parts of a key; ``rest`` follows the addresses."""
    return address_text(destination) + _ports(elements, rest)


@lru_cache(maxsize=8192)
def _ports(elements: str, rest: bytes) -> bytes:
    """Return ``:<proto>:<port>`` of what follows the addresses in an element's key."""
    size = 4 if elements[-1] == "4" else 16
    _, _, protocol, first, last = describe(elements, bytes(2 * size) + rest)
    if protocol == "icmp" and (rest[0] == ICMP) != (size == 4):
        protocol = str(rest[0])  # the other family's: not the same thing
    if (first, last) == (0, 65535):
        return f":{protocol}:any".encode()
    return f":{protocol}:{first}-{last}".encode() if first != last else f":{protocol}:{first}".encode()


def place_of(key: bytes) -> Place:
    """Read a key of a node back; ``ValueError`` if no node would have written it."""
    found = _KEY.fullmatch(_text(key))
    if found is None:
        raise ValueError("no key of a node")
    cluster, node, kind, rest = found.groups()
    place = Place(cluster, node, kind)
    if kind == "grant":
        parts = _GRANT.fullmatch(rest)
        if parts is None:
            raise ValueError("no key of a grant")
        pod, address, protocol, port = parts.groups()
        return place._replace(pod_ip=_address(pod), address=_address(address), protocol=protocol, port=port)
    if kind == "pod":
        parts = _POD.fullmatch(rest)
        if parts is None:
            raise ValueError("no key of a pod")
        return place._replace(pod_ip=_address(parts[1]))
    if rest:
        raise ValueError("no key of a node")
    return place


def _text(key: bytes) -> str:
    if len(key) > MAX_KEY_BYTES:
        raise ValueError("longer than any key")
    return key.decode("ascii")


def _address(said: str) -> str:
    text = said.strip("[]")
    if canonical(text) != text or (":" in text) != (said[0] == "["):
        raise ValueError("not how a key writes an address")
    return text
