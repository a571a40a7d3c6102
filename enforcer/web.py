"""Metrics and health over HTTP: ``/metrics``, ``/livez``, ``/readyz``.

Owns the three resources. Reads, never changes. ``/livez`` answers as long as the loop turns;
``/readyz`` is 200 exactly while the node enforces, else 503 with what is missing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from twisted.web.resource import Resource
from twisted.web.server import Request, Site


class _Page(Resource):
    """One page: status, content type and text, made when it is asked for."""

    isLeaf = True  # noqa: N815 - Twisted's name

    def __init__(self, content: Callable[[], tuple[int, str, bytes]]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._content = content

    def render_GET(self, request: Request) -> bytes:  # noqa: N802 - Twisted's name
        """Answer GET (and, by Twisted, HEAD)."""
        code, kind, text = self._content()
        request.setHeader(b"content-type", kind.encode())
        request.setResponseCode(code)
        return text


_PLAIN = "text/plain; charset=utf-8"


def site(registry: CollectorRegistry, missing: Callable[[], Sequence[str]]) -> Site:
    """Return the site; ``missing`` says what keeps the node from enforcing."""

    def ready() -> tuple[int, str, bytes]:
        said = missing()
        return (503 if said else 200), _PLAIN, ("\n".join(said) or "ok").encode() + b"\n"

    root = Resource()
    root.putChild(b"metrics", _Page(lambda: (200, CONTENT_TYPE_LATEST, generate_latest(registry))))
    root.putChild(b"livez", _Page(lambda: (200, _PLAIN, b"ok\n")))
    root.putChild(b"readyz", _Page(ready))
    found = Site(root)
    found.noisy = False
    found.displayTracebacks = False
    return found
