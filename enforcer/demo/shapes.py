"""The shapes of a lab's Redis: alone, over TLS, behind a slow wire, under Sentinel, as a Cluster.

Owns where it listens, its user, and what the nodes' configuration has to say of it. Never starts it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

from enforcer.demo.certificates import Certificates
from enforcer.demo.delay import Delay
from enforcer.demo.places import STORE4
from enforcer.demo.spaces import Space
from enforcer.demo.stores import Ring, Store, Trio
from enforcer.demo.ward import Settings

USER, PASSWORD = "nameward", "a-password-of-the-lab"
_PORT, _SLOW_PORT = 6379, 6380
_RIGHTS = (
    "+time +scan +hgetall +pttl +xlen +xread +xrange +xrevrange "
    "+multi +exec +discard +hset +hdel +xadd +copy +pexpire +del +unlink"
)
"""What docs/redis.md gives a node's user, and no more."""
_ACL = f"user {USER} on >{PASSWORD} ~nameward:demo:* resetchannels {_RIGHTS}\n"


@dataclasses.dataclass(slots=True)
class Redis:
    """What a cluster shares. ``start`` and ``stop``: all its parts; ``store``: the one to speak to."""

    store: Store
    settings: Settings
    start: Callable[[], object]
    stop: Callable[[], object]
    wire: Delay | None = None
    trio: Trio | None = None
    ring: Ring | None = None

    def set_password(self, password: str) -> None:
        """Change what the server takes, and end the connections that came with another."""
        self.store.cli("ACL", "SETUSER", USER, "resetpass", f">{password}")
        self.store.cli("CLIENT", "KILL", "USER", USER)


Shape = Callable[[Space, Path], Redis]
"""Makes a Redis that lives in a namespace, its files in a folder."""


def alone(space: Space, folder: Path) -> Redis:
    """One server that has a user with a password."""
    store = Store(folder, space=space, addresses=(STORE4,), port=_PORT, more=_ACL)
    password = folder / "password"
    password.touch(0o600)
    password.write_text(f"{PASSWORD}\n")
    settings = {"url": f"redis://{USER}@{STORE4}:{_PORT}", "passwordFile": str(password)}
    return Redis(store, settings, store.start, store.stop)


def over_tls(space: Space, folder: Path) -> Redis:
    """One server that speaks TLS only and wants a certificate of its clients."""
    signed = Certificates(folder / "certificates", [STORE4])
    store = Store(folder, space=space, addresses=(STORE4,), port=_PORT, certificates=signed)
    files = {"caFile": signed.ca_file, "certFile": signed.cert_file, "keyFile": signed.key_file}
    settings = {"url": store.url, **{key: str(path) for key, path in files.items()}}
    return Redis(store, settings, store.start, store.stop)


def behind_a_wire(space: Space, folder: Path) -> Redis:
    """One server that the nodes reach by a wire that can be made slow."""
    found = alone(space, folder)
    wire = Delay(space, (STORE4, _SLOW_PORT), (STORE4, _PORT))

    def start() -> None:
        found.store.start()
        wire.start()

    def stop() -> None:
        wire.stop()
        found.store.stop()

    settings = found.settings | {"url": f"redis://{USER}@{STORE4}:{_SLOW_PORT}"}
    return Redis(found.store, settings, start, stop, wire=wire)


def under_sentinel(space: Space, folder: Path) -> Redis:
    """A master, a replica and three Sentinels."""
    trio = Trio(space=space, host=STORE4, folder=folder)
    return Redis(trio.servers[0], {"url": trio.url}, trio.start, trio.stop, trio=trio)


def as_cluster(space: Space, folder: Path) -> Redis:
    """Three masters that share the keys; the user may ask them which has what, and no more."""
    ring = Ring(space=space, host=STORE4, folder=folder, more=_ACL.replace("\n", " +cluster|slots\n"))
    password = folder / "password"
    password.touch(0o600)
    password.write_text(f"{PASSWORD}\n")
    settings = {"url": f"redis+cluster://{USER}@{ring.hosts}", "passwordFile": str(password)}
    return Redis(ring.servers[0], settings, ring.start, ring.stop, ring=ring)
