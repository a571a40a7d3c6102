"""One connection to one Redis server: the only place that imports its client.

Owns connecting (TCP, Unix socket, TLS), authentication, sending packed commands and reading replies.
Never retries, never reconnects, has no thread. Invariants: every wait ends after its time-out; a reply
beyond its bound ends the connection before it fills memory; what fails is ``Lost``, with a sentence.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import time
from typing import Any, NamedTuple, TypeAlias

import hiredis
from redis.connection import Connection, SSLConnection, UnixDomainSocketConnection
from redis.crc import key_slot
from redis.exceptions import InvalidResponse, RedisError, ResponseError
from redis.exceptions import TimeoutError as ClientTimeoutError

from enforcer.sharing.records.resp import packed
from enforcer.sharing.redis.credentials import TlsFiles
from enforcer.sharing.redis.troubles import Lost, RedisSaid, said_trouble
from policy.runtime.redis_url import Address

Reply: TypeAlias = bytes | int | RedisSaid | list["Reply"] | None
"""What Redis answers (RESP 2): bulk and status as bytes, errors as values."""

TIMEOUT_S = 1.0
"""For connecting, for each step of a handshake, for a batch to be taken and for each reply."""
LARGEST_REPLY_BYTES = 4 << 20
_CHUNK_BYTES = 1 << 16
_MORE: Any = object()


class Login(NamedTuple):
    """Who we are to a server."""

    user: str = ""
    password: str = ""
    db: int = 0
    tls: TlsFiles | None = None

    def __repr__(self) -> str:
        """Show no password, wherever this ends up."""
        return f"Login(user={self.user!r}, db={self.db}, tls={self.tls!r})"


def slot_of(key: bytes) -> int:
    """Return a key's hash slot in a Redis Cluster."""
    return int(key_slot(key))


class _Replies:
    """What the client calls a parser: hiredis with a bound and a deadline for each reply."""

    def __init__(self, socket_read_size: int) -> None:
        self._buffer = bytearray(socket_read_size)
        self._sock: socket.socket | None = None
        self._reader: hiredis.Reader | None = None
        self.has_heard = False

    def on_connect(self, connection: Any) -> None:
        """The client: a socket is connected."""
        self._sock = connection._get_socket()
        self._reader = hiredis.Reader(
            protocolError=InvalidResponse,
            replyError=RedisSaid,  # type: ignore[arg-type] # any callable will do
            notEnoughData=_MORE,
        )

    def on_disconnect(self) -> None:
        """The client: the socket is about to be closed."""
        self._sock = self._reader = None

    def read_response(self, **_kinds: object) -> Reply:
        """The client's handshake: one reply; an error is raised as the client expects it."""
        [reply] = self.take(1, LARGEST_REPLY_BYTES, TIMEOUT_S)
        if isinstance(reply, RedisSaid):
            raise ResponseError(reply)
        return reply

    def take(self, count: int, limit_bytes: int, timeout_s: float) -> list[Reply]:
        """Return the next ``count`` replies, errors included; each has its bound and its time.

        Raises OSError or the client's InvalidResponse, Lost beyond ``limit_bytes``.
        """
        reader, found = self._reader, []
        if reader is None:
            raise ConnectionResetError("closed")
        try:
            gets = reader.gets
            for _ in range(count):
                reply = gets()
                if reply is _MORE:
                    reply = self._waited_for(reader, limit_bytes, timeout_s)
                found.append(reply)
        except (TypeError, ValueError, MemoryError) as error:
            raise InvalidResponse(type(error).__name__) from None  # what no Redis sends
        return found

    def _waited_for(self, reader: hiredis.Reader, limit_bytes: int, timeout_s: float) -> Any:
        """Read until there is a whole reply."""
        sock, reply = self._sock, _MORE
        if sock is None:
            raise ConnectionResetError("closed")
        deadline_at = time.monotonic() + timeout_s
        came_bytes = 0
        while reply is _MORE:
            sock.settimeout(max(deadline_at - time.monotonic(), 0.001))
            count = sock.recv_into(self._buffer)
            if count == 0:
                raise ConnectionResetError("closed")
            came_bytes += count
            if came_bytes > limit_bytes + _CHUNK_BYTES:
                raise TooLarge(limit_bytes)
            reader.feed(self._buffer, 0, count)  # type: ignore[arg-type] # any buffer will do
            reply = reader.gets()
        self.has_heard = True
        return reply


class TooLarge(Lost):
    """A reply is beyond its bound: somebody else wrote it."""

    def __init__(self, limit_bytes: int) -> None:
        super().__init__(
            f"Redis sent a reply beyond {limit_bytes} octets, which Nameward never wrote: "
            "look who else writes keys of nameward:*",
            "answer",
        )


class _Tls(SSLConnection):
    """TLS that trusts ``caFile`` alone where there is one."""

    is_greeting = False
    """The handshake has begun, and not ended."""

    def _wrap_socket_with_ssl(self, sock: socket.socket) -> ssl.SSLSocket:
        context = ssl.create_default_context(cafile=self.ca_certs or None)
        if self.certfile:
            context.load_cert_chain(self.certfile, self.keyfile or None)
        self.is_greeting = True
        greeted = context.wrap_socket(sock, server_hostname=self.host)
        self.is_greeting = False
        return greeted


class _Unix(UnixDomainSocketConnection):
    """A Unix socket. The client asks host and port of every connection that fails."""

    host = "unix"
    port = 0


class Line:
    """One connection. One thread uses it; ``cut`` is for any."""

    def __init__(self, address: Address, login: Login) -> None:
        self.address = address
        self._login = login
        self._connection: Any = _connection(address, login)
        self._replies: _Replies = self._connection._parser

    @property
    def is_open(self) -> bool:
        """Say whether it is connected, as far as is known."""
        return bool(self._connection.is_connected)

    def open(self) -> None:
        """Connect and authenticate. Raises ``Lost``."""
        try:
            self._connection.connect()
        except ResponseError as error:
            self.close()
            text = str(error)
            trouble = said_trouble(text, str(self.address))
            if trouble is None:
                raise self._refused(
                    f"refuses the connection ({text:.160})", "look at its log", "answer"
                ) from None
            raise Lost(trouble, trouble.reason) from None
        except (RedisError, OSError) as error:
            self.close()
            raise self._lost(error) from None
        except ValueError:
            self.close()
            raise self._refused(
                "has a name that is none", "correct the host in state.redis.url", "name"
            ) from None

    def send(self, packed_commands: bytes) -> None:
        """Send what is packed, whole. Raises ``Lost``."""
        try:
            self._sock().settimeout(TIMEOUT_S)
            self._sock().sendall(packed_commands)
        except OSError as error:
            lost = self._lost(self._why_refused(error))
            self.close()
            raise lost from None

    def replies(
        self, count: int, limit_bytes: int = LARGEST_REPLY_BYTES, timeout_s: float = TIMEOUT_S
    ) -> list[Reply]:
        """Return the next ``count`` replies, errors as values. Raises ``Lost``."""
        try:
            return self._replies.take(count, limit_bytes, timeout_s)
        except Lost:
            self.close()
            raise
        except (RedisError, OSError) as error:
            self.close()
            raise self._lost(error) from None

    def ask(self, *command: bytes) -> Reply:
        """Send one command and return its reply. Raises ``Lost``."""
        self.send(packed(*command))
        return self.replies(1)[0]

    def cut(self) -> None:
        """End it from any thread: whoever waits on it is woken, and finds it lost."""
        sock = self._connection._get_socket()
        if sock is not None:
            with contextlib.suppress(OSError):
                socket.socket.shutdown(sock, socket.SHUT_RDWR)

    def close(self) -> None:
        """Let go of the socket; only the thread that uses it may."""
        self._connection.disconnect()

    def _why_refused(self, error: OSError) -> OSError:
        """Return what a server that closed within TLS said before: with TLS 1.3 that is read, not written."""
        if self._login.tls is not None and not self._replies.has_heard:
            try:
                self._sock().recv(1)
            except OSError as said:
                return said
        return error

    def _sock(self) -> socket.socket:
        sock: socket.socket | None = self._connection._get_socket()
        if sock is None:
            raise ConnectionResetError("closed")
        return sock

    def _refused(self, what: str, fix: str, reason: str) -> Lost:
        return Lost(f"Redis at {self.address} {what}: {fix}", reason)

    def _lost(self, error: BaseException) -> Lost:
        """Return the sentence for what the client or the kernel raised."""
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, OSError) and cause.__context__ is not None:
            cause = cause.__context__
        if getattr(self._connection, "is_greeting", False) and isinstance(cause, TimeoutError):
            return self._refused(
                "gave no answer in TLS", "is it frozen, or no TLS port (redis://)?", "timeout"
            )
        if isinstance(error, ClientTimeoutError) or isinstance(cause, TimeoutError | BlockingIOError):
            return self._refused(
                f"gave no answer for {TIMEOUT_S:g} s", "is it frozen, or the way cut?", "timeout"
            )
        if isinstance(cause, ssl.SSLError):
            if isinstance(cause, ssl.SSLEOFError) and self._replies.has_heard:
                return self._closed()
            return self._refused(*_tls_words(cause))
        if isinstance(cause, socket.gaierror):
            return self._refused("has no address", "correct the host in state.redis.url, or its DNS", "name")
        if isinstance(cause, FileNotFoundError) and self._login.tls is not None and not self.address.path:
            return Lost("caFile, certFile or keyFile of state.redis is not there: correct the path", "tls")
        if isinstance(cause, ConnectionRefusedError | FileNotFoundError):
            return self._refused("is not running there", "start it, or correct state.redis.url", "refused")
        if isinstance(cause, PermissionError) and self.address.path:
            return self._refused(
                "may not be opened", "let this service write to it (SupplementaryGroups=)", "permission"
            )
        if isinstance(error, InvalidResponse):
            return self._refused(
                "does not speak Redis's protocol", "is it TLS (rediss://), or no Redis?", "protocol"
            )
        if isinstance(cause, OSError) and not isinstance(cause, ConnectionResetError | BrokenPipeError):
            return self._refused(
                f"cannot be reached ({cause.strerror})", "look at the way to it", "unreachable"
            )
        return self._closed()

    def _closed(self) -> Lost:
        if self._replies.has_heard:
            return self._refused("closed the connection", "did it end? its log says why", "closed")
        return self._refused(
            "closed the connection before it said anything",
            "is it its TLS port (rediss://)? its log says why",
            "closed",
        )


def _tls_words(error: ssl.SSLError) -> tuple[str, str, str]:
    text = f"{getattr(error, 'verify_message', '')} {error.reason or ''} {error}".lower()
    for sign, what, fix in _TLS:
        if sign in text:
            return what, fix, "tls"
    return (
        f"fails in TLS ({(error.reason or 'no reason given')[:80]})",
        "look at both ends' certificates",
        "tls",
    )


_TLS = (
    ("alert certificate expired", "says that our certificate has expired", "renew certFile"),
    ("alert unknown ca", "does not trust our certificate", "have certFile signed by the CA it knows"),
    ("alert certificate required", "wants a certificate of ours", "set certFile and keyFile"),
    (
        "alert handshake failure",
        "refuses the handshake",
        "set certFile and keyFile if it wants a certificate",
    ),
    ("alert", "refuses our certificate", "have certFile signed by the CA it knows"),
    ("certificate has expired", "has a certificate that has expired", "renew it on the server"),
    ("not yet valid", "has a certificate that is not valid yet", "correct a clock, or renew it"),
    ("mismatch", "has a certificate for another name", "write the name it was made for in the URL"),
    ("not valid for", "has a certificate for another name", "write the name it was made for in the URL"),
    ("self-signed", "has a certificate of an unknown CA", "name its CA's certificate as caFile"),
    ("unable to get", "has a certificate of an unknown CA", "name its CA's certificate as caFile"),
    ("certificate verify failed", "has a certificate that is not trusted", "name its CA's as caFile"),
    ("wrong_version_number", "does not speak TLS", "write redis:// without s, or its TLS port"),
    ("eof", "closed the connection within TLS", "is it the TLS port? its log says why"),
    ("key_values_mismatch", "was not asked: certFile and keyFile do not belong together", "correct them"),
    ("no_certificate", "was not asked: caFile or certFile is no certificate in PEM", "correct them"),
    ("pem", "was not asked: caFile, certFile or keyFile is no PEM", "correct them"),
)


def _connection(address: Address, login: Login) -> Connection | UnixDomainSocketConnection:
    kinds: dict[str, Any] = {
        "username": login.user or None,
        "password": login.password or None,
        "db": login.db,
        "socket_timeout": TIMEOUT_S,
        "socket_connect_timeout": TIMEOUT_S,
        "socket_read_size": _CHUNK_BYTES,
        "parser_class": _Replies,
        "protocol": 2,
        "driver_info": None,
    }
    if address.path:
        return _Unix(path=address.path, **kinds)
    kinds |= {"host": address.host, "port": address.port}
    if login.tls is None:
        return Connection(**kinds)
    files = login.tls
    return _Tls(ssl_ca_certs=files.ca_file, ssl_certfile=files.cert_file, ssl_keyfile=files.key_file, **kinds)
