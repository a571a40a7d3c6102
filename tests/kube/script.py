"""An API server by script: the semantics of list and watch, and every way to fail at them."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

from enforcer.kube.access import Access

Json = dict[str, Any]


class Asked(NamedTuple):
    """One request, as it came."""

    method: str
    path: str
    query: dict[str, str]
    token: str

    @property
    def is_watch(self) -> bool:
        """Say whether it was a watch."""
        return self.query.get("watch") == "true"


Fault = Callable[["Exchange"], bool]
"""Answers a request its own way; False: it does not want to."""


class ScriptedApi:
    """Collections by path. ``faults`` are asked first, in order; each may answer instead."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.version = 100
        self.oldest = 0
        """Watches from versions before this one are 410 Gone."""
        self.collections: dict[str, dict[str, Json]] = {}
        self.events: list[tuple[int, str, str, Json]] = []
        self.asked: list[Asked] = []
        self.faults: list[Fault] = []
        self.tokens: set[str] = set()
        """Accepted ones; empty: any."""
        self.cut = 0
        """Grows with every call of ``drop_watches``."""
        self.is_frozen = False
        self.page_items = 0
        self.is_over = False
        self._server: ThreadingHTTPServer | None = None
        self.port = 0

    # --- life ----------------------------------------------------------------------------------

    def start(self) -> ScriptedApi:
        """Listen, on the port of before if there was one."""
        self.is_over = False
        self._server = _Server(("127.0.0.1", self.port), type("Bound", (_Exchange,), {"api": self}))
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def stop(self) -> None:
        """Be gone: connections are refused."""
        with self.changed:
            self.is_over = True
            self.changed.notify_all()
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    @property
    def access(self) -> Access:
        """How it is reached."""
        return Access(server=f"http://127.0.0.1:{self.port}")

    # --- what it holds ---------------------------------------------------------------------------

    def serve(self, *paths: str) -> None:
        """Have these collections, empty."""
        with self.changed:
            for path in paths:
                self.collections.setdefault(path, {})

    def remove(self, path: str) -> None:
        """Serve a collection no more, as when its CustomResourceDefinition goes."""
        with self.changed:
            for key in list(self.collections.get(path, {})):
                self._delete(path, key)
            del self.collections[path]
            self.cut += 1
            self.changed.notify_all()

    def put(self, path: str, fields: Json) -> int:
        """Create or change an object; returns its version."""
        with self.changed:
            objects = self.collections[path]
            key = _key(fields)
            kind = "MODIFIED" if key in objects else "ADDED"
            self.version += 1
            metadata = fields["metadata"] | {"resourceVersion": str(self.version)}
            objects[key] = fields | {"metadata": metadata}
            self.events.append((self.version, path, kind, objects[key]))
            self.changed.notify_all()
            return self.version

    def delete(self, path: str, key: str) -> None:
        """Delete an object (``namespace/name``)."""
        with self.changed:
            self._delete(path, key)
            self.changed.notify_all()

    def _delete(self, path: str, key: str) -> None:
        self.version += 1
        fields = self.collections[path].pop(key)
        fields = fields | {"metadata": fields["metadata"] | {"resourceVersion": str(self.version)}}
        self.events.append((self.version, path, "DELETED", fields))

    def lose_quietly(self, path: str, key: str) -> None:
        """Delete an object without an event: what nobody watched."""
        with self.changed:
            self.version += 1
            del self.collections[path][key]

    def forget_history(self) -> None:
        """Compact: every version known until now is too old to watch from."""
        with self.changed:
            self.version += 1
            self.oldest = self.version
            self.cut += 1
            self.changed.notify_all()

    def drop_watches(self) -> None:
        """Break the connections of all watches."""
        with self.changed:
            self.cut += 1
            self.changed.notify_all()

    def freeze(self) -> None:
        """Say nothing more, on any connection, until ``thaw``."""
        with self.changed:
            self.is_frozen = True

    def thaw(self) -> None:
        """Go on."""
        with self.changed:
            self.is_frozen = False
            self.changed.notify_all()

    # --- what was asked ----------------------------------------------------------------------------

    def lists(self, path: str = "") -> list[Asked]:
        """The lists that were asked for."""
        return [each for each in list(self.asked) if not each.is_watch and path in each.path]

    def watches(self, path: str = "") -> list[Asked]:
        """The watches that were begun."""
        return [each for each in list(self.asked) if each.is_watch and path in each.path]


def _key(fields: Json) -> str:
    metadata = fields["metadata"]
    return f"{metadata['namespace']}/{metadata['name']}" if "namespace" in metadata else metadata["name"]


def eventually(
    condition: Callable[[], object], what: str | Callable[[], object] = "", deadline_s: float = 30.0
) -> None:
    """Wait until it holds; fail when it does not in time."""
    until = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < until, f"never: {what() if callable(what) else what}"
        time.sleep(0.005)


def status(code: int, reason: str, message: str) -> Json:
    """A Status object."""
    return {
        "kind": "Status", "apiVersion": "v1", "status": "Failure",
        "code": code, "reason": reason, "message": message,
    }  # fmt: skip


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no error."""


class _Exchange(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    api: ScriptedApi

    def log_message(self, *_: Any) -> None:
        """Nobody reads it."""

    def do_GET(self) -> None:
        """List, watch, or get."""
        api = self.api
        parts = urlsplit(self.path)
        query = {key: values[0] for key, values in parse_qs(parts.query).items()}
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        self.asked = Asked("GET", parts.path, query, token)
        with api.changed:
            api.asked.append(self.asked)
            api.changed.wait_for(lambda: not api.is_frozen or api.is_over)
        if any(fault(self) for fault in list(api.faults)):
            return
        if api.tokens and token not in api.tokens:
            self.answer(401, status(401, "Unauthorized", "Unauthorized"))
        elif parts.path == "/version":
            self.answer(200, {"major": "1"})
        elif parts.path not in api.collections:
            self.answer(404, status(404, "NotFound", "the server could not find the requested resource"))
        elif self.asked.is_watch:
            self._watch()
        else:
            self._list()

    def answer(self, code: int, body: Json | bytes, **headers: str) -> None:
        """Send a whole answer."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(data)

    def begin(self) -> None:
        """Begin an answer in chunks."""
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

    def chunk(self, data: bytes) -> None:
        """Send a chunk; an empty one is the end."""
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self.wfile.flush()

    def _matching(self, fields: Json) -> bool:
        wanted = self.asked.query.get("fieldSelector", "").removeprefix("spec.nodeName=")
        return not wanted or fields.get("spec", {}).get("nodeName") == wanted

    def _list(self) -> None:
        api = self.api
        with api.changed:
            asked = self.asked.query.get("resourceVersion", "")
            if asked.isdecimal() and int(asked) > api.version:
                self.answer(504, status(504, "Timeout", f"Too large resource version: {asked}"))
                return
            items = [each for each in api.collections[self.asked.path].values() if self._matching(each)]
            metadata: Json = {"resourceVersion": str(api.version)}
        if api.page_items:
            at = int(self.asked.query.get("continue", "0"))
            if at + api.page_items < len(items):
                metadata["continue"] = str(at + api.page_items)
            items = items[at : at + api.page_items]
        self.answer(200, {"kind": "List", "apiVersion": "v1", "metadata": metadata, "items": items})

    def _watch(self) -> None:
        api = self.api
        with api.changed:
            since = int(self.asked.query.get("resourceVersion") or api.version)
            cut = api.cut
            if since < api.oldest:
                gone = {"type": "ERROR", "object": status(410, "Expired", "too old")}
                self.answer(200, json.dumps(gone).encode() + b"\n")
                return
        self.begin()
        until = time.monotonic() + float(self.asked.query.get("timeoutSeconds", "300"))
        for event in self._news(since, cut, until):
            self.chunk(json.dumps(event).encode() + b"\n")
        if api.cut != cut or api.is_over:
            self.close_connection = True
            return  # without the last chunk: broken
        self.chunk(b"")

    def _news(self, since: int, cut: int, until: float) -> Iterator[Json]:
        api = self.api
        known: set[str] = set()
        while True:
            with api.changed:
                news = [each for each in api.events if each[0] > since]
                is_ended = api.is_over or api.cut != cut or time.monotonic() >= until
                if is_ended and not api.is_frozen:
                    return
                if api.is_frozen or not news:
                    api.changed.wait(max(until - time.monotonic(), 0.01))
                    continue
            for version, path, kind, fields in news:
                since = version
                if path == self.asked.path and (self._matching(fields) or _key(fields) in known):
                    yield {"type": kind, "object": fields}


Exchange = _Exchange
