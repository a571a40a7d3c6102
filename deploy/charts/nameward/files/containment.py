"""What ``helm test`` runs inside a governed pod: what no policy permits must be refused, at once, by Nameward.

Reads NAMEWARD_TEST_* (forbidden name, address and port; permitted name and port, which may be empty). Prints a line
for each thing it tried; exit code 0 only if all of them went as they must. Changes nothing.
"""

from __future__ import annotations

import errno
import os
import socket
import sys
import time
from collections.abc import Callable

import dns.edns
import dns.exception
import dns.flags
import dns.message
import dns.query
import dns.rcode
import dns.rdatatype

LONGEST_S = 60.0
"""How long each step may take to come true: a pod's address reaches the node after its container has started."""
STEP_S = 5.0
METADATA = ("169.254.169.254", 80)
BLOCKED = 15  # RFC 8914, section 4.16
REFUSED = {errno.ECONNREFUSED: "refused at once", errno.EACCES: "prohibited at once", errno.EPERM: "prohibited at once"}


def server() -> str:
    """The pod's own resolver, as its resolv.conf names it."""
    with open("/etc/resolv.conf", encoding="ascii", errors="replace") as lines:
        for line in lines:
            words = line.split()
            if len(words) > 1 and words[0] == "nameserver":
                return words[1]
    return "127.0.0.1"


def asked(name: str, at: str) -> dns.message.Message:
    """One question over UDP; raises what dnspython raises."""
    question = dns.message.make_query(name, dns.rdatatype.A, use_edns=True)
    return dns.query.udp(question, at, timeout=STEP_S, raise_on_truncation=False)


def blocked_at(name: str, at: str) -> tuple[bool, str]:
    """Whether the answer is Nameward's refusal."""
    try:
        answer = asked(name, at)
    except (dns.exception.DNSException, OSError) as error:
        return False, f"no answer: {error or type(error).__name__}"
    reasons = [each for each in answer.extended_errors() if each.code == BLOCKED]
    code = dns.rcode.to_text(answer.rcode())
    if answer.answer or not reasons:
        return False, f"{code} without the reason Blocked: this is not Nameward's answer, or the name is permitted"
    return True, f"{code}, {reasons[0].text or 'Blocked'}"


def reached(address: str, port: int) -> str:
    """What became of a connection: "connected", "refused at once", or another error's name."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as tried:
        tried.settimeout(STEP_S)
        try:
            tried.connect((address, port))
        except TimeoutError:
            return "no answer"
        except OSError as error:
            return REFUSED.get(error.errno or 0, os.strerror(error.errno or 0))
    return "connected"


def refused(address: str, port: int) -> tuple[bool, str]:
    """Whether a connection is refused at once; silence would prove nothing, for the address may be nobody's."""
    what = reached(address, port)
    return what in REFUSED.values(), what


def closed(address: str, port: int) -> tuple[bool, str]:
    """Whether no connection comes about."""
    what = reached(address, port)
    return what != "connected", what


def opened(name: str, port: int) -> tuple[bool, str]:
    """Whether a permitted name is answered and its first address reached."""
    try:
        answer = asked(name, server())
    except (dns.exception.DNSException, OSError) as error:
        return False, f"no answer: {error or type(error).__name__}"
    addresses = [item.address for found in answer.answer for item in found if item.rdtype == dns.rdatatype.A]
    if not addresses:
        return False, f"{dns.rcode.to_text(answer.rcode())} without an address"
    what = reached(addresses[0], port)
    return what == "connected", f"{addresses[0]}: {what}"


def until(try_it: Callable[[], tuple[bool, str]]) -> tuple[bool, str]:
    """Try until it holds, for ``LONGEST_S`` at most."""
    end = time.monotonic() + LONGEST_S
    while True:
        holds, what = try_it()
        if holds or time.monotonic() > end:
            return holds, what
        time.sleep(0.5)


def main() -> int:
    """Try everything, print it, return the exit code."""
    said = os.environ
    name, address = said["NAMEWARD_TEST_FORBIDDEN_NAME"], said["NAMEWARD_TEST_FORBIDDEN_ADDRESS"]
    port = int(said["NAMEWARD_TEST_FORBIDDEN_PORT"])
    steps: list[tuple[str, Callable[[], tuple[bool, str]]]] = [
        (f"lookup of {name}, which no policy permits", lambda: blocked_at(name, server())),
        (f"the same, asked of {address} past the cluster's DNS", lambda: blocked_at(name, address)),
        (f"connection to {address} port {port}, never resolved", lambda: refused(address, port)),
        ("connection to the cloud's metadata service", lambda: closed(*METADATA)),
    ]
    permitted = said.get("NAMEWARD_TEST_PERMITTED_NAME", "")
    if permitted:
        at = int(said["NAMEWARD_TEST_PERMITTED_PORT"])
        steps.append((f"connection to {permitted} port {at}, which the test's policy permits", lambda: opened(permitted, at)))
    failed = 0
    for title, try_it in steps:
        holds, what = until(try_it)
        failed += not holds
        print(f"{'held  ' if holds else 'FAILED'}  {title}: {what}", flush=True)
    if failed:
        print("This pod is not contained as it should be. `kubectl get nst` shows whether its node enforces, and why not.")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
