"""The API server's client: plain requests in JSON, over the transport of the ``kubernetes`` package.

Owns connections, credentials and their renewal. Blocks: for threads. Never follows a redirect and never
tries again by itself, but once with renewed credentials. Invariant: what comes back is JSON of the
expected shape, ``ApiRefused`` or ``ApiLost``; never more than a bounded amount is read for one object.
"""

from __future__ import annotations

import os
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Final, Literal, NamedTuple, TypeVar
from urllib.parse import quote, urlencode

import msgspec
import urllib3
from kubernetes.client import Configuration
from kubernetes.client.rest import RESTClientObject
from urllib3.exceptions import HTTPError, MaxRetryError, SSLError

from enforcer.kube.access import Access, AccessError
from enforcer.kube.answers import (
    MAX_OBJECT_BYTES,
    ApiLost,
    ApiRefused,
    Changed,
    Json,
    Listed,
    ListStream,
    lines,
    read_event,
    read_object,
    refusal,
    version_of,
)
from policy.manifest_findings import printable

__all__ = ["AccessError", "Api", "ApiLost", "ApiRefused", "Changed", "Json", "Listed", "Watching", "at"]

SILENCE_S: Final = 100.0
"""A watch that is silent for so long is dead: bookmarks come every minute."""
_PIECE_BYTES: Final = 65536
_PAGES: Final = 10_000
_RENEWABLE = (401, 403)
_PATCHES = {
    "merge": "application/merge-patch+json",
    "json": "application/json-patch+json",
    "apply": "application/apply-patch+yaml",
}
_KEEPALIVE = [
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 15),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
    (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 30_000),
]
"""A peer that is gone without a word is noticed after 30 s, without a request."""

T = TypeVar("T")
PatchKind = Literal["merge", "json", "apply"]


def at(*steps: str) -> str:
    """Return a path of the API; no step can mean more than one name."""
    return "/" + "/".join(part for step in steps for part in [quote(step, safe="")])


class _Transport(NamedTuple):
    """Connections with one state of the files that they depend on."""

    pool: urllib3.PoolManager
    files: tuple[tuple[int, int, int], ...]


class Watching:
    """Events of one watch; ``close`` may be called from any thread and ends the iteration."""

    def __init__(self, response: urllib3.BaseHTTPResponse) -> None:
        self._response = response
        self._is_closed = False
        self._lines = lines(_pieces(response))

    def __iter__(self) -> Iterator[Changed]:
        """Yield events until the server or ``close`` ends it. Raises ``ApiRefused``, ``ApiLost``."""
        try:
            for line in self._lines:
                yield read_event(line)
        except ApiLost:
            if not self._is_closed:
                raise
        finally:
            self._response.close()

    def close(self) -> None:
        """Wake the thread that waits for the next event."""
        self._is_closed = True
        try:
            self._response.shutdown()
        except (OSError, RuntimeError, ValueError):
            return  # it has ended by itself


class Api:
    """One API server as one identity; may be used by several threads at once."""

    def __init__(self, access: Access, *, user_agent: str = "nameward", timeout_s: float = 5.0) -> None:
        self.access = access
        self._timeout_s = timeout_s
        self._headers = {"User-Agent": user_agent, "Accept": "application/json"}
        self._lock = threading.Lock()
        self._token = access.token
        self._token_file = (0, 0, 0)
        self._transport: _Transport | None = None
        self.requests = 0
        """How many were sent, watches included."""

    def get(self, path: str, **query: str) -> Json:
        """Return an object. Raises ``ApiRefused``, ``ApiLost``, as all below do."""
        return self._object("GET", path, None, query)

    def create(self, path: str, body: Json, **query: str) -> Json:
        """Create ``body`` in the collection at ``path``."""
        return self._object("POST", path, body, query)

    def replace(self, path: str, body: Json, **query: str) -> Json:
        """Replace the object at ``path``."""
        return self._object("PUT", path, body, query)

    def patch(self, path: str, body: Json | list[Json], kind: PatchKind, **query: str) -> Json:
        """Patch the object at ``path``; ``apply`` needs the query ``fieldManager``."""
        return self._object("PATCH", path, body, query, _PATCHES[kind])

    def delete(self, path: str, options: Json | None = None, **query: str) -> None:
        """Delete the object at ``path``; ``options`` are DeleteOptions (``preconditions``)."""
        self._object("DELETE", path, options, query)

    def list(self, path: str, **query: str) -> Listed[Json]:
        """Return the whole list."""
        return self.list_kept(path, _as_it_is, **query)

    def list_kept(self, path: str, keep: Callable[[Json], T], **query: str) -> Listed[T]:
        """Return the whole list, following ``continue``; of each item only what ``keep`` returns stays."""
        found: list[T] = []
        pages = dict(query)
        for _ in range(_PAGES):
            response = self._send("GET", path, None, pages, timeout_s=max(self._timeout_s, 30.0))
            try:
                page = ListStream(_pieces(response), keep)
                page.read()
            finally:
                response.close()
            found += page.items
            metadata = page.fields.get("metadata")
            further = metadata.get("continue") if isinstance(metadata, dict) else None
            if not isinstance(further, str) or not further:
                return Listed(found, version_of(page.fields))
            pages.pop("resourceVersion", None)
            pages["continue"] = further
        raise ApiLost(f"the API server's list has more than {_PAGES} pages")

    def watch(self, path: str, resource_version: str, timeout_s: int, **query: str) -> Watching:
        """Begin a watch that the server ends after ``timeout_s``; more silence than ``SILENCE_S`` is loss."""
        asked = {"watch": "true", "timeoutSeconds": str(timeout_s), "allowWatchBookmarks": "true"} | query
        if resource_version:
            asked["resourceVersion"] = resource_version
        return Watching(self._send("GET", path, None, asked, silence_s=SILENCE_S))

    def close(self) -> None:
        """Close the connections that are not in use."""
        with self._lock:
            if self._transport is not None:
                self._transport.pool.clear()
                self._transport = None

    # --- the wire --------------------------------------------------------------------------------

    def _object(
        self,
        method: str,
        path: str,
        body: object,
        query: Mapping[str, str],
        content_type: str = "application/json",
    ) -> Json:
        response = self._send(method, path, body, query, content_type=content_type)
        try:
            return read_object(_whole(response))
        finally:
            response.close()

    def _send(
        self,
        method: str,
        path: str,
        body: object,
        query: Mapping[str, str],
        *,
        content_type: str = "application/json",
        timeout_s: float | None = None,
        silence_s: float | None = None,
    ) -> urllib3.BaseHTTPResponse:
        """Return the open answer to a request that the server accepted."""
        encoded = msgspec.json.encode(body) if body is not None else None
        url = self.access.server + path + (f"?{urlencode(query)}" if query else "")
        timeout = urllib3.Timeout(connect=self._timeout_s, read=silence_s or timeout_s or self._timeout_s)
        token = self._fresh_token()
        for attempt in (1, 2):
            headers = dict(self._headers)
            if token:
                headers["Authorization"] = f"Bearer {token}"
            if encoded is not None:
                headers["Content-Type"] = content_type
            response = self._open(method, url, encoded, headers, timeout)
            if 200 <= response.status < 300:
                return response
            try:
                refused = refusal(
                    response.status, _whole(response, MAX_OBJECT_BYTES), response.headers.get("Retry-After")
                )
            finally:
                response.close()
            if attempt == 1 and refused.status in _RENEWABLE:
                renewed = self._fresh_token(again=True)
                if renewed != token:
                    token = renewed
                    continue
            raise refused
        raise AssertionError  # the second attempt returns or raises

    def _open(
        self,
        method: str,
        url: str,
        body: bytes | None,
        headers: Mapping[str, str],
        timeout: urllib3.Timeout,
    ) -> urllib3.BaseHTTPResponse:
        self.requests += 1
        try:
            return self._pool().request(
                method,
                url,
                body=body,
                headers=headers,
                timeout=timeout,
                preload_content=False,
                redirect=False,
                retries=False,
            )
        except (HTTPError, OSError, ValueError) as error:
            raise ApiLost(f"{self.access.server}: {_cause(error)}") from None

    # --- credentials -----------------------------------------------------------------------------

    def _fresh_token(self, *, again: bool = False) -> str:
        """Return the token, read again if its file has changed, or ``again`` anyway."""
        path = self.access.token_file
        if not path:
            return self.access.token
        with self._lock:
            state = _state_of(path)
            if again or state != self._token_file or not self._token:
                try:
                    with open(path, encoding="ascii") as file:
                        self._token = file.read(65536).strip()
                except (OSError, UnicodeDecodeError):
                    return self._token  # the old one may still do
                self._token_file = state
            return self._token

    def _pool(self) -> urllib3.PoolManager:
        """Return the connections; new ones once a certificate has changed."""
        files = tuple(
            _state_of(path)
            for path in (self.access.ca_file, self.access.cert_file, self.access.key_file)
            if path
        )
        with self._lock:
            if self._transport is None or self._transport.files != files:
                if self._transport is not None:
                    self._transport.pool.clear()
                self._transport = _Transport(_connections(self.access), files)
            return self._transport.pool


def _connections(access: Access) -> urllib3.PoolManager:
    configuration = Configuration(
        host=access.server,
        ssl_ca_cert=access.ca_file or None,
        ca_cert_data=None if access.ca_file else access.ca_data or None,
        cert_file=access.cert_file or None,
        key_file=access.key_file or None,
        verify_ssl=not (access.insecure or access.fingerprint),
        assert_hostname=False if access.insecure or access.fingerprint else None,
        tls_server_name=access.server_name or None,
        connection_pool_maxsize=16,
        socket_options=_KEEPALIVE,
    )
    pool = RESTClientObject(configuration).pool_manager
    if access.fingerprint:
        pool.connection_pool_kw["assert_fingerprint"] = access.fingerprint
    if access.cert_data and not access.cert_file:
        pool.connection_pool_kw["ssl_context"] = _context_with(access)
    return pool


def _context_with(access: Access) -> ssl.SSLContext:
    """Return a context with a client certificate that stands in no file."""
    verify = not (access.insecure or access.fingerprint)
    context = urllib3.util.ssl_.create_urllib3_context(
        cert_reqs=ssl.CERT_REQUIRED if verify else ssl.CERT_NONE
    )
    if not access.ca_file and not access.ca_data:
        context.load_default_certs()
    unnamed = os.memfd_create("client")
    try:
        os.write(unnamed, f"{access.cert_data}\n{access.key_data}".encode("ascii"))
        context.load_cert_chain(f"/proc/self/fd/{unnamed}")
    finally:
        os.close(unnamed)
    return context


def _state_of(path: str) -> tuple[int, int, int]:
    try:
        status = os.stat(path)
    except OSError:
        return (0, 0, 0)
    return (status.st_ino, status.st_mtime_ns, status.st_size)


def _as_it_is(item: Json) -> Json:
    return item


def _pieces(response: urllib3.BaseHTTPResponse) -> Iterator[bytes]:
    """Yield what has arrived, as it arrives. Raises ``ApiLost``."""
    try:
        while piece := response.read1(_PIECE_BYTES):
            yield piece
    except (HTTPError, OSError, ValueError, AttributeError) as error:
        raise ApiLost(f"the API server's answer broke off: {_cause(error)}") from None


def _whole(response: urllib3.BaseHTTPResponse, at_most: int = MAX_OBJECT_BYTES) -> bytes:
    found = bytearray()
    for piece in _pieces(response):
        found += piece
        if len(found) > at_most:
            raise ApiLost("the API server sent an object larger than any can be")
    return bytes(found)


def _cause(error: BaseException) -> str:
    """Return what went wrong, without addresses of objects in memory."""
    if isinstance(error, MaxRetryError) and error.reason is not None:
        return _cause(error.reason)
    if isinstance(error, SSLError):
        return f"TLS: {printable(str(error))[:200]}"
    if isinstance(error, urllib3.exceptions.ConnectTimeoutError):
        return "no connection in time"
    if isinstance(error, urllib3.exceptions.NewConnectionError):
        inner = error.__cause__ or error.__context__
        return (inner.strerror if isinstance(inner, OSError) and inner.strerror else "") or "no connection"
    if isinstance(error, urllib3.exceptions.ReadTimeoutError | TimeoutError):
        return "no answer in time"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return printable(str(error))[:200] or type(error).__name__
