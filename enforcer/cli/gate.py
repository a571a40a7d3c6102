"""``nameward gate``: inside a pod, ends when policy is enforced on that pod; its first init container.

Owns the two questions: does the node name this very pod as enforced, and is a packet to an address
that nobody may reach refused at once. Needs no privilege, no configuration and no Kubernetes API.
Invariant: ends well only after both were answered yes, in one turn.
"""

from __future__ import annotations

import errno
import secrets
import socket
import sys
import time

import click
import dns.exception
import dns.message
import dns.rcode
import dns.rdatatype

from enforcer.cli.escaping import safe
from enforcer.cli.options import CommandFailure, DurationParameter, UsageFailure
from enforcer.witness import ADDRESS
from policy import gate as question
from policy.runtime.resolvconf import host_upstreams

FORBIDDEN_PORT = 443
AGAIN_S = 0.25
REFUSED_WITHIN_S = 1.0
ANSWER_WITHIN_S = 2.5
"""A node that does not know the pod yet lets its lookup wait for two seconds."""
_RESOLV_CONF = "/etc/resolv.conf"
_FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}


@click.command()
@click.option(
    "--namespace", envvar="POD_NAMESPACE", default="", help="This pod's.  [variable: POD_NAMESPACE]"
)
@click.option("--name", envvar="POD_NAME", default="", help="This pod's.  [variable: POD_NAME]")
@click.option("--uid", envvar="POD_UID", default="", help="This pod's.  [variable: POD_UID]")
@click.option(
    "--wait", "wait_s", type=DurationParameter(), default=None,
    help="Give up after this long, with exit code 1.  [default: never]",
)  # fmt: skip
@click.option("--server", default="", help="Whom to ask.  [default: the first of /etc/resolv.conf]")
def gate(namespace: str, name: str, uid: str, wait_s: float | None, server: str) -> None:
    """Wait, inside a pod, until policy is enforced on it: for its first init container.

    Needs nothing but the pod's network. Says on standard error what it waits for.
    """
    servers = [server] if server else list(host_upstreams((_RESOLV_CONF,)))
    if not servers:
        raise UsageFailure(f"{_RESOLV_CONF} names no server; name one with --server")
    pod = f"{namespace}/{name}" if namespace and name else ""
    give_up_at = time.monotonic() + wait_s if wait_s is not None else float("inf")
    told = ""
    while True:
        said = question.Said()
        waits_for = _refusal()
        if not waits_for:
            said, waits_for = _ask(servers)
        waits_for = waits_for or missing(said, pod, uid)
        if not waits_for:
            print(f"nameward: policy is enforced on {safe(said.pod)} (generation {said.generation})")
            return
        if time.monotonic() >= give_up_at:
            raise CommandFailure(f"policy is not enforced on this pod: {waits_for}")
        if waits_for != told:
            told = waits_for
            print(f"nameward: waiting: {safe(waits_for)}", file=sys.stderr, flush=True)
        time.sleep(AGAIN_S)


def missing(said: question.Said, pod: str, uid: str) -> str:
    """Say what is missing in what the node said of this pod; "": nothing."""
    if (uid and said.uid != uid) or (pod and said.pod != pod[: question.LONGEST_POD]):
        return f"the node takes this address for another pod's ({said.pod})"
    if not said.is_governed:
        return f"the node does not govern {said.pod}: is its namespace one of policy.governedNamespaces?"
    if not said.is_enforced:
        return f"the node has not seen yet that packets of {said.pod} meet its rules"
    return ""


def _refusal() -> str:
    """Try what must be refused, in each family that this pod has; "": it was, at once."""
    tried = 0
    for version, family in _FAMILIES.items():
        with socket.socket(family, socket.SOCK_STREAM) as ours:
            ours.settimeout(REFUSED_WITHIN_S)
            try:
                ours.connect((ADDRESS[version], FORBIDDEN_PORT))
            except ConnectionRefusedError:
                tried += 1
                continue
            except TimeoutError:
                return f"nothing refuses a packet to {ADDRESS[version]}, which nobody may reach"
            except OSError as error:
                if error.errno in {errno.ENETUNREACH, errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL}:
                    continue  # this pod has no such address
                return f"a packet to {ADDRESS[version]} ends otherwise than refused: {error.strerror}"
            return f"{ADDRESS[version]}, which nobody may reach, answers: enforcement is not in its way"
    return (
        ""
        if tried
        else "no packet of this pod finds a way out (no network yet, or a node without a default route)"
    )


def _ask(servers: list[str]) -> tuple[question.Said, str]:
    """Ask the node about this pod, each server once; what it said, or why there is nothing to go by."""
    why = ""
    for server in servers:
        answered, why = _answer(server)
        if answered is None:
            continue
        if answered.rcode() != dns.rcode.NOERROR:
            code = dns.rcode.to_text(answered.rcode())
            why = _WHY.get(answered.rcode(), f"the lookup at {server} ends with {code}")
            continue
        texts = [
            text.decode("utf-8", "replace")
            for rrset in answered.answer
            if rrset.rdtype == dns.rdatatype.TXT
            for rdata in rrset
            for text in rdata.strings
        ]
        if texts:
            return question.read_texts(texts), ""
        why = f"the server {server} has no answer to {question.NAME}: it is no Nameward"
    return question.Said(), why


_WHY: dict[int, str] = {
    int(dns.rcode.NXDOMAIN): "no Nameward answers this pod's lookups",
    int(dns.rcode.SERVFAIL): "the node does not know this pod yet",
}


def _answer(server: str) -> tuple[dns.message.Message | None, str]:
    asked = dns.message.make_query(question.NAME, "TXT", id=secrets.randbelow(0x10000))
    try:
        address = socket.getaddrinfo(server, 53, type=socket.SOCK_DGRAM, flags=socket.AI_NUMERICHOST)[0]
        with socket.socket(address[0], socket.SOCK_DGRAM) as ours:
            ours.settimeout(ANSWER_WITHIN_S)
            ours.connect(address[4])
            ours.send(asked.to_wire())
            answered = dns.message.from_wire(ours.recv(4096))
    except TimeoutError:
        return None, f"the server {server} does not answer"
    except OSError as error:
        return None, f"the server {server} cannot be asked: {error.strerror}"
    except dns.exception.DNSException as error:
        return None, f"the server {server} answers with something that is no DNS: {type(error).__name__}"
    return (answered, "") if asked.is_response(answered) else (None, f"{server} answers something else")
