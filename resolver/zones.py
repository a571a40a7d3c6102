"""Names that have a meaning of their own, whatever a policy says.

Owns special-use names, reverse names, and the DNS forms of Kubernetes. Never knows a policy or a
pod. Names are presentation text, lower case, without trailing dot.
"""

from __future__ import annotations

import ipaddress
import re

from policy.names import is_under

SPECIAL = frozenset(
    {
        "localhost",  # RFC 6761, 6.3: loopback is never given
        "local",  # RFC 6762
        "onion",  # RFC 7686
        "invalid",  # RFC 6761, 6.4
        "alt",  # RFC 9476
        "resolver.arpa",  # RFC 9462: no resolver but us is to be discovered
        "use-application-dns.net",  # asks a browser to keep DNS over HTTPS off
    }
)

_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_SERVICE = re.compile(rf"(?:_[a-z0-9-]{{1,15}}\._(?:tcp|udp|sctp)\.|{_LABEL}\.)?{_LABEL}\.{_LABEL}\.svc")
_POD = re.compile(rf"[0-9a-f-]{{2,63}}\.{_LABEL}\.pod")


def is_special(name: str) -> bool:
    """Say whether the name is special-use or under one that is."""
    last = name.rpartition(".")[2]
    if last in SPECIAL:
        return True
    return last in ("arpa", "net") and (
        is_under(name, "resolver.arpa") or is_under(name, "use-application-dns.net")
    )


def is_reverse(name: str) -> bool:
    """Say whether the name is in one of the reverse zones."""
    return name.endswith(".arpa") and (is_under(name, "in-addr.arpa") or is_under(name, "ip6.arpa"))


def reversed_address(name: str) -> bytes | None:
    """Packed address of a reverse name in exact form (4 octets, 32 nibbles); None for any other."""
    labels = name.split(".")[::-1]
    if len(labels) == 6 and labels[1] == "in-addr":
        try:
            return ipaddress.IPv4Address(".".join(labels[2:])).packed
        except ValueError:
            return None
    if len(labels) == 34 and labels[1] == "ip6" and all(len(label) == 1 for label in labels[2:]):
        try:
            return bytes.fromhex("".join(labels[2:]))
        except ValueError:
            return None
    return None


def has_cluster_form(name: str, cluster_domain: str) -> bool:
    """Say whether a name under the cluster's domain has a form of the Kubernetes DNS specification.

    Services, headless pods (HOST.SVC.NS.svc), SRV (_PORT._PROTO.SVC.NS.svc), pod addresses
    (10-0-0-1.NS.pod) and ``dns-version``.
    """
    form = name[: -len(cluster_domain) - 1]
    if form.endswith(".svc"):
        return _SERVICE.fullmatch(form) is not None
    if form.endswith(".pod"):
        return _POD.fullmatch(form) is not None and _is_dashed(form.partition(".")[0])
    return form == "dns-version"


def _is_dashed(label: str) -> bool:
    for separator in ".", ":":
        try:
            ipaddress.ip_address(label.replace("-", separator))
        except ValueError:
            continue
        return True
    return False


def is_expansion(name: str, suffixes: tuple[str, ...]) -> bool:
    """Say whether the name is NAME.SUFFIX with one of the search domains."""
    return any(suffix and name.endswith("." + suffix) for suffix in suffixes)
