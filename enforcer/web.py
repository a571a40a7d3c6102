"""Metrics and health over HTTP: ``/metrics``, ``/livez``, ``/readyz``.

Owns the three resources, who may read the metrics, and the listening socket. Reads, never changes. TLS
(``enforcer.certificate``) is imported only where there is a certificate.
``/livez`` answers as long as the loop turns; ``/readyz`` is 200 exactly while the node enforces, else 503
with what is missing. Invariant: with a token file the metrics are given to nobody who does not send what
stands in it, and to nobody at all while it cannot be read.
"""

from __future__ import annotations

import contextlib
import hmac
import importlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IAddress, IDelayedCall, IListeningPort, IProtocolFactory
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.web.resource import Resource
from twisted.web.server import Request, Site

from enforcer.records import Records
from policy.runtime.clock import MonotonicReactor
from policy.runtime.kinds import parse_listen
from policy.runtime.sections import MetricsSettings, Settings

MAX_CONNECTIONS = 64
"""Of all clients together: the nodes' network reaches this port, and descriptors are few."""
IDLE_S = 20.0
RETRY_S = 1.0
"""Until it is listened again, while the agent that this one takes over from still has the address."""
_MAX_TOKEN_BYTES = 4096
_PLAIN = "text/plain; charset=utf-8"
_CERTIFICATE = "enforcer.certificate"


def preload(settings: Settings) -> None:
    """Import TLS, if the pages are served over it; before a fork."""
    if settings.metrics.cert_file:
        importlib.import_module(_CERTIFICATE)


class Reply(NamedTuple):
    """Status, content type, text."""

    code: int
    kind: str
    text: bytes


class _Page(Resource):
    """One page, made when it is asked for; with a ``token`` for those alone who send it."""

    isLeaf = True  # noqa: N815 - Twisted's name

    def __init__(self, content: Callable[[], Reply], token: Callable[[], bytes | None] | None = None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._content = content
        self._token = token

    def render_GET(self, request: Request) -> bytes:  # noqa: N802 - Twisted's name
        """Answer GET (and, by Twisted, HEAD)."""
        reply = self._refusal(request) or self._content()
        if reply.code == 401:
            request.setHeader(b"www-authenticate", b"Bearer")
        request.setHeader(b"content-type", reply.kind.encode())
        request.setResponseCode(reply.code)
        return reply.text

    def _refusal(self, request: Request) -> Reply | None:
        if self._token is None:
            return None
        token = self._token()
        if token is None:
            return Reply(503, _PLAIN, b"metrics.tokenFile cannot be read\n")
        scheme, _, sent = (request.getHeader(b"authorization") or b"").partition(b" ")
        if scheme.lower() == b"bearer" and hmac.compare_digest(sent.strip(), token):
            return None
        return Reply(401, _PLAIN, b"send the token of metrics.tokenFile as bearer token\n")


def _token_in(path: str) -> Callable[[], bytes | None]:
    """Read the token anew each time: a Secret's file changes under us."""

    def read() -> bytes | None:
        with contextlib.suppress(OSError), Path(path).open("rb") as file:
            return file.read(_MAX_TOKEN_BYTES).strip() or None
        return None

    return read


def site(
    registry: CollectorRegistry,
    missing: Callable[[], Sequence[str]],
    *,
    token_file: str = "",
    reactor: MonotonicReactor | None = None,
) -> Site:
    """Return the site; ``missing`` says what keeps the node from enforcing."""

    def ready() -> Reply:
        said = missing()
        return Reply(503 if said else 200, _PLAIN, ("\n".join(said) or "ok").encode() + b"\n")

    def metrics() -> Reply:
        return Reply(200, CONTENT_TYPE_LATEST, generate_latest(registry))

    root = Resource()
    root.putChild(b"metrics", _Page(metrics, _token_in(token_file) if token_file else None))
    root.putChild(b"livez", _Page(lambda: Reply(200, _PLAIN, b"ok\n")))
    root.putChild(b"readyz", _Page(ready))
    found = Site(root, timeout=IDLE_S, reactor=reactor)
    found.noisy = False
    found.displayTracebacks = False
    return found


class _Bounded(WrappingFactory):
    """Passes ``MAX_CONNECTIONS`` on at one time; what comes beyond is closed."""

    noisy = False

    def buildProtocol(self, addr: IAddress | None) -> ProtocolWrapper | None:  # type: ignore[override]
        """Twisted: None closes the connection."""
        return None if len(self.protocols) >= MAX_CONNECTIONS else super().buildProtocol(addr)


class Door:
    """Listens for who asks, from ``open`` until ``close``; tries again while the address is taken."""

    def __init__(
        self, reactor: MonotonicReactor, settings: MetricsSettings, pages: Site, records: Records
    ) -> None:
        self._reactor = reactor
        self._settings = settings
        self._records = records
        self._told = ""
        self._pages = _Bounded(pages)  # type: ignore[no-untyped-call]
        self._port: IListeningPort | None = None
        self._again: IDelayedCall | None = None

    def open(self) -> None:
        """Listen. What keeps it from that is told once, and tried again."""
        self._again = None
        address, number = parse_listen(self._settings.listen)
        pages: IProtocolFactory = self._pages
        try:
            if self._settings.cert_file:
                over_tls = importlib.import_module(_CERTIFICATE).over_tls
                pages = over_tls(pages, self._settings.cert_file, self._settings.key_file, self._reactor)
            self._port = self._reactor.listenTCP(number, pages, interface=address)
        except CannotListenError as error:
            self._wait(f"{self._settings.listen}: {error.socketError}; nobody can read the metrics there")
        except OSError as error:
            self._wait(f"metrics.certFile or metrics.keyFile cannot be used ({error!r:.200})")

    @property
    def number(self) -> int | None:
        """The port that is listened on; None while there is none."""
        return None if self._port is None else int(self._port.getHost().port)  # type: ignore[attr-defined]

    def close(self) -> None:
        """Listen no more."""
        if self._again is not None:
            self._again.cancel()
        if self._port is not None:
            self._port.stopListening()

    def _wait(self, reason: str) -> None:
        if reason != self._told:
            self._records.tell("metrics.closed", "warning", reason=reason)
        self._told = reason
        self._again = self._reactor.callLater(RETRY_S, self.open)
