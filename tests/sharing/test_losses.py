"""Every way in which Redis is lost: each is said with what to do, and ends by itself when it is mended."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import pytest

from enforcer.demo.certificates import Certificates
from enforcer.demo.failure import LabFailureError
from enforcer.demo.stores import Store, Trio, free_ports
from enforcer.sharing.records.resp import packed
from enforcer.sharing.redis.credentials import Credentials, TlsFiles
from enforcer.sharing.redis.finding import needed_commands
from tests.sharing.detour import Detour
from tests.sharing.loop import ACKS, NODE, Visitor

A = b"nameward:c:{a}:x"
SUFFICIENT = sorted({command[0].decode().lower() for command in needed_commands(NODE, is_cluster=False)})
ALWAYS = ("time", "multi", "exec", "discard")
ACL = "user nameward on >{password} ~nameward:c:* -@all {commands}\n"


def acl(password: str = "secret-of-the-test", without: str = "", keys: str = "nameward:c:*") -> str:
    """The ACL line that suffices, less one command."""
    words = " ".join(f"+{word}" for word in (*ALWAYS, *SUFFICIENT) if word != without)
    return ACL.format(password=password, commands=words).replace("nameward:c:*", keys)


class Loss(NamedTuple):
    """``strike`` and ``mend`` a server; the reason and the words by which it is said."""

    name: str
    strike: Callable[[Store], object]
    mend: Callable[[Store], object]
    reason: str
    words: tuple[str, ...]


def fill(store: Store) -> None:
    """Nothing fits any more."""
    store.cli("config", "set", "maxmemory-policy", "noeviction")
    store.cli("config", "set", "maxmemory", "100kb")


LOSSES = (
    Loss("killed", Store.kill, Store.start, "refused", ("is not running there", "start it")),
    Loss("frozen", Store.freeze, Store.thaw, "timeout", ("no answer for 1 s", "frozen")),
    Loss("full", fill, lambda s: s.cli("config", "set", "maxmemory", "0"), "full", ("is full", "maxmemory")),
    Loss(
        "a replica",
        lambda s: s.cli("replicaof", "127.0.0.1", "1"),
        lambda s: s.cli("replicaof", "no", "one"),
        "readonly",
        ("replica", "redis+sentinel://"),
    ),
    Loss(
        "too few replicas",
        lambda s: s.cli("config", "set", "min-replicas-to-write", "1"),
        lambda s: s.cli("config", "set", "min-replicas-to-write", "0"),
        "readonly",
        ("too few replicas", "min-replicas-to-write"),
    ),
    Loss(
        "wants a password",
        lambda s: s.set_password("another"),
        lambda s: s.set_password(""),
        "credentials",
        ("wants a password", "passwordFile"),
    ),
)


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss.name)
def test_it_is_said_and_ends_when_it_is_mended(store: Store, credentials: Credentials, loss: Loss) -> None:
    """What waited hears None before the loss is said; once mended it is up, and writes again."""
    with Visitor(store.unix_url, credentials) as visitor:
        visitor.up()
        order = visitor.said
        loss.strike(store)
        visitor.door.write([packed(b"SET", A, b"1")], lambda replies: order.append(f"write {replies}"))
        said = visitor.lost(loss.reason)
        assert all(word in said for word in loss.words), said
        assert str(store.path) in said, "it says which server"
        assert order[:2] == ["up", "write None"]
        heard = []
        visitor.door.ask(lambda reader: reader.time_ms(), heard.append)
        assert visitor.loop.until(lambda: heard)
        assert str(heard[0]) == visitor.door.trouble
        loss.mend(store)
        visitor.up()
        assert visitor.write(packed(b"SET", A, b"2"), packed(b"GET", A)) == [b"OK", b"2"]
        visitor.send(ACKS, b"XADD", ACKS, b"*", b"f", b"v")
        assert visitor.loop.until(lambda: visitor.entries)


OPENING = """
import sys
from tests.sharing.loop import Visitor
from enforcer.sharing.redis.credentials import Credentials
with Visitor(sys.argv[1], Credentials(hmac_key_file=sys.argv[2])) as visitor:
    print(visitor.lost("permission"))
"""


def test_a_socket_that_may_not_be_opened(store: Store, tmp_path: Path) -> None:
    """The service is root without the right to pass file modes."""
    (tmp_path / "key").write_text("0123456789abcdef")
    store.path.chmod(0)
    drop = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
    argv = [*drop, sys.executable, "-c", OPENING, store.unix_url, str(tmp_path / "key")]
    done = subprocess.run(
        argv, capture_output=True, text=True, check=False, timeout=120, cwd=Path(__file__).parents[2]
    )
    assert "may not be opened: let this service write to it" in done.stdout, done


def test_an_idle_door_sees_it_too(store: Store, credentials: Credentials) -> None:
    """Nobody writes anything, and still a full Redis is seen."""
    with Visitor(store.unix_url, credentials) as visitor:
        visitor.up()
        fill(store)
        assert "is full" in visitor.lost("full")
        assert store.cli("dbsize") == "0", "looking changes nothing"


def test_cut_off_and_joined_again(store: Store, credentials: Credentials) -> None:
    """Nothing arrives any more, and nobody says so: that is seen by the silence."""
    with Detour(store.path) as way, Visitor(way.url, credentials) as visitor:
        visitor.up()
        way.is_cut = True
        assert "is it frozen, or the way cut?" in visitor.lost("timeout")
        way.is_cut = False
        visitor.up()


def test_flushed_it_stays_up_restarted_empty_it_comes_again(store: Store, credentials: Credentials) -> None:
    """That a flush is noticed is the publisher's affair; a restart says "up" again: publish everything."""
    with Visitor(store.unix_url, credentials) as visitor:
        visitor.up()
        store.cli("flushall")
        visitor.send(ACKS, b"XADD", ACKS, b"*", b"f", b"v")
        assert visitor.loop.until(lambda: visitor.entries)
        assert visitor.said == ["up"]
        store.kill()
        store.start()
        assert visitor.loop.until(lambda: visitor.said.count("up") == 2)
        assert visitor.said[1] in {"closed", "refused"}


def test_a_loss_is_said_once_for_each_reason(store: Store, credentials: Credentials) -> None:
    """However often it is tried, the same reason is said once; another one is said."""
    with Visitor(store.unix_url, credentials, pause_s=0.01) as visitor:
        visitor.up()
        store.kill()
        visitor.lost("refused")
        for _ in range(30):
            visitor.loop.turn(0.02)
        assert visitor.said.count("refused") == 1
        store.start()
        visitor.up()
        assert visitor.said.count("up") == 2


@pytest.fixture(scope="module")
def signed(tmp_path_factory) -> Certificates:
    """An authority with its certificates."""
    return Certificates(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def trio() -> Iterator[Trio]:
    """One for all of these."""
    with Trio() as running:
        yield running


class TestPasswords:
    """Users, passwords and what they may do."""

    @pytest.fixture
    def guarded(self) -> Iterator[Store]:
        """A server with a user who may do exactly what is needed, and nobody else."""
        with Store(more=acl()) as running:
            yield running

    @pytest.fixture
    def password(self, tmp_path: Path) -> Path:
        """The password's file."""
        path = tmp_path / "password"
        path.write_text("secret-of-the-test\n")
        return path

    @pytest.fixture
    def known(self, tmp_path: Path, password: Path) -> Credentials:
        """Credentials with it."""
        (tmp_path / "hmac.key").write_text("0123456789abcdef")
        return Credentials(hmac_key_file=str(tmp_path / "hmac.key"), password_file=str(password))

    def test_the_commands_that_are_tested_suffice(self, guarded, known) -> None:
        """As a user who may do nothing else."""
        with Visitor(f"unix://nameward@{guarded.path}", known) as visitor:
            visitor.up()
            assert visitor.write(packed(b"HSET", A, b"f", b"v"), packed(b"PEXPIRE", A, b"9999")) == [1, 1]
            visitor.send(ACKS, b"XADD", ACKS, b"*", b"f", b"v")
            assert visitor.loop.until(lambda: visitor.entries)
            assert visitor.ask(lambda reader: reader.scan(b"nameward:c:*", 10)) != []
            assert visitor.ask(lambda reader: reader.hashes([A])) == [{b"f": b"v"}]
            assert visitor.ask(lambda reader: len(reader.range(ACKS))) == 1

    @pytest.mark.parametrize("without", [*ALWAYS, *SUFFICIENT])
    def test_without_one_of_them_it_is_said_and_nothing_is_written(self, known, without) -> None:
        """Which command, and where the right line is; then it is up as soon as it is allowed."""
        narrow = Store(more=acl(without=without))
        with narrow, Visitor(f"unix://nameward@{narrow.path}", known) as visitor:
            said = visitor.lost("permission")
            assert f"'{without}'" in said
            assert "docs/redis.md" in said
            assert narrow.cli("dbsize") == "0"
            narrow.cli("acl", "setuser", "nameward", f"+{without}")
            visitor.up()

    def test_a_user_of_other_keys_is_told(self, known) -> None:
        """The ACL names another cluster."""
        narrow = Store(more=acl(keys="nameward:other:*"))
        with narrow, Visitor(f"unix://nameward@{narrow.path}", known) as visitor:
            assert "key" in visitor.lost("permission")

    def test_a_wrong_password_and_one_that_is_written_anew(self, guarded, known, password) -> None:
        """The file is read at every attempt; what it says is never repeated."""
        password.write_text("a-wrong-one")
        with Visitor(f"unix://nameward@{guarded.path}", known) as visitor:
            said = visitor.lost("credentials")
            assert "refuses user or password" in said
            assert "passwordFile" in said
            assert "a-wrong-one" not in said
            password.write_text("secret-of-the-test")
            visitor.up()
            guarded.cli("acl", "setuser", "nameward", "resetpass", ">the-next-one")
            guarded.cli("client", "kill", "user", "nameward")
            visitor.lost("credentials")
            password.write_text("the-next-one\n")
            visitor.up()

    def test_files_that_are_not_there_are_said_and_waited_for(self, guarded, known, password) -> None:
        """No password file, then no HMAC key: each with its setting, its path and what to do."""
        password.unlink()
        with Visitor(f"unix://nameward@{guarded.path}", known) as visitor:
            said = visitor.lost("credentials")
            assert f"state.redis.passwordFile: {password} cannot be read" in said
            password.write_text("secret-of-the-test")
            visitor.up()
        key = password.with_name("absent.key")
        keyless = Credentials(hmac_key_file=str(key), password_file=str(password))
        with Visitor(f"unix://nameward@{guarded.path}", keyless) as visitor:
            assert f"state.redis.hmacKeyFile: {key}" in visitor.lost("credentials")
            key.write_text("f" * 32)
            visitor.up()
            assert visitor.new_keys == 0
            key.write_text("e" * 32)
            assert visitor.loop.until(lambda: visitor.new_keys == 1)
            assert keyless.keys is not None
            assert keyless.keys.current == b"e" * 32


class TestTls:
    """Certificates: good, expired, unknown, of another name, and no TLS at all."""

    @pytest.fixture
    def encrypted(self, signed: Certificates) -> Iterator[Store]:
        """A server that wants a client's certificate."""
        signed.issue("server")
        signed.issue("client")
        with Store(port=free_ports(1)[0], certificates=signed) as running:
            yield running

    @pytest.fixture
    def trusting(self, credentials: Credentials, signed: Certificates) -> Credentials:
        """Credentials with our certificate and the authority's."""
        return with_files(credentials, signed)

    def test_it_works_with_certificates_on_both_ends(self, encrypted, trusting) -> None:
        """Everything as without TLS; killed, it is said in the same words."""
        with Visitor(encrypted.url, trusting) as visitor:
            visitor.up()
            assert visitor.write(packed(b"SET", A, b"x" * 100_000)) == [b"OK"]
            visitor.send(ACKS, b"XADD", ACKS, b"*", b"f", b"v" * 10_000)
            assert visitor.loop.until(lambda: visitor.entries)
            encrypted.kill()
            assert visitor.loop.until(lambda: len(visitor.said) > 1)
            assert visitor.said[1] in {"closed", "refused"}
            encrypted.start()
            visitor.up()

    def test_an_expired_certificate_of_the_server(self, encrypted, trusting, signed) -> None:
        """Said when it is connected to; up when it is renewed, without a restart of ours."""
        with Visitor(encrypted.url, trusting) as visitor:
            visitor.up()
            encrypted.kill()
            signed.issue("server", expired=True)
            encrypted.start()
            said = visitor.lost("tls")
            assert "has a certificate that has expired: renew it on the server" in said
            encrypted.kill()
            signed.issue("server")
            encrypted.start()
            visitor.up()

    def test_an_expired_certificate_of_ours(self, encrypted, trusting, signed) -> None:
        """The server's word for it, and which key to renew; read again at each attempt."""
        signed.issue("client", expired=True)
        with Visitor(encrypted.url, trusting) as visitor:
            assert "our certificate has expired: renew certFile" in visitor.lost("tls")
            signed.issue("client")
            visitor.up()

    def test_an_unknown_authority(self, encrypted, credentials, tmp_path) -> None:
        """caFile alone is trusted."""
        other = Certificates(tmp_path / "other")
        with Visitor(encrypted.url, with_files(credentials, other)) as visitor:
            assert "of an unknown CA: name its CA's certificate as caFile" in visitor.lost("tls")

    def test_a_client_that_the_server_does_not_know(self, encrypted, credentials, signed, tmp_path) -> None:
        """Signed by another authority, or no certificate at all."""
        other = Certificates(tmp_path / "other")
        mixed = TlsFiles(str(signed.ca_file), str(other.cert_file), str(other.key_file))
        credentials.tls = mixed
        with Visitor(encrypted.url, credentials) as visitor:
            assert "does not trust our certificate" in visitor.lost("tls")
        credentials.tls = TlsFiles(str(signed.ca_file))
        with Visitor(encrypted.url, credentials) as visitor:
            assert "wants a certificate of ours: set certFile and keyFile" in visitor.lost("tls")

    def test_a_certificate_for_another_name(self, credentials, tmp_path) -> None:
        """A server that has a good certificate, but not for the host in the URL."""
        named = Certificates(tmp_path / "named", ["redis.example"])
        running = Store(port=free_ports(1)[0], certificates=named)
        with running, Visitor(running.url, with_files(credentials, named)) as visitor:
            assert "for another name" in visitor.lost("tls")

    def test_tls_to_a_server_without_and_the_other_way_round(self, encrypted, credentials, signed) -> None:
        """What to write in the URL."""
        with Store(port=free_ports(1)[0]) as plain:
            url = plain.url.replace("redis:", "rediss:")
            with Visitor(url, with_files(credentials, signed)) as visitor:
                assert "no TLS port (redis://)" in visitor.lost("timeout")
        with Visitor(encrypted.url.replace("rediss:", "redis:"), credentials) as visitor:
            assert "rediss://" in visitor.lost("closed")

    def test_files_that_are_wrong(self, encrypted, credentials, signed, tmp_path) -> None:
        """A caFile that is not there, or is no PEM."""
        credentials.tls = TlsFiles(str(tmp_path / "absent"))
        with Visitor(encrypted.url, credentials) as visitor:
            assert "caFile, certFile or keyFile of state.redis is not there" in visitor.lost("tls")
        (tmp_path / "text").write_text("no certificate")
        credentials.tls = TlsFiles(str(tmp_path / "text"))
        with Visitor(encrypted.url, credentials) as visitor:
            assert "PEM" in visitor.lost("tls")


def with_files(credentials: Credentials, signed: Certificates) -> Credentials:
    """These credentials, with an authority's files."""
    credentials.tls = TlsFiles(str(signed.ca_file), str(signed.cert_file), str(signed.key_file))
    return credentials


class TestSentinel:
    """A master with a replica under three Sentinels."""

    def test_a_failover_after_a_crash(self, trio, credentials) -> None:
        """The new master is found and written to; the old one, back as a replica, is left alone."""
        with Visitor(trio.url, credentials) as visitor:
            visitor.up()
            old = trio.master()
            old.kill()
            assert visitor.loop.until(lambda: visitor.said.count("up") == 2, 60.0), visitor.door.trouble
            assert visitor.write(packed(b"SET", A, b"1")) == [b"OK"]
            new = next(server for server in trio.servers if server is not old)
            assert new.cli("get", A.decode()) == "1"
            old.start()
            assert visitor.loop.until(lambda: role(old) == "slave", 60.0)

    def test_a_master_that_is_changed_while_both_live(self, trio, credentials) -> None:
        """Sentinel's word is asked for each second: nobody goes on writing to a master of yesterday."""
        with Visitor(trio.url, credentials) as visitor:
            visitor.up()
            assert visitor.loop.until(lambda: all(has_replica(sentinel) for sentinel in trio.sentinels))
            before = trio.master_port()

            def changes() -> bool:
                if trio.master_port() != before:
                    return True
                with suppress(LabFailureError):  # while another is on its way, or the replica not ready
                    trio.sentinels[0].cli("sentinel", "failover", "nameward")
                return False

            assert visitor.loop.until(changes, 60.0)
            written = lambda: (  # noqa: E731
                visitor.door.is_up
                and visitor.write(packed(b"SET", A, b"2")) == [b"OK"]
                and trio.master().cli("get", A.decode()) == "2"
            )
            assert visitor.loop.until(written, 60.0)

    def test_a_name_that_no_sentinel_knows_and_no_sentinel_at_all(self, trio, store, credentials) -> None:
        """Which name, and what to correct."""
        with Visitor(trio.url.replace("/nameward", "/other"), credentials) as visitor:
            assert "knows no master other" in visitor.lost("name")
        port = free_ports(1)[0]
        with Visitor(f"redis+sentinel://127.0.0.1:{port}/nameward", credentials) as visitor:
            assert "no Sentinel helps" in visitor.lost("refused")
        with (
            Store(port=port) as server,
            Visitor(f"redis+sentinel://127.0.0.1:{port}/x", credentials) as visitor,
        ):
            assert "is no Sentinel" in visitor.lost("answer"), server

    def test_sentinels_have_a_password_of_their_own(self, store, tmp_path) -> None:
        """Which file to name; the master is asked with the other one."""
        master = Store(port=free_ports(1)[0], more=acl())
        watched = f"sentinel monitor nameward 127.0.0.1 {master.port} 1\nsentinel resolve-hostnames no\n"
        secret = {"requirepass": "of-the-sentinels"}
        sentinel = Store(port=free_ports(2)[1], settings=secret, more=watched, sentinel=True)
        files = {
            "hmac_key": "k" * 32,
            "password": "secret-of-the-test",
            "sentinel_password": "of-the-sentinels",
        }
        for name, content in files.items():
            (tmp_path / name).write_text(content)
        paths = {f"{name}_file": str(tmp_path / name) for name in files}
        url = f"redis+sentinel://nameward@127.0.0.1:{sentinel.port}/nameward"
        with master, sentinel:
            without = {key: path for key, path in paths.items() if key != "sentinel_password_file"}
            with Visitor(url, Credentials(**without)) as visitor:
                said = visitor.lost("credentials")
                assert "wants a password: name its file as state.redis.sentinelPasswordFile" in said
            with Visitor(url, Credentials(**paths)) as visitor:
                visitor.up()
                assert visitor.write(packed(b"HSET", A, b"f", b"v")) == [1]


def role(server: Store) -> str:
    """What a server is; "" while Sentinel ends its connections."""
    with suppress(LabFailureError):
        return server.cli("role").splitlines()[0]
    return ""


def has_replica(sentinel: Store) -> bool:
    """Whether it knows of one."""
    return "num-slaves\n1\n" in sentinel.cli("sentinel", "master", "nameward")


@contextmanager
def answering(*answers: bytes) -> Iterator[str]:
    """Something that is no Redis: it answers each connection with these octets, again and again."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.1)
        is_over = threading.Event()

        def serve() -> None:
            while not is_over.is_set():
                try:
                    came, _ = listener.accept()
                except TimeoutError:
                    continue
                with came:
                    came.settimeout(2)
                    try:
                        came.recv(65536)
                        while not is_over.is_set():
                            for answer in answers:
                                came.sendall(answer)
                    except OSError:
                        continue

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"redis://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            is_over.set()
            thread.join(10)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "protocol"),
        (b"*4294967294\r\n", "protocol"),
        (b"$4000000000\r\n" + b"x" * 65536, "answer"),
        (b"*1\r\n" * 64, "protocol"),
        (b"%1\r\n*0\r\n:1\r\n", "protocol"),
        (b",no number\r\n", "protocol"),
        (b"*2\r\n$1\r\nx\r\n$1\r\ny\r\n", "protocol"),
        (b":1\r\n", "protocol"),
        (b"-NOPERM \x1b[31mred\xe2\x80\xae\r\n", "permission"),
        (b"-" + b"ERR x" * 100 + b"\r\n", "answer"),
        (b"", "timeout"),
    ],
)
def test_what_is_no_redis_is_said_and_fills_no_memory(
    credentials: Credentials, answer: bytes, reason: str
) -> None:
    """Whatever octets come, the door is lost with a short, printable sentence, and no thread breaks."""
    with answering(answer) as url, Visitor(url, credentials) as visitor:
        said = visitor.lost(reason)
        assert said.isprintable()
        assert len(said) < 400
