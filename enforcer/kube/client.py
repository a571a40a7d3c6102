"""The API server's client: plain requests, JSON in and out.

Owns paths, queries, credentials and their renewal. Blocks: for threads. Never tries again by itself, but
once with a renewed token. Invariant: what comes back is JSON of the expected shape, ``ApiRefused`` or
``ApiLost``; never more than a bounded amount is read for one object.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Final, Literal, TypeVar
from urllib.parse import quote, urlencode

import msgspec

from enforcer.kube.access import Access, AccessError
from enforcer.kube.answers import (
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
from enforcer.kube.transport import Answer, Transport, state_of

__all__ = ["AccessError", "Api", "ApiLost", "ApiRefused", "Changed", "Json", "Listed", "Watching", "at"]

SILENCE_S: Final = 75.0
"""A watch that had a bookmark and is silent for so long is dead: they come every minute."""
FIRST_SILENCE: Final = 2.4
"""Until its first bookmark a watch may be silent this many times longer: of a collection without any change
since the API server's own start there are none."""
LIST_TIMEOUT_S: Final = 30.0
_PAGES: Final = 10_000
_MAX_TOKEN_BYTES: Final = 65536
_RENEWABLE = (401, 403)
_PATCHES = {
    "merge": "application/merge-patch+json",
    "json": "application/json-patch+json",
    "apply": "application/apply-patch+yaml",
}

T = TypeVar("T")
PatchKind = Literal["merge", "json", "apply"]


def at(*steps: str) -> str:
    """Return a path of the API; no step can mean more than one name."""
    return "".join(f"/{quote(step, safe='')}" for step in steps)


class Watching:
    """Events of one watch; ``close`` may be called from any thread and ends the iteration."""

    def __init__(self, answer: Answer, silence_s: float) -> None:
        self._answer = answer
        self._silence_s = silence_s
        answer.wait_longer(silence_s * FIRST_SILENCE)
        self._is_closed = False
        self._lines = lines(answer.pieces())

    def __iter__(self) -> Iterator[Changed]:
        """Yield events until the server or ``close`` ends it. Raises ``ApiRefused``, ``ApiLost``."""
        try:
            for line in self._lines:
                event = read_event(line)
                if event.kind == "BOOKMARK":
                    self._answer.wait_longer(self._silence_s)
                yield event
        except ApiLost:
            if not self._is_closed:
                raise
        finally:
            self._answer.close()

    def close(self) -> None:
        """Wake the thread that waits for the next event."""
        self._is_closed = True
        self._answer.interrupt()


class Api:
    """One API server as one identity; may be used by several threads at once."""

    def __init__(
        self,
        access: Access,
        *,
        user_agent: str = "nameward",
        timeout_s: float = 5.0,
        silence_s: float = SILENCE_S,
    ) -> None:
        """``timeout_s``: for a connection, and for the answer to begin; ``silence_s``: within a watch."""
        self.access = access
        self._timeout_s = timeout_s
        self._silence_s = silence_s
        self._headers = {"User-Agent": user_agent, "Accept": "application/json"}
        self._lock = threading.Lock()
        self._token = access.token
        self._token_file = (0, 0, 0)
        self._transport = Transport(access)
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
            answer = self._send("GET", path, None, pages, timeout_s=max(self._timeout_s, LIST_TIMEOUT_S))
            try:
                page = ListStream(answer.pieces(), keep)
                page.read()
            finally:
                answer.close()
            found += page.items
            metadata = page.fields.get("metadata")
            further = metadata.get("continue") if isinstance(metadata, dict) else None
            if not isinstance(further, str) or not further:
                return Listed(found, version_of(page.fields))
            pages.pop("resourceVersion", None)
            pages["continue"] = further
        raise ApiLost(f"the API server's list has more than {_PAGES} pages")

    def watch(self, path: str, resource_version: str, timeout_s: int, **query: str) -> Watching:
        """Begin a watch that the server ends after ``timeout_s``; too long a silence is ``ApiLost``."""
        asked = {"watch": "true", "timeoutSeconds": str(timeout_s), "allowWatchBookmarks": "true"} | query
        if resource_version:
            asked["resourceVersion"] = resource_version
        return Watching(self._send("GET", path, None, asked), self._silence_s)

    def close(self) -> None:
        """Close the connections that are not in use."""
        self._transport.close()

    def _object(
        self,
        method: str,
        path: str,
        body: object,
        query: Mapping[str, str],
        content_type: str = "application/json",
    ) -> Json:
        answer = self._send(method, path, body, query, content_type=content_type)
        try:
            return read_object(answer.whole())
        finally:
            answer.close()

    def _send(
        self,
        method: str,
        path: str,
        body: object,
        query: Mapping[str, str],
        *,
        content_type: str = "application/json",
        timeout_s: float | None = None,
    ) -> Answer:
        """Return the open answer to a request that the server accepted."""
        encoded = msgspec.json.encode(body) if body is not None else None
        url = self.access.server + path + (f"?{urlencode(query)}" if query else "")
        headers = self._headers | ({"Content-Type": content_type} if encoded is not None else {})
        token, is_renewed = self._fresh_token(), False
        while True:
            if token:
                if not (token.isascii() and token.isprintable()):  # the transport's error would hold it
                    where = self.access.token_file or "the kubeconfig"
                    raise ApiLost(f"{where} holds no token: write one line of printable characters")
                headers["Authorization"] = f"Bearer {token}"
            self.requests += 1
            answer = self._transport.send(
                method, url, encoded, headers, connect_s=self._timeout_s, read_s=timeout_s or self._timeout_s
            )
            if 200 <= answer.status < 300:
                return answer
            try:
                refused = refusal(answer.status, answer.whole(), answer.retry_after)
            finally:
                answer.close()
            if is_renewed or refused.status not in _RENEWABLE:
                raise refused
            renewed, is_renewed = self._fresh_token(again=True), True
            if renewed == token:
                raise refused
            token = renewed

    def _fresh_token(self, *, again: bool = False) -> str:
        """Return the token, read again if its file has changed, or ``again`` anyway."""
        path = self.access.token_file
        if not path:
            return self.access.token
        with self._lock:
            state = state_of(path)
            if again or state != self._token_file or not self._token:
                try:
                    with open(path, encoding="ascii") as file:
                        self._token = file.read(_MAX_TOKEN_BYTES).strip()
                except (OSError, UnicodeDecodeError):
                    return self._token  # the old one may still do
                self._token_file = state
            return self._token


def _as_it_is(item: Json) -> Json:
    return item
