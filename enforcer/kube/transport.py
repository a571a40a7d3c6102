"""Connections to the API server: the one import of the ``kubernetes`` package, for its transport.

Owns TLS, keepalive, proxies (the environment's), and the reading of answers as they arrive. Never follows
a redirect, never tries again, knows no JSON. Invariant: whatever goes wrong on the wire is ``ApiLost``.
"""

from __future__ import annotations

import os
import socket
import ssl
import threading
from collections.abc import Iterator, Mapping
from typing import Final

import urllib3
from kubernetes.client import Configuration
from kubernetes.client.rest import RESTClientObject
from urllib3.connection import HTTPSConnection
from urllib3.connectionpool import HTTPSConnectionPool
from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    IncompleteRead,
    MaxRetryError,
    NewConnectionError,
    ProtocolError,
    ReadTimeoutError,
    SSLError,
)
from urllib3.util.ssl_ import create_urllib3_context

from enforcer.kube.access import Access
from enforcer.kube.answers import MAX_OBJECT_BYTES, ApiLost
from policy.manifest_findings import printable

_PIECE_BYTES: Final = 65536
_CONNECTIONS: Final = 16
"""As many are kept; more are made where more threads ask at once."""
_KEEPALIVE = [
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 15),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
    (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 30_000),
]
"""A peer that is gone without a word is noticed after 30 s, without a request."""
State = tuple[int, int, int]


def state_of(path: str) -> State:
    """Return what tells one state of a file from another; zeros where there is none."""
    try:
        status = os.stat(path)
    except OSError:
        return (0, 0, 0)
    return (status.st_ino, status.st_mtime_ns, status.st_size)


class Answer:
    """What the server answered, as far as it has arrived."""

    def __init__(self, response: urllib3.BaseHTTPResponse, server: str) -> None:
        self._response = response
        self._server = server
        self.status = response.status
        self.retry_after = response.headers.get("Retry-After")

    def pieces(self) -> Iterator[bytes]:
        """Yield what has arrived, as it arrives. Raises ``ApiLost``."""
        try:
            while piece := self._response.read1(_PIECE_BYTES):
                yield piece
        except (HTTPError, OSError, ValueError, AttributeError) as error:
            raise ApiLost(f"{self._server}: the answer broke off: {_cause(error)}") from None

    def whole(self) -> bytes:
        """Return all of an answer that is one object. Raises ``ApiLost``."""
        found = bytearray()
        for piece in self.pieces():
            found += piece
            if len(found) > MAX_OBJECT_BYTES:
                raise ApiLost("the API server sent an object larger than any can be")
        return bytes(found)

    def wait_longer(self, silence_s: float) -> None:
        """Let the rest pause for so long; the beginning had to come sooner."""
        connected = getattr(getattr(self._response, "_sock_shutdown", None), "__self__", None)
        if isinstance(connected, socket.socket):
            connected.settimeout(silence_s)

    def interrupt(self) -> None:
        """Wake whoever reads; from any thread."""
        try:
            self._response.shutdown()
        except (OSError, RuntimeError, ValueError):
            return  # it has ended by itself

    def close(self) -> None:
        """Let go of the connection; it is used again only if all of the answer was read."""
        if self._response.closed:
            self._response.release_conn()
        else:
            self._response.close()


class Transport:
    """Connections as one access says; made anew when a file of certificates or keys changes."""

    def __init__(self, access: Access) -> None:
        self._access = access
        self._lock = threading.Lock()
        self._pool: urllib3.PoolManager | None = None
        self._files: tuple[State, ...] = ()

    def send(
        self,
        method: str,
        url: str,
        body: bytes | None,
        headers: Mapping[str, str],
        *,
        connect_s: float,
        read_s: float,
    ) -> Answer:
        """Send a request and return its answer once that has begun. Raises ``ApiLost``."""
        try:
            return Answer(
                self._connections().request(
                    method,
                    url,
                    body=body,
                    headers=headers,
                    timeout=urllib3.Timeout(connect=connect_s, read=read_s),
                    preload_content=False,
                    redirect=False,
                    retries=False,
                ),
                self._access.server,
            )
        except (HTTPError, OSError, ValueError) as error:
            raise ApiLost(f"{self._access.server}: {_cause(error)}") from None

    def close(self) -> None:
        """Close the connections that are not in use."""
        with self._lock:
            if self._pool is not None:
                self._pool.clear()
                self._pool = None

    def _connections(self) -> urllib3.PoolManager:
        access = self._access
        files = tuple(state_of(path) for path in (access.ca_file, access.cert_file, access.key_file) if path)
        with self._lock:
            if self._pool is None or self._files != files:
                if self._pool is not None:
                    self._pool.clear()
                self._pool, self._files = _connections(access), files
            return self._pool


class _TrustingPool(HTTPSConnectionPool):
    """Connections to a server whose certificate is not checked, because somebody has said so."""

    def _validate_conn(self, conn: HTTPSConnection) -> None:  # type: ignore[override]
        if conn.is_closed:
            conn.connect()


def _connections(access: Access) -> urllib3.PoolManager:
    verify = not (access.insecure or access.fingerprint)
    configuration = Configuration(
        host=access.server,
        ssl_ca_cert=access.ca_file or None,
        ca_cert_data=None if access.ca_file else access.ca_data or None,
        cert_file=access.cert_file or None,
        key_file=access.key_file or None,
        verify_ssl=verify,
        assert_hostname=None if verify else False,
        tls_server_name=access.server_name or None,
        connection_pool_maxsize=_CONNECTIONS,
        socket_options=_KEEPALIVE,
    )
    pool = RESTClientObject(configuration).pool_manager
    if access.fingerprint:
        pool.connection_pool_kw["assert_fingerprint"] = access.fingerprint
    elif access.insecure:
        pool.pool_classes_by_scheme = {**pool.pool_classes_by_scheme, "https": _TrustingPool}
    if access.cert_data and not access.cert_file:
        pool.connection_pool_kw["ssl_context"] = _context_with(access, verify=verify)
    return pool


def _context_with(access: Access, *, verify: bool) -> ssl.SSLContext:
    """Return a context with a client certificate that stands in no file."""
    context = create_urllib3_context(cert_reqs=ssl.CERT_REQUIRED if verify else ssl.CERT_NONE)
    if not access.ca_file and not access.ca_data:
        context.load_default_certs()
    unnamed = os.memfd_create("client")
    try:
        os.write(unnamed, f"{access.cert_data}\n{access.key_data}".encode("ascii"))
        context.load_cert_chain(f"/proc/self/fd/{unnamed}")
    finally:
        os.close(unnamed)
    return context


def _cause(error: BaseException) -> str:
    """Return what went wrong, without addresses of objects in memory."""
    if isinstance(error, MaxRetryError) and error.reason is not None:
        return _cause(error.reason)
    if isinstance(error, SSLError):
        return f"TLS: {printable(str(error))[:200]}"
    if isinstance(error, NewConnectionError):
        inner = error.__cause__ or error.__context__
        return (inner.strerror if isinstance(inner, OSError) and inner.strerror else "") or "no connection"
    if isinstance(error, ConnectTimeoutError):
        return "no connection in time"
    if isinstance(error, ReadTimeoutError | TimeoutError):
        return "no answer in time"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, ProtocolError | IncompleteRead):
        return "the connection ended"
    return printable(str(error))[:200] or type(error).__name__
