"""A storage of Obot's for tests: an API server of its own kind, with all of its habits.

JSON only; an empty list is null; no bookmarks; versions are numbers of rows, so that a compaction makes
them go down; watches end by themselves; whoever has no good token is anonymous, and refused with 403; the
certificate is its own and for localhost; everything but reading its policies is refused.
"""

from __future__ import annotations

import json
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from enforcer.demo.certificates import Certificates

Json = dict[str, Any]
GROUP = "/apis/obot.obot.ai/v1"
POLICIES = f"{GROUP}/namespaces/default/mcpnetworkpolicys"
_uids = count(1)


class Refusal(Exception):
    """A status that is no success."""

    def __init__(self, code: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status = {
            "kind": "Status",
            "apiVersion": "v1",
            "status": "Failure",
            "code": code,
            "reason": reason,
            "message": message,
        }


class Row:
    """One row of the table: an object as it was at one version, or its end."""

    def __init__(self, version: int, item: Json, *, created: bool, deleted: bool) -> None:
        self.version = version
        self.item = item
        self.created = created
        self.deleted = deleted

    @property
    def name(self) -> str:
        """The object's."""
        return str(self.item["metadata"]["name"])

    def event(self) -> Json:
        """As a watch tells it."""
        kind = "DELETED" if self.deleted else "ADDED" if self.created else "MODIFIED"
        return {"type": kind, "object": self.item}


class Storage:
    """The table, and the server in front of it; ``url`` stays the same from start to start."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._changed = threading.Condition()
        self._rows: list[Row] = []
        self._compacted_at = 0
        self._epoch = 0
        self._server: ThreadingHTTPServer | None = None
        self._port = 0
        self.tokens = {"osa1-1-first"}
        self.watch_s = 45.0
        """A watch ends after so long at the latest, whatever was asked for."""
        self.poll_s = 0.0
        """Changes are found by looking so often: as where another replica of Obot's wrote them."""
        self.is_frozen = False
        """Watches stay open and say nothing."""
        self.lists = self.watches = 0
        self.asked: list[tuple[str, dict[str, str]]] = []
        """Path and query of every request."""
        self.refused: list[int] = []
        """Status of every request that was not answered with 200."""

    # --- life ------------------------------------------------------------------------------------

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"https://127.0.0.1:{self._port}"

    @property
    def fingerprint(self) -> str:
        """SHA-256 of its certificate, in hex."""
        import hashlib

        pem = (self._folder / "server.pem").read_text()
        return hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem)).hexdigest()

    def start(self) -> Storage:
        """Listen, with a certificate made now."""
        Certificates(self._folder, ("localhost",))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self._folder / "server.pem", self._folder / "server.key")
        self._server = _Server(("127.0.0.1", self._port), self, context)
        self._port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.05,), name="storage", daemon=True).start()
        return self

    def stop(self) -> None:
        """Listen no more; every connection ends."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server.cut()
            self._server = None
        self.close_watches()

    def close_watches(self) -> None:
        """End every watch."""
        with self._changed:
            self._epoch += 1
            self._changed.notify_all()

    # --- the table -------------------------------------------------------------------------------

    def put(self, name: str, **spec: Any) -> Json:
        """Create an MCPNetworkPolicy, or give it another spec."""
        with self._changed:
            before = self._latest().get(name)
            metadata = {"name": name, "namespace": "default", "generation": 1}
            uid = f"00000000-0000-4000-8000-{next(_uids):012d}"
            metadata["uid"] = before.item["metadata"]["uid"] if before else uid
            item = {
                "apiVersion": "obot.obot.ai/v1",
                "kind": "MCPNetworkPolicy",
                "metadata": metadata,
                "spec": spec,
                "status": {},
            }
            self._write(item, created=before is None, deleted=False)
            return item

    def server(self, name: str, *domains: str, deny: bool = False) -> Json:
        """As Obot writes one for its server ``ms1NAME``; the policy is ``mnp1NAME``."""
        spec: Json = {"mcpServerName": f"ms1{name}", "podSelector": {"app": f"ms1{name}"}}
        if domains:
            spec["egressDomains"] = list(domains)
        if deny:
            spec["denyAllEgress"] = True
        return self.put(f"mnp1{name}", **spec)

    def remove(self, name: str) -> None:
        """Delete one."""
        with self._changed:
            self._write(self._latest()[name].item, created=False, deleted=True)

    def compact(self) -> None:
        """Forget what is superseded and deleted: the highest version may go down by it."""
        with self._changed:
            latest = self._latest()
            self._compacted_at = self._highest()
            self._rows = [row for row in self._rows if latest.get(row.name) is row]

    def reset(self) -> None:
        """Be a new database."""
        with self._changed:
            self._rows, self._compacted_at = [], 0

    def _write(self, item: Json, *, created: bool, deleted: bool) -> None:
        version = self._highest() + 1
        item = {**item, "metadata": {**item["metadata"], "resourceVersion": str(version)}}
        self._rows.append(Row(version, item, created=created, deleted=deleted))
        self._changed.notify_all()

    def _highest(self) -> int:
        return max((row.version for row in self._rows), default=0)

    def _latest(self, version: int | None = None) -> dict[str, Row]:
        found: dict[str, Row] = {}
        for row in self._rows:
            if version is None or row.version <= version:
                found[row.name] = row
        return {name: row for name, row in found.items() if not row.deleted}

    # --- what is asked ---------------------------------------------------------------------------

    def listed(self, query: dict[str, str]) -> Json:
        """A LIST, whole or a page of it."""
        self.lists += 1
        if "resourceVersionMatch" in query:
            raise Refusal(400, "BadRequest", "resource version match is not supported")
        with self._changed:
            highest = self._highest()
            version = int(query.get("resourceVersion") or 0) or highest
            if version < self._compacted_at and version != highest:
                raise self._too_old(version)
            rows = [row for _, row in sorted(self._latest(version).items())]
        first = int(query.get("continue") or 0)
        last = first + (int(query.get("limit") or 0) or len(rows) or 1)
        metadata = {"resourceVersion": str(version)}
        if last < len(rows):
            metadata["continue"] = str(last)
        items = [{key: row.item[key] for key in ("metadata", "spec", "status")} for row in rows[first:last]]
        return {
            "kind": "MCPNetworkPolicyList",
            "apiVersion": "obot.obot.ai/v1",
            "metadata": metadata,
            "items": items or None,
        }

    def events(self, query: dict[str, str]) -> Iterator[Json | None]:
        """A watch; None where nothing has happened yet. Never a bookmark, whoever asks for one."""
        self.watches += 1
        ends_at = time.monotonic() + min(float(query.get("timeoutSeconds") or 1800), self.watch_s)
        asked = query.get("resourceVersion") or "0"
        with self._changed:
            epoch, version = self._epoch, int(asked)
            first = []
            is_too_old = asked != "0" and version < self._compacted_at and version < self._highest()
            if is_too_old:
                first.append({"type": "ERROR", "object": self._too_old(version).status})
            elif asked == "0":
                first += [{"type": "ADDED", "object": row.item} for row in self._latest().values()]
                version = self._highest()
        yield None
        yield from first
        if is_too_old:
            return
        while time.monotonic() < ends_at and epoch == self._epoch:
            with self._changed:
                rows = [row for row in self._rows if row.version > version and not self.is_frozen]
                if not rows:
                    self._changed.wait(0.05)
                    continue
            if self.poll_s:
                time.sleep(self.poll_s)
            for row in rows:
                version = row.version
                yield row.event()

    def _too_old(self, version: int) -> Refusal:
        message = f"resource version {version} before current compaction {self._compacted_at}"
        return Refusal(410, "Expired", message)


class _Server(ThreadingHTTPServer):
    """TLS is spoken in each connection's thread: a client that says nothing stops nobody."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, address: tuple[str, int], storage: Storage, context: ssl.SSLContext) -> None:
        super().__init__(address, _Asked)
        self.storage = storage
        self.context = context
        self._open: set[ssl.SSLSocket] = set()

    def cut(self) -> None:
        """End every connection."""
        for connection in list(self._open):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def finish_request(self, request: Any, client_address: Any) -> None:
        request.settimeout(60)
        with suppress(OSError):
            secured = self.context.wrap_socket(request, server_side=True)
            self._open.add(secured)
            try:
                with secured:
                    super().finish_request(secured, client_address)
            finally:
                self._open.discard(secured)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients go away in the midst of an answer: that is no news."""


class _Asked(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    server: _Server

    def do_GET(self) -> None:
        """LIST, WATCH or a refusal."""
        storage = self.server.storage
        parts = urlsplit(self.path)
        query = {key: values[-1] for key, values in parse_qs(parts.query).items()}
        storage.asked.append((parts.path, query))
        try:
            self._check(parts.path)
            if query.get("watch") in {"true", "1"}:
                self._stream(storage.events(query))
            else:
                self._answer(200, storage.listed(query))
        except Refusal as refusal:
            self._answer(refusal.status["code"], refusal.status)
        except (OSError, ssl.SSLError):
            self.close_connection = True

    def _check(self, path: str) -> None:
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        who = "system:serviceaccount:NetworkPolicyProvider"
        if token not in self.server.storage.tokens:
            who = "system:anonymous"
        if who == "system:anonymous" or path != POLICIES:
            message = f'mcpnetworkpolicys.obot.obot.ai is forbidden: User "{who}" cannot get path "{path}"'
            raise Refusal(403, "Forbidden", message)
        if "application/json" not in (self.headers.get("Accept") or "application/json"):
            raise Refusal(406, "NotAcceptable", "only application/json is spoken here")

    def _refuse(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        self.rfile.read(length)
        refusal = Refusal(403, "Forbidden", "the provider may only read")
        self._answer(403, refusal.status)

    def do_POST(self) -> None:
        """Refused, as every way to write is."""
        self._refuse()

    do_PUT = do_PATCH = do_DELETE = do_POST  # noqa: N815

    def _answer(self, code: int, body: Json) -> None:
        if code != 200:
            self.server.storage.refused.append(code)
        content = json.dumps(body).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _stream(self, events: Iterator[Json | None]) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.wfile.flush()
        for event in events:
            if event is not None:
                line = json.dumps(event).encode() + b"\n"
                self.wfile.write(f"{len(line):x}\r\n".encode() + line + b"\r\n")
        self.wfile.write(b"0\r\n\r\n")

    def log_message(self, *_: Any) -> None:
        """Say nothing."""
