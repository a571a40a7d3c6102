"""A stub resolver as C libraries have it: A and AAAA back to back from one socket, then patience.

Owns asking. Never caches, never asks a second server. The socket is connected, so an answer
counts only if it comes from the very address that was asked.
"""

from __future__ import annotations

import random
import socket
import time
from typing import NamedTuple

import dns.edns
import dns.exception
import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype

from enforcer.demo import places
from enforcer.demo.spaces import Space

TRY_S = 1.0
TRIES = 5
"""Five seconds in all: musl's patience, and glibc's before its second attempt."""


class Answer(NamedTuple):
    """One reply. ``rcode`` is TIMEOUT when none came; ``tries`` counts the sendings (1: no repeat)."""

    rcode: str
    addresses: tuple[str, ...] = ()
    targets: tuple[str, ...] = ()
    ttl_s: int = 0
    reason: str = ""
    """The text of an extended error (RFC 8914), with EDNS only."""
    truncated: bool = False
    took_s: float = 0.0
    tries: int = 1


def _read(reply: dns.message.Message, took_s: float, tries: int) -> Answer:
    addresses: list[str] = []
    targets: list[str] = []
    ttl_s = 0
    for rrset in reply.answer:
        ttl_s = rrset.ttl
        if rrset.rdtype in {dns.rdatatype.A, dns.rdatatype.AAAA}:
            addresses += [item.address for item in rrset]
        elif rrset.rdtype == dns.rdatatype.CNAME:
            targets += [item.target.to_text(omit_final_dot=True) for item in rrset]
    errors = [option for option in reply.options if isinstance(option, dns.edns.EDEOption)]
    return Answer(
        rcode=dns.rcode.to_text(reply.rcode()),
        addresses=tuple(addresses),
        targets=tuple(targets),
        ttl_s=ttl_s,
        reason="; ".join(error.text or f"code {int(error.code)}" for error in errors),
        truncated=bool(reply.flags & dns.flags.TC),
        took_s=took_s,
        tries=tries,
    )


class Stub:
    """Asks one server from one namespace."""

    def __init__(self, space: Space, server: str = places.CLUSTER_DNS) -> None:
        self._space = space
        self._server = server
        self._family = socket.AF_INET6 if ":" in server else socket.AF_INET

    def ask(self, name: str, kind: str = "A", *, tcp: bool = False, edns: bool = False) -> Answer:
        """Ask one question; over UDP a truncated answer is asked again over TCP, as libc does."""
        answer = self.ask_tcp(name, kind, edns=edns) if tcp else self.ask_udp(name, (kind,), edns=edns)[0]
        return self.ask_tcp(name, kind, edns=edns) if answer.truncated and not tcp else answer

    def pair(self, name: str) -> tuple[Answer, Answer]:
        """Ask for A and AAAA at the same moment from the same socket."""
        v4, v6 = self.ask_udp(name, ("A", "AAAA"))
        return v4, v6

    def once(self, name: str, kind: str = "A", wait_s: float = TRY_S * TRIES) -> Answer:
        """Ask one question over UDP, send it once, and take whatever reply comes."""
        return self.ask_udp(name, (kind,), tries=1, wait_s=wait_s)[0]

    def ask_udp(
        self,
        name: str,
        kinds: tuple[str, ...],
        *,
        edns: bool = False,
        tries: int = TRIES,
        wait_s: float = TRY_S,
    ) -> list[Answer]:
        """Ask for several types over UDP from one socket; what is missing is sent again after ``wait_s``.

        As in C libraries SERVFAIL is no answer yet: that question is asked again, up to ``tries`` times.
        """
        started_at = time.monotonic()
        queries = {kind: _query(name, kind, edns=edns) for kind in kinds}
        kind_of = {query.id: kind for kind, query in queries.items()}
        found: dict[str, Answer] = {}
        with self._space.socket(self._family, socket.SOCK_DGRAM) as opened:
            opened.connect((self._server, 53))
            for sending in range(1, tries + 1):
                missing = {kind for kind in kinds if kind not in found or found[kind].rcode == "SERVFAIL"}
                for kind in sorted(missing):
                    opened.send(queries[kind].to_wire())
                limit_at = time.monotonic() + wait_s
                while missing and (left_s := limit_at - time.monotonic()) > 0:
                    opened.settimeout(left_s)
                    reply = _received(opened)
                    if reply is not None and reply.id in kind_of:
                        kind = kind_of[reply.id]
                        found[kind] = _read(reply, time.monotonic() - started_at, sending)
                        missing.discard(kind)
        took_s = time.monotonic() - started_at
        return [found.get(kind, Answer("TIMEOUT", took_s=took_s, tries=tries)) for kind in kinds]

    def ask_tcp(self, name: str, kind: str, *, edns: bool = False) -> Answer:
        """Ask one question over TCP (RFC 7766)."""
        started_at = time.monotonic()
        wire = _query(name, kind, edns=edns).to_wire()
        try:
            with self._space.socket(self._family, socket.SOCK_STREAM) as opened:
                opened.settimeout(TRY_S * TRIES)
                opened.connect((self._server, 53))
                opened.sendall(len(wire).to_bytes(2, "big") + wire)
                with opened.makefile("rb") as stream:
                    data = stream.read(int.from_bytes(stream.read(2), "big"))
        except OSError as error:
            return Answer("TIMEOUT", reason=str(error), took_s=time.monotonic() - started_at)
        return _read(dns.message.from_wire(data), time.monotonic() - started_at, 1)


def _received(opened: socket.socket) -> dns.message.Message | None:
    try:
        return dns.message.from_wire(opened.recv(65535), ignore_trailing=True)
    except (TimeoutError, ConnectionRefusedError, dns.exception.DNSException):
        return None


def _query(name: str, kind: str, *, edns: bool) -> dns.message.Message:
    query = dns.message.make_query(name, kind, use_edns=0 if edns else False, payload=1232)
    query.id = random.getrandbits(16)
    return query
