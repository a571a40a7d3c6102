"""Real Redis servers for tests, the demo and measurements: one alone, under Sentinel, or a Cluster.

Owns starting, stopping, killing, freezing and thawing them, each in a folder of its own. Never
touches a server it did not start. Invariant: a server gets SIGKILL from the kernel when the thread
that started it (or this process) ends, however it ends, frozen or not.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from enforcer.demo import folders
from enforcer.demo.certificates import Certificates
from enforcer.demo.failure import CannotRunHereError, LabFailureError
from enforcer.demo.processes import LONG_S, wait_until
from enforcer.demo.spaces import Space

SERVER, CLIENT = "redis-server", "redis-cli"
_START_S = LONG_S
_MASTER = "nameward"


def free_ports(count: int) -> list[int]:
    """Return TCP ports of loopback that nobody listens on; below 32768, so that none is taken meanwhile."""
    found: list[int] = []
    start = 20_000 + os.getpid() * 7 % 10_000
    for port in range(start, 32_000):
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            found.append(port)
        if len(found) == count:
            return found
    raise LabFailureError("no free ports between 20000 and 32000")


class Store:
    """One redis-server, on a Unix socket and, with ``port``, on TCP addresses; in ``space`` if given.

    With ``certificates`` the TCP port speaks TLS only. ``settings`` are redis.conf, and
    ``more`` its lines whose first words repeat (``user NAME …``).
    """

    def __init__(
        self,
        folder: Path | None = None,
        *,
        space: Space | None = None,
        addresses: Sequence[str] = ("127.0.0.1",),
        port: int = 0,
        certificates: Certificates | None = None,
        settings: Mapping[str, str] | None = None,
        more: str = "",
        sentinel: bool = False,
    ) -> None:
        self._is_owned = folder is None
        self.folder = folder or folders.made()
        self.folder.mkdir(parents=True, exist_ok=True)
        self.port = port
        self.addresses = tuple(addresses)
        self.certificates = certificates
        self.path = self.folder / "redis.sock"
        self._space = space
        self._settings = dict(settings or {})
        self._more = more
        self._is_sentinel = sentinel
        self._process: subprocess.Popen[bytes] | None = None
        if len(str(self.path)) > 100:
            raise LabFailureError(f"{self.path} is too long for a Unix socket")

    # --- where -----------------------------------------------------------------------------------

    @property
    def unix_url(self) -> str:
        """The URL of its socket, for ``state.redis.url``."""
        return f"unix://{self.path}"

    @property
    def url(self) -> str:
        """The URL of its first TCP address."""
        address = self.addresses[0]
        host = f"[{address}]" if ":" in address else address
        return f"{'rediss' if self.certificates else 'redis'}://{host}:{self.port}"

    @property
    def pid(self) -> int:
        """The process id of the server. Raises LabFailureError if it does not run."""
        if not self.runs:
            raise LabFailureError("this Redis does not run")
        assert self._process is not None  # noqa: S101 (for the type checker)
        return self._process.pid

    @property
    def runs(self) -> bool:
        """Say whether the process exists, frozen or not."""
        return self._process is not None and self._process.poll() is None

    # --- life ------------------------------------------------------------------------------------

    def start(self) -> Store:
        """Start it (again) with its configuration, and wait until it answers."""
        if shutil.which(SERVER) is None:
            raise CannotRunHereError(f"{SERVER} is missing: apt-get install -y redis-server")
        self.path.unlink(missing_ok=True)
        command = ["setpriv", "--pdeathsig", "KILL", "--", SERVER, str(self._configured())]
        if self._is_sentinel:
            command.append("--sentinel")
        with contextlib.ExitStack() as stack:
            if self._space is not None:
                stack.enter_context(self._space.entered())
            log = stack.enter_context((self.folder / "log").open("ab"))
            self._process = subprocess.Popen(  # noqa: S603 (arguments are the lab's own)
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        if not wait_until(lambda: not self.runs or self._answers(), _START_S) or not self.runs:
            said = self.log()
            self.stop()
            raise LabFailureError(f"Redis did not start: {said[-400:]}")
        return self

    def stop(self) -> None:
        """End it and forget its data and folder (a folder that was given stays)."""
        self.kill()
        if self._is_owned:
            shutil.rmtree(self.folder, ignore_errors=True)

    def kill(self) -> None:
        """End it at once, as a crash does; ``start`` brings it back, empty unless it saved."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait(LONG_S)

    def freeze(self) -> None:
        """Stop it with SIGSTOP: the kernel goes on accepting connections, nobody answers."""
        os.kill(self.pid, signal.SIGSTOP)
        stat = Path(f"/proc/{self.pid}/stat")
        wait_until(lambda: stat.read_text().rpartition(")")[2].split()[0] == "T", _START_S, 0.001)

    def thaw(self) -> None:
        """Let a frozen one go on."""
        os.kill(self.pid, signal.SIGCONT)

    def __enter__(self) -> Store:
        """Start it for a while."""
        return self.start()

    def __exit__(self, *_error: object) -> None:
        """End it."""
        self.stop()

    # --- speaking to it --------------------------------------------------------------------------

    def cli(self, *words: str, timeout_s: float = LONG_S) -> str:
        """Run one command with redis-cli over the Unix socket, as the default user; returns its output.

        Raises LabFailureError when Redis answers with an error.
        """
        done = subprocess.run(  # noqa: S603 (arguments are the lab's own)
            [CLIENT, "-e", "-s", str(self.path), *self._auth(), *words],
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        if done.returncode != 0:
            raise LabFailureError(f"redis-cli {words[0]}: {(done.stderr or done.stdout).strip()}")
        return done.stdout.rstrip("\n")

    def set_password(self, password: str) -> None:
        """Change the default user's password ("" for none), and end every connection there is."""
        self.cli("config", "set", "requirepass", password)
        self._settings["requirepass"] = password
        if not password:
            del self._settings["requirepass"]
        self.cli("client", "kill", "type", "normal", "skipme", "yes")

    def log(self) -> str:
        """Return what it wrote to its log."""
        with contextlib.suppress(OSError):
            return (self.folder / "log").read_text(errors="replace")
        return ""

    def _auth(self) -> list[str]:
        password = self._settings.get("requirepass")
        return ["--no-auth-warning", "-a", password] if password else []

    def _answers(self) -> bool:
        if not self.runs:
            return False
        with contextlib.suppress(LabFailureError, subprocess.TimeoutExpired):
            return self.cli("ping", timeout_s=2.0) == "PONG"
        return False

    def _configured(self) -> Path:
        """Write redis.conf: nothing is saved, nobody else's defaults apply."""
        lines = {
            "unixsocket": str(self.path),
            "unixsocketperm": "700",
            "dir": str(self.folder),
            "port": "0" if self.certificates else str(self.port),
            "bind": " ".join(self.addresses),
            "protected-mode": "no",
            "daemonize": "no",
        }
        if not self._is_sentinel:
            lines |= {"save": '""', "appendonly": "no", "repl-diskless-sync-delay": "0"}
        if self.certificates is not None:
            lines |= {"tls-port": str(self.port), **self.certificates.server_settings()}
        path = self.folder / "redis.conf"
        if self._is_sentinel and path.exists():
            return path  # Sentinel keeps what it knows in it
        text = "".join(f"{key} {value}\n" for key, value in (lines | self._settings).items())
        path.write_text(text + self._more)
        return path


class Trio:
    """A master with a replica, and three Sentinels that watch them; in ``space`` at ``host`` if given."""

    def __init__(
        self,
        *,
        down_after_ms: int = 1000,
        space: Space | None = None,
        host: str = "127.0.0.1",
        folder: Path | None = None,
    ) -> None:
        self.folder = folder or folders.made()
        self._host = host
        ports = free_ports(5)
        settings = {"replica-announce-ip": host}

        def made(name: str, port: int, **more: str) -> Store:
            return Store(
                self.folder / name, port=port, space=space, addresses=(host,), settings=settings | more
            )

        self.servers = [made("a", ports[0]), made("b", ports[1], replicaof=f"{host} {ports[0]}")]
        watched = (
            f"sentinel monitor {_MASTER} {host} {ports[0]} 2\n"
            f"sentinel down-after-milliseconds {_MASTER} {down_after_ms}\n"
            f"sentinel failover-timeout {_MASTER} 6000\n"
        )
        self.sentinels = [
            Store(
                self.folder / f"s{port}",
                port=port,
                space=space,
                addresses=(host,),
                more=watched,
                sentinel=True,
            )
            for port in ports[2:]
        ]

    @property
    def url(self) -> str:
        """The URL that names all three Sentinels."""
        hosts = ",".join(f"{self._host}:{sentinel.port}" for sentinel in self.sentinels)
        return f"redis+sentinel://{hosts}/{_MASTER}"

    def start(self) -> Trio:
        """Start all five, and wait until each Sentinel knows the others and the replica."""
        for store in (*self.servers, *self.sentinels):
            store.start()
        if not wait_until(lambda: all(map(_is_settled, self.sentinels)), _START_S, 0.1):
            raise LabFailureError("the Sentinels did not find each other")
        return self

    def master_port(self) -> int:
        """Return the port that most Sentinels take for the master's."""
        ask = ("sentinel", "get-master-addr-by-name", _MASTER)
        said = [int(sentinel.cli(*ask).splitlines()[1]) for sentinel in self.sentinels if sentinel.runs]
        return max(set(said), key=said.count)

    def master(self) -> Store:
        """Return the server that is the master now."""
        port = self.master_port()
        return next(store for store in self.servers if store.port == port)

    def stop(self) -> None:
        """End all, and forget them."""
        _stop_all((*self.sentinels, *self.servers), self.folder)

    def __enter__(self) -> Trio:
        """Start it for a while."""
        return self.start()

    def __exit__(self, *_error: object) -> None:
        """End it."""
        self.stop()


class Ring:
    """A Redis Cluster of three masters without replicas; in ``space`` at ``host`` if given."""

    def __init__(
        self,
        *,
        space: Space | None = None,
        host: str = "127.0.0.1",
        folder: Path | None = None,
        more: str = "",
    ) -> None:
        self.folder = folder or folders.made()
        self._host = host
        ports = free_ports(6)
        self.servers = [
            Store(
                self.folder / str(port),
                port=port,
                space=space,
                addresses=(host,),
                more=more,
                settings={
                    "cluster-enabled": "yes",
                    "cluster-port": str(bus),
                    "cluster-node-timeout": "2000",
                    "cluster-announce-ip": host,
                },
            )
            for port, bus in zip(ports[:3], ports[3:], strict=True)
        ]

    @property
    def hosts(self) -> str:
        """All three, as a URL names them."""
        return ",".join(f"{self._host}:{store.port}" for store in self.servers)

    @property
    def url(self) -> str:
        """The URL that names all three."""
        return f"redis+cluster://{self.hosts}"

    def start(self) -> Ring:
        """Start all three, share the slots among them, and wait until each serves."""
        for store in self.servers:
            store.start()
        first, *others = self.servers
        for index, store in enumerate(self.servers):
            low, high = 16384 * index // 3, 16384 * (index + 1) // 3 - 1
            store.cli("cluster", "addslotsrange", str(low), str(high))
            store.cli("cluster", "set-config-epoch", str(index + 1))
        for store in others:
            bus = first._settings["cluster-port"]
            store.cli("cluster", "meet", self._host, str(first.port), bus)
        if not wait_until(lambda: all(map(_serves, self.servers)), _START_S, 0.1):
            raise LabFailureError("the Cluster did not come together")
        return self

    def stop(self) -> None:
        """End all, and forget them."""
        _stop_all(self.servers, self.folder)

    def __enter__(self) -> Ring:
        """Start it for a while."""
        return self.start()

    def __exit__(self, *_error: object) -> None:
        """End it."""
        self.stop()


def _stop_all(stores: Iterable[Store], folder: Path) -> None:
    for store in stores:
        store.stop()
    shutil.rmtree(folder, ignore_errors=True)


def _is_settled(sentinel: Store) -> bool:
    words = sentinel.cli("sentinel", "master", _MASTER).splitlines()
    known = dict(zip(words[::2], words[1::2], strict=False))
    return known.get("num-other-sentinels") == "2" and known.get("num-slaves") == "1"


def _serves(store: Store) -> bool:
    info = store.cli("cluster", "info")
    return "cluster_state:ok" in info and "cluster_known_nodes:3" in info
