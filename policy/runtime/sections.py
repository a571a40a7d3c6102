"""The tree of settings: every key of nameward.yaml, its kind, its default and why.

Owns names, bounds and defaults, and the text of docs/configuration.md: the docstring under each
key (its first paragraph what it means, the second why it is so). Never reads a file or a variable.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import msgspec
from msgspec import field

from policy.rules import Ceiling
from policy.runtime.kinds import (
    Choice,
    Cidr,
    Count,
    Domain,
    Duration,
    Items,
    Listen,
    Network,
    PatternText,
    Rate,
    Rates,
    Switch,
    Text,
    UpstreamText,
    Wrong,
    typed,
)
from policy.runtime.kubernetes_section import NAMESPACE, KubernetesSettings
from policy.runtime.reader import Key
from policy.runtime.state_section import ABSOLUTE, Section, StateSettings

TYPES = ("A", "AAAA", "CNAME", "HTTPS", "SVCB", "SRV", "MX", "TXT", "NS", "SOA", "CAA", "PTR", "NAPTR")
NAME = r"[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?"


class GovernedNamespaces(msgspec.Struct, frozen=True):
    """Namespaces by name, or by the labels of their Namespace objects."""

    names: tuple[str, ...] = ()
    match_labels: dict[str, str] | None = None


class Governed:
    """The two ways to write ``governedNamespaces``."""

    what = "a list of names, or {matchLabels: {KEY: VALUE}}"

    def read(self, value: object) -> GovernedNamespaces:
        """Accept at least one name or one label."""
        if not isinstance(value, dict):
            return GovernedNamespaces(names=Items(NAMESPACE, 1).read(value))
        labels = value.get("matchLabels")
        if set(value) != {"matchLabels"} or not isinstance(labels, dict) or not labels:
            raise Wrong(f"expected {self.what}, found {typed(value)}", f"write {self.what}")
        text = Text("a label's value", r"(?:[A-Za-z0-9](?:[A-Za-z0-9_.-]*[A-Za-z0-9])?)?", 63)
        return GovernedNamespaces(match_labels={key: text.read(item) for key, item in labels.items()})

    def show(self, value: GovernedNamespaces) -> str:
        """Return YAML's flow form."""
        if value.match_labels is None:
            return Items(NAMESPACE).show(value.names)
        inner = ", ".join(f'{key}: "{item}"' for key, item in value.match_labels.items())
        return "{matchLabels: {" + inner + "}}"


class PolicySettings(Section, frozen=True, kw_only=True):
    """Where policies come from, whom they govern, and what no policy may exceed."""

    source: Annotated[str, Key(Choice("files", "kubernetes"), restart=True)] = "files"
    """Where policies, pods and services are read.

    `kubernetes` follows the cluster's API server: manifests is not read then.
    """
    manifests: Annotated[tuple[str, ...], Key(Items(ABSOLUTE, 1))] = ("/etc/nameward/manifests",)
    """Files and folders with FirewallPolicy, WebgroupPolicy, Namespace, Service, EndpointSlice and Pod
    manifests.

    Read again when they change. A folder that vanishes, or a file that is half written, keeps what
    was last read.
    """
    kubernetes: KubernetesSettings = KubernetesSettings()
    """How the API server is reached, where source is `kubernetes`.

    In a pod nothing has to be said: its service account says it.
    """
    governed_namespaces: Annotated[GovernedNamespaces, Key(Governed())] = GovernedNamespaces()
    """The namespaces whose pods are contained: a list of names, or `{matchLabels: {KEY: VALUE}}`.

    A configuration file must have it: without it nothing would be contained.
    """
    break_glass_max_s: Annotated[float, Key(Duration(0, 86400))] = field(
        default=14400.0, name="breakGlassMax"
    )
    """How far ahead the end of a break-glass may be when it is asked for (the annotation
    `nameward.dev/break-glass-until` of a namespace); `0s` turns it off.

    A door that is opened by hand closes by itself, the same day.
    """
    ceiling: Ceiling = Ceiling()
    """What administrators decide before any policy: `denied` everywhere, the only names `allowed` in a
    namespace, and what they `grant` to pods by the start of their name.

    No policy exceeds it.
    """


class DnsSettings(Section, frozen=True, kw_only=True):
    """How lookups are captured, answered and forwarded."""

    listen: Annotated[tuple[str, ...], Key(Items(Listen(53)), restart=True)] = ()
    """More addresses on which to answer over UDP and TCP, for clients that are not governed.

    Captured pods need none. Take no address on which somebody else listens.
    """
    capture: Annotated[bool, Key(Switch(), restart=True)] = True
    """Answer every packet of a governed pod to port 53, whatever server it aimed at.

    Otherwise a pod chooses a resolver that knows no policy.
    """
    peers: Annotated[tuple[str, ...], Key(Items(Network()))] = ()
    """Other nodes' Nameward resolvers, which governed pods may ask on port 53 where capture is false.

    Each must be a resolver that knows these pods and asks this node for their grants: another kind of
    server would answer whatever it is asked. Name a Service in front of them beside them.
    """
    upstreams: Annotated[tuple[str, ...], Key(Items(UpstreamText()), default="the host's resolv.conf")] = ()
    """Servers that are asked for names outside the cluster. `tls://` is DNS over TLS (port 853), verified
    against NAME.

    By default the servers that the host itself uses; stubs such as 127.0.0.53 are skipped.
    """
    cluster_domain: Annotated[str, Key(Domain())] = "cluster.local"
    """The cluster's DNS domain.

    Kubernetes' own default.
    """
    cluster_upstreams: Annotated[
        tuple[str, ...],
        Key(Items(UpstreamText()), default="none; in a pod of the cluster, the servers of its resolv.conf"),
    ] = ()
    """The cluster's DNS servers, asked for names under clusterDomain.

    Without any, such names do not exist. dnsPolicy ClusterFirstWithHostNet gives a pod the cluster's.
    """
    search_domains: Annotated[tuple[str, ...], Key(Items(Domain()), default="the host's resolv.conf")] = ()
    """Suffixes that the resolvers in pods append to names; such a lookup is not listed as blocked.

    Pods inherit the node's.
    """
    private_zones: Annotated[tuple[str, ...], Key(Items(Domain()))] = ()
    """Zones whose names are resolvable by pods with a static permit, answers filtered by it.

    A static permit opens addresses; this gives them names.
    """
    query_types: Annotated[tuple[str, ...], Key(Items(Choice(*TYPES, "SSHFP", "TLSA", "URI"), 1))] = TYPES
    """Types that are resolved; others get an empty answer without an upstream query.

    A type that nobody needs is a channel to carry data out.
    """
    max_ttl_s: Annotated[float, Key(Duration(1, 3600))] = field(default=60.0, name="maxTTL")
    """The longest TTL that a pod is given.

    Short enough that a revoked name soon leaves caches, long enough for many cache hits.
    """
    hold_timeout_s: Annotated[float, Key(Duration(0.01, 10))] = field(default=1.0, name="holdTimeout")
    """The longest time that an answer waits until the kernel has its grants; then SERVFAIL.

    At most deadline, so that the client still hears of it.
    """
    deadline_s: Annotated[float, Key(Duration(0.1, 10))] = field(default=2.0, name="deadline")
    """The longest time from a query to its reply: waiting for the pod, upstream and hold together.

    musl asks again after 2.5 s, glibc after 5 s.
    """
    blocked_reply: Annotated[str, Key(Choice("nxdomain", "nodata", "refused"))] = "nxdomain"
    """The reply for a name that is not permitted.

    NXDOMAIN fails at once in every client; on REFUSED musl waits 5 s and glibc asks the next server.
    """
    tunnel_action: Annotated[str, Key(Choice("block", "record"))] = "block"
    """What happens beyond limits.distinctNames: the name is refused, or only recorded.

    A tunnel through DNS needs a fresh name for every message.
    """
    processes: Annotated[int, Key(Count(1, 8), restart=True)] = 1
    """How many resolver processes answer. Each has one core's worth of answers, and a cache of its own.

    A pod is always answered by the same one (by its source address), so that limits stay what they are. One
    answers tens of thousands of lookups a second.
    """
    user: Annotated[
        str,
        Key(
            Text("a user's name or number", r"[a-z_][a-z0-9_-]{0,31}|[0-9]{1,10}", 32),
            restart=True,
            default="nameward-resolver if there is such a user, else 65353",
        ),
    ] = ""
    """The user that the resolver runs as, by name or number; nothing else on the host may run as it.

    The kernel fences it in: to its upstreams and the pods it answers.
    """


class EnforcementSettings(Section, frozen=True, kw_only=True):
    """Which packets are a pod's, and how grants live in the kernel."""

    pod_interfaces: Annotated[
        tuple[str, ...], Key(Items(Text("a kind or name pattern", r"[A-Za-z0-9_.-]{1,15}\*?", 16), 1))
    ] = ("veth",)
    """Interfaces by which a packet is a pod's: kinds (`veth`) or name patterns (`eni*`, `cali*`).

    A bridge is the pods' when one of its ports is, or when it is named itself (`cni0`). What carries a
    default route of the node is never taken for a pod's, nor are the ports of such a bridge.
    """
    pod_cidrs: Annotated[tuple[str, ...], Key(Items(Cidr()))] = field(default=(), name="podCIDRs")
    """This node's own pod ranges, where they are known.

    Optional; it narrows the route of captured lookups.
    """
    cluster_cidrs: Annotated[tuple[str, ...], Key(Items(Cidr()))] = field(default=(), name="clusterCIDRs")
    """Ranges of the cluster's pods, services and nodes.

    Guarded addresses: a permitted name cannot open them.
    """
    cluster_traffic: Annotated[str, Key(Choice("exempt", "govern"))] = "exempt"
    """Whether traffic within clusterCIDRs is left alone or meets the policies.

    The policies describe egress from the cluster; NetworkPolicy covers the rest.
    """
    unknown_pods: Annotated[str, Key(Choice("deny", "allow"))] = "deny"
    """What happens to packets from a pod interface whose source is no known pod.

    A pod may run for a second before it is known; until then it must not reach anything.
    """
    pod_proof: Annotated[str, Key(Choice("require", "report"))] = "require"
    """Whether the node calls itself enforcing while a pod's packets are not seen by its netfilter.

    A pod is asked for a packet to the outside, which has to meet the rules. `report` says what is wrong
    and does not count it, for networks that keep pods from answering.
    """
    grace_s: Annotated[float, Key(Duration(0, 86400))] = field(default=60.0, name="grace")
    """How much longer than its answer's TTL a grant lasts.

    nginx, and JVMs with ttl=-1, use an address long after its TTL: up to `24h` for those.
    """
    on_revoke: Annotated[str, Key(Choice("cut", "keep"))] = "cut"
    """Whether established connections end together with their permission, or may finish.

    Zero policy debt: what is no longer permitted no longer happens.
    """
    nflog_group: Annotated[int, Key(Count(0, 65535), restart=True)] = 5353
    """The NFLOG group through which denied packets are recorded.

    Nobody else may read it.
    """


class LimitSettings(Section, frozen=True, kw_only=True):
    """What one pod, and all of them together, may use up."""

    queries_per_second: Annotated[int, Key(Count(1, 1_000_000))] = 500
    """Queries a second of one pod; more are refused.

    A flood of one pod does not slow the others.
    """
    queries_in_flight: Annotated[int, Key(Count(1, 65535))] = 256
    """Queries of one pod that wait for an upstream or for grants; more are refused.

    A pod whose upstream is silent does not occupy the resolver.
    """
    distinct_names: Annotated[Rate, Key(Rates())] = Rate(300, 600.0)
    """Distinct uncached names of one pod under one registrable domain, in a time.

    The limit on tunnels; names that are permitted exactly are exempt.
    """
    grants_per_pod: Annotated[int, Key(Count(1, 1_000_000))] = 16384
    """Live grants of one pod; what exceeds it is left out of answers.

    Four answers of the largest size that DNS has.
    """
    grants: Annotated[int, Key(Count(1, 8_000_000), restart=True)] = 1_000_000
    """Live grants of all pods: the size of the kernel's sets.

    Kernel memory is used only by those that exist.
    """
    tcp_connections_per_pod: Annotated[int, Key(Count(1, 65535))] = 64
    """DNS connections over TCP of one pod.

    Clients need one or two.
    """
    cache_entries: Annotated[int, Key(Count(1, 10_000_000))] = 100_000
    """Upstream answers that are kept.

    Eviction is fair between pods.
    """
    blocked_records: Annotated[int, Key(Count(1, 10_000_000))] = 100_000
    """Blocked lookups and denied packets that are kept for `nameward blocked`.

    One pod's are a sixteenth of them at most, or 4096. The oldest go first.
    """


class MetricsSettings(Section, frozen=True, kw_only=True):
    """Prometheus metrics and health."""

    listen: Annotated[str, Key(Listen(None, optional=True), restart=True)] = "127.0.0.1:9153"
    """Address and port of /metrics, /livez and /readyz; `""` turns them off.

    Loopback by default: what a node does is not the network's business.
    """
    token_file: Annotated[str, Key(ABSOLUTE, restart=True, default="none")] = ""
    """A file with the token that whoever reads /metrics must send (`Authorization: Bearer TOKEN`).

    Wherever `listen` is not loopback. Read at every request, so a changed token needs no restart.
    """
    cert_file: Annotated[str, Key(ABSOLUTE, restart=True, default="none")] = ""
    """The certificate of these pages, in PEM: they are served over TLS then. Read again when it changes.

    A token crosses the network in every request.
    """
    key_file: Annotated[str, Key(ABSOLUTE, restart=True, default="none")] = ""
    """The private key of certFile, in PEM.

    It needs no password: nobody is there to type it.
    """


class LogSettings(Section, frozen=True, kw_only=True):
    """Log records, on standard error."""

    level: Annotated[str, Key(Choice("debug", "info", "warning", "error"))] = "info"
    """The least level that is written.

    `debug` adds a record for every grant.
    """
    format: Annotated[str, Key(Choice("json", "console"), restart=True)] = "json"
    """JSON lines, or text for people.

    JSON is what log collectors read.
    """
    refusals_per_second: Annotated[int, Key(Count(1, 100_000), restart=True)] = 20
    """Records of refused lookups and packets a second, at most and in the long run; one pod gets a quarter.

    A pod that tries a thousand names must not fill the log's disk: `nameward blocked` has them,
    as far as limits.blockedRecords goes.
    """


class Settings(Section, frozen=True, kw_only=True):
    """This node."""

    node: Annotated[str, Key(Text("a node's name", NAME), restart=True, default="the hostname")] = ""
    """The name of this node in records and listings.

    Kubernetes names nodes so too.
    """
    cluster: Annotated[str, Key(Text("a cluster's name", NAME, 63), restart=True)] = "default"
    """The name of the cluster.

    Part of every shared key, so that clusters never meet.
    """
    policy: PolicySettings = PolicySettings()
    dns: DnsSettings = DnsSettings()
    enforcement: EnforcementSettings = EnforcementSettings()
    limits: LimitSettings = LimitSettings()
    state: StateSettings = StateSettings()
    metrics: MetricsSettings = MetricsSettings()
    log: LogSettings = LogSettings()
    runtime_dir: Annotated[
        str, Key(Text("an absolute path of at most 80 octets", r"/[^\x00-\x1f\x7f]+", 80), restart=True)
    ] = "/run/nameward"
    """The folder of the sockets, the lock and the journal; each Nameward on a host has its own.

    Under /run: what it holds does not outlive the kernel's state.
    """


_POD_PREFIX = Text("the start of a pod's name", r"[a-z0-9][a-z0-9.-]*")
SHARED_KEYS: Mapping[str, Key] = {
    "namespace": Key(NAMESPACE),
    "pod_name_prefix": Key(_POD_PREFIX),
    "names": Key(Items(PatternText())),
    "cidrs": Key(Items(Cidr())),
    "ports": Key(Items(Count(1, 65535), 1)),
}
"""How the fields of the ceiling read, which ``policy.rules`` defines."""
