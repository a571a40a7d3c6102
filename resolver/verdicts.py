"""What is to be done with one question, before anybody is asked: dns.md's table as one function.

Owns the order of its rows. Never resolves, never replies, never keeps state of an exchange.
Invariant: a name that the policy does not permit never reaches an upstream.
"""

from __future__ import annotations

from typing import Final, Literal

import dns.rdatatype

from policy.access import NameAccess
from policy.addresses import to_packed, union_of
from policy.names import canonical_zone, from_wire
from policy.pods import Pod
from policy.snapshot import Snapshot
from resolver.core_settings import CoreSettings
from resolver.effects import Group
from resolver.messages import AAAA, ANY, HTTPS, NOERROR, NXDOMAIN, REFUSED, SRV, SVCB, TXT, A
from resolver.replies import Ede
from resolver.zones import has_cluster_form, is_expansion, is_reverse, is_special, reversed_address

Kind = Literal["permitted", "plain", "blocked", "search", "special", "suppressed", "hinfo"]
Asker = Literal["governed", "plain", "unknown", "other"]

NOT_SUPPORTED: Final = Ede(21)
TUNNEL_TYPES: Final = frozenset({SRV, TXT, HTTPS, SVCB})
_BLOCKED_RCODES: Final = {"nxdomain": NXDOMAIN, "nodata": NOERROR, "refused": REFUSED}


class Verdict:
    """What becomes of one question. Never changed once made.

    ``permitted`` and ``plain`` are resolved by ``group``; every other kind is answered here with
    ``rcode`` and ``ede``. ``name`` is text; ``cluster`` says that cluster addresses in the answer
    need no grant; ``access`` is None for plain questions and exempt cluster names.
    """

    __slots__ = (
        "access", "cluster", "ede", "group", "kind", "name", "policy", "rcode", "reason", "rule",
    )  # fmt: skip

    def __init__(
        self,
        kind: Kind,
        name: str,
        group: Group = "outside",
        access: NameAccess | None = None,
        *,
        cluster: bool = False,
        rcode: int = NOERROR,
        ede: Ede | None = None,
        policy: str = "",
        rule: str = "",
        reason: str = "",
    ) -> None:
        self.kind = kind
        self.name = name
        self.group = group
        self.access = access
        self.cluster = cluster
        self.rcode = rcode
        self.ede = ede
        self.policy = policy
        self.rule = rule
        self.reason = reason

    def instead(
        self, kind: Kind, *, rcode: int = NOERROR, ede: Ede | None = None, reason: str = ""
    ) -> Verdict:
        """Return the verdict of another kind on the same name."""
        return Verdict(
            kind, self.name, self.group, self.access, cluster=self.cluster, rcode=rcode, ede=ede,
            policy=self.policy, rule=self.rule, reason=reason,
        )  # fmt: skip

    def because(self, policy: str, rule: str, reason: str) -> Verdict:
        """Return the same verdict for the record, with what stands behind it."""
        return Verdict(
            self.kind, self.name, self.group, self.access, cluster=self.cluster, rcode=self.rcode,
            ede=self.ede, policy=policy, rule=rule, reason=reason,
        )  # fmt: skip


class Decisions:
    """The rows of the table, for one snapshot and one set of settings."""

    def __init__(self, settings: CoreSettings, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self._settings = settings
        self._types = frozenset(int(dns.rdatatype.from_text(name)) for name in settings.query_types)
        self._exempt = snapshot.world.cluster_traffic == "exempt"
        self._suffixes = tuple(map(canonical_zone, settings.search_domains))
        self._cluster_domain = canonical_zone(snapshot.world.cluster_domain)
        self._below_cluster = "." + self._cluster_domain
        self._nodes = frozenset(map(to_packed, snapshot.world.node_addresses))
        self._pods = union_of((*snapshot.world.cluster_cidrs, *settings.pod_cidrs))
        self._anywhere = not (snapshot.world.cluster_cidrs or settings.pod_cidrs)
        self._sources: dict[tuple[str, ...], tuple[tuple[bytes, ...], tuple[bytes, ...]]] = {}

    def asker(self, source: bytes) -> tuple[Asker, Pod | None]:
        """Say who asks from a packed address; ``unknown`` may become a pod, ``other`` never will."""
        pod = self.snapshot.pod_at(source)
        if pod is not None:
            return ("governed" if pod.governed and not pod.host_network else "plain"), pod
        if self.is_node(source):
            return "plain", None
        if self._anywhere or self._pods.has(source):
            return "unknown", None
        return "other", None

    def is_node(self, source: bytes) -> bool:
        """Say whether a packed address is a node's own."""
        return source in self._nodes or _is_loopback(source)

    def sources(self, pod: Pod, qtype: int) -> tuple[bytes, ...]:
        """Packed addresses of the pod in the family of ``qtype`` (A or AAAA), where it is enforced."""
        found = self._sources.get(pod.addresses)
        if found is None:
            packed = [to_packed(text) for text in pod.addresses]
            v4 = tuple(address for address in packed if len(address) == 4)
            v6 = tuple(address for address in packed if len(address) == 16)
            found = self._sources[pod.addresses] = (v4, v6 if self._settings.ipv6_enforced else ())
        return found[0] if qtype == A else found[1]

    def plain(self, name_wire: bytes, qtype: int) -> Verdict:
        """Decide a question of an ungoverned pod or of the node: plain resolution."""
        name = from_wire(name_wire)
        if qtype == ANY:
            return Verdict("hinfo", name)
        return Verdict("plain", name, self._group(name))

    def decide(self, pod: Pod, name_wire: bytes, qtype: int) -> Verdict:
        """Decide a governed pod's question: special names, cluster names, policy, type."""
        name = from_wire(name_wire)
        verdict = self._by_name(pod, name)
        if verdict.kind != "permitted":
            return verdict
        if qtype == ANY:  # RFC 8482
            return verdict.instead("hinfo")
        access = verdict.access
        suppressed = (
            qtype not in self._types
            or (qtype in (A, AAAA) and not self.sources(pod, qtype))
            or (access is not None and access.tunnel and qtype not in TUNNEL_TYPES)
        )
        return verdict.instead("suppressed", ede=NOT_SUPPORTED) if suppressed else verdict

    def may_ask(self, pod: Pod, name_wire: bytes) -> bool:
        """Say whether the pod could ask for a target itself (SRV, MX, SVCB); the root is no target."""
        if name_wire == b"\x00":
            return True
        return self._by_name(pod, from_wire(name_wire)).kind == "permitted"

    def permits_port(self, pod: Pod, name: str, port: int) -> bool:
        """Say whether some address of the name may be reached on a port, by TCP or QUIC."""
        decide = self.snapshot.decide
        return (
            decide(pod, name, None, "tcp", port).permitted or decide(pod, name, None, "udp", port).permitted
        )

    def leaves_cluster(self, name: str) -> bool:
        """Say whether a name of a cluster answer's chain is outside the cluster's own zones."""
        return not (self._is_cluster_name(name) or is_reverse(name))

    def is_exempt_address(self, packed: bytes) -> bool:
        """Say whether an address in a cluster answer passes without a grant."""
        return self._exempt and self.snapshot.is_cluster_address(packed)

    def blocked(self, pod: Pod, name: str, access: NameAccess) -> Verdict:
        """Make the verdict on a name that no policy permits this pod."""
        text = access.reason or f"no rule permits {name} for {pod.key}"
        rcode = _BLOCKED_RCODES[self._settings.blocked_reply]
        return Verdict(
            "blocked", name, access=access, rcode=rcode, ede=Ede(15, text),
            policy=access.policy, rule=access.rule, reason=text,
        )  # fmt: skip

    def _group(self, name: str) -> Group:
        if not self._settings.cluster_dns:
            return "outside"
        if self._is_cluster_name(name):
            return "cluster"
        address = reversed_address(name) if is_reverse(name) else None
        return "cluster" if address is not None and self.snapshot.is_cluster_address(address) else "outside"

    def _is_cluster_name(self, name: str) -> bool:
        domain = self._cluster_domain
        return name.endswith(self._below_cluster) or name == domain or not domain

    def _by_name(self, pod: Pod, name: str) -> Verdict:
        if self._is_cluster_name(name):
            return self._cluster(pod, name)
        if is_special(name):
            return Verdict("special", name, rcode=NXDOMAIN)
        if is_reverse(name):
            if self._group(name) == "cluster":
                return Verdict("permitted", name, "cluster", cluster=True)
            return Verdict("special", name, rcode=NXDOMAIN)
        access = self.snapshot.access(pod, name)
        if access.resolvable:
            return Verdict("permitted", name, "outside", access)
        if is_expansion(name, self._suffixes):
            return Verdict("search", name, rcode=NXDOMAIN)
        return self.blocked(pod, name, access)

    def _cluster(self, pod: Pod, name: str) -> Verdict:
        """Names with a Kubernetes form go to the cluster's DNS; the rest are search-list expansions."""
        if not (self._settings.cluster_dns and has_cluster_form(name, self._cluster_domain)):
            return Verdict("search", name, rcode=NXDOMAIN)
        if self._exempt:
            return Verdict("permitted", name, "cluster", cluster=True)
        access = self.snapshot.access(pod, name)
        if access.resolvable:
            return Verdict("permitted", name, "cluster", access, cluster=True)
        # HOST.SVC.NS.svc is also what the search list makes of a two-label name outside
        asked = name.removesuffix(f".svc.{self._cluster_domain}").rpartition(".")[0]
        if "." in asked and self.snapshot.access(pod, asked).resolvable:
            return Verdict("search", name, rcode=NXDOMAIN)
        return self.blocked(pod, name, access)


def _is_loopback(source: bytes) -> bool:
    return source[0] == 127 if len(source) == 4 else source == bytes(15) + b"\x01"
