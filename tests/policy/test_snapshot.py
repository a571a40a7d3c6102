"""The snapshot: pods, addresses, the guard in permits, static permits, the cluster, Services."""

from __future__ import annotations

import msgspec
import pytest

from policy.addresses import to_packed
from policy.pods import Pod, Service
from policy.rules import Destination, Policy, PortRange, Rule, Selector
from policy.snapshot import Snapshot, compile_snapshot
from policy.world import World

POD = Pod(namespace="ns", name="a", uid="u1", addresses=("10.244.0.5", "fd00:10::5"), labels={"app": "a"})
OTHER = Pod(namespace="ns", name="b", uid="u2", addresses=("10.244.0.6",), labels={"app": "b"})
CLUSTER = {"cluster_cidrs": ("10.244.0.0/16", "10.96.0.0/12"), "node_addresses": ("5.6.7.8",)}
PUBLIC = "93.184.216.34"


def _cidr(*cidrs: str) -> tuple[Destination, ...]:
    return tuple(Destination(kind="cidr", cidr=cidr) for cidr in cidrs)


def _policy(*rules: Rule, name: str = "p") -> Policy:
    return Policy(namespace="ns", name=name, kind="FirewallPolicy", rules=rules)


def _static(*destinations: Destination, name: str = "static", **more: object) -> Rule:
    return Rule(name=name, action="permit", destinations=destinations, **more)  # type: ignore[arg-type]


def _named(*names: str, destinations: tuple[Destination, ...] = (Destination(kind="anywhere"),)) -> Rule:
    https = PortRange(443, 443)
    return Rule(
        name="allow",
        action="permit",
        destinations=destinations,
        web_groups=names,
        protocol="tcp",
        ports=https,
    )


def _snapshot(*rules: Rule, **world: object) -> Snapshot:
    fields: dict[str, object] = {"generation": 7, "pods": (POD, OTHER)}
    fields["policies"] = (_policy(*rules),) if rules else ()
    return compile_snapshot(World(**(fields | world)))  # type: ignore[arg-type]


def _opens(snapshot: Snapshot, address: str, name: str | None = None) -> bool:
    return snapshot.decide(POD, name, to_packed(address), "tcp", 443).permitted


def test_pods_are_found_by_address_and_by_key() -> None:
    """Each of a pod's addresses is its own; host-network pods have none."""
    host = Pod(namespace="ns", name="h", uid="u9", addresses=("5.6.7.8",), host_network=True)
    snapshot = _snapshot(pods=(POD, OTHER, host))
    assert snapshot.pod_at(to_packed("fd00:10::5")) is POD
    assert snapshot.pod_at(to_packed("10.244.0.6")) is OTHER
    assert snapshot.pod_at(to_packed("10.244.0.7")) is None
    assert snapshot.pod_at(to_packed("5.6.7.8")) is None
    assert snapshot.pod("ns/a") is POD
    assert snapshot.pod("ns/z") is None
    assert (snapshot.generation, snapshot.world.generation) == (7, 7)


def test_an_address_that_two_pods_claim_belongs_to_neither() -> None:
    """Both are unknown at it, and a problem names both; their other addresses stay."""
    thief = msgspec.structs.replace(OTHER, addresses=("10.244.0.5", "10.244.0.6"))
    snapshot = _snapshot(pods=(POD, thief))
    assert snapshot.pod_at(to_packed("10.244.0.5")) is None
    assert snapshot.pod_at(to_packed("10.244.0.6")) is thief
    assert snapshot.pod_at(to_packed("fd00:10::5")) is POD
    assert snapshot.problems == ("10.244.0.5 is claimed by several pods, so it is nobody's: ns/a, ns/b",)


def test_pods_with_one_uid_may_do_nothing() -> None:
    """A uid that is not unique identifies nobody."""
    twin = msgspec.structs.replace(OTHER, uid="u1")
    snapshot = _snapshot(_named("a.com"), pods=(POD, twin))
    assert not snapshot.access(POD, "a.com").resolvable
    assert not snapshot.access(twin, "a.com").resolvable
    assert snapshot.problems == ("ns/a and ns/b have the same uid: neither may do anything",)


@pytest.mark.parametrize(
    ("cidr", "address", "opened"),
    [
        ("0.0.0.0/0", PUBLIC, True),
        ("0.0.0.0/0", "2606:2800::1", True),
        ("0.0.0.0/0", "10.1.2.3", False),
        ("0.0.0.0/0", "5.6.7.8", False),
        ("0.0.0.0/0", "168.63.129.16", False),
        ("8.0.0.0/6", "10.1.2.3", False),
        ("8.0.0.0/6", "8.8.8.8", True),
        ("10.0.0.0/8", "10.1.2.3", True),
        ("10.0.0.0/8", "11.1.2.3", False),
        ("5.6.7.8/32", "5.6.7.8", True),
        ("5.6.7.0/24", "5.6.7.8", False),
        ("169.254.0.0/16", "169.254.169.254", False),
        ("169.254.169.254/32", "169.254.169.254", True),
        ("fc00::/7", "fd00:ec2::254", False),
        ("fc00::/7", "fd12::1", True),
        ("10.0.0.0/8", "64:ff9b::a01:203", False),
        ("64:ff9b::a00:0/104", "64:ff9b::a01:203", True),
    ],
)
def test_a_permit_contains_guarded_addresses_only_by_a_cidr_inside_them(
    cidr: str, address: str, opened: bool
) -> None:
    """The rebinding guard; a metadata address is opened by its own address alone."""
    snapshot = _snapshot(_named("a.com", destinations=_cidr(cidr)), cluster_traffic="govern", **CLUSTER)
    assert _opens(snapshot, address, "a.com") is opened


def test_anywhere_in_a_permit_never_contains_a_guarded_address() -> None:
    """Neither Anywhere nor Public Internet opens one; the refusal names its class."""
    for kind in ("anywhere", "public"):
        snapshot = _snapshot(_named("a.com", destinations=(Destination(kind=kind),)))  # type: ignore[arg-type]
        assert not _opens(snapshot, "127.0.0.1", "a.com")
    found = snapshot.access(POD, "a.com").at(to_packed("169.254.169.254"))
    assert found.permits == ()
    assert found.reason == "169.254.169.254 is a metadata address, which only a permit of its own CIDR opens"


def test_a_deny_of_ipv4_addresses_holds_behind_nat64() -> None:
    """What is denied is not reached through its translated form."""
    deny = Rule(name="deny", action="deny", destinations=_cidr("8.8.8.0/24"))
    snapshot = _snapshot(deny, _named("a.com"))
    assert not _opens(snapshot, "8.8.8.8", "a.com")
    assert not _opens(snapshot, "64:ff9b::808:808", "a.com")
    assert _opens(snapshot, "64:ff9b::909:909", "a.com")


def test_a_static_permit_opens_addresses_not_names() -> None:
    """Its CIDR is open without DNS, as boxes; a refused lookup says why."""
    snapshot = _snapshot(_static(*_cidr("93.184.0.0/16"), protocol="tcp", ports=PortRange(50, 60)))
    boxes = [(box.first, box.last, box.first_port, box.last_port) for box in snapshot.static_boxes(POD)]
    span = (to_packed("93.184.0.0"), to_packed("93.184.255.255"))
    assert boxes == [(*span, 50, 52), (*span, 54, 60)]
    access = snapshot.access(POD, "a.com")
    assert (access.resolvable, access.reason) == (False, "ns/p/static opens addresses, not names")
    assert access.at(to_packed(PUBLIC)).permits == ()


def test_ranges_times_ports_have_a_bound() -> None:
    """Two thousand ranges on one port, and everything on forty others: nothing is open without DNS then."""
    ranges = _static(*_cidr(*(f"93.{n // 256}.{n % 256}.0/25" for n in range(2000))), ports=PortRange(9, 9))
    ports = [
        _static(*_cidr("0.0.0.0/0"), name=f"r{n}", protocol="tcp", ports=PortRange(600 + 2 * n, 600 + 2 * n))
        for n in range(40)
    ]
    few, many = _snapshot(ranges, *ports[:1]), _snapshot(ranges, *ports)
    assert len(few.static_boxes(POD)) > 4000
    assert (few.opens_too_much(POD), many.opens_too_much(POD)) == (False, True)
    assert many.static_boxes(POD) == ()


def test_a_static_permit_covers_its_own_family() -> None:
    """0.0.0.0/0 without webGroups is IPv4 only, and makes all names resolvable for it."""
    snapshot = _snapshot(_static(*_cidr("0.0.0.0/0"), protocol="tcp", ports=PortRange(443, 443)))
    assert _opens(snapshot, PUBLIC)
    assert not _opens(snapshot, "2606:2800::1")
    access = snapshot.access(POD, "any.name")
    assert (access.resolvable, access.exact) == (True, False)
    assert access.at(to_packed(PUBLIC)).permits
    assert not access.at(to_packed("2606:2800::1")).permits
    assert {len(box.first) for box in snapshot.static_boxes(POD)} == {4}


def test_private_zones_are_resolvable_by_pods_with_a_static_permit() -> None:
    """Names in them, not others, and only for pods that have one; answers filtered by it."""
    rule = _static(*_cidr("10.1.0.0/16"), selector=Selector(match_labels={"app": "a"}))
    snapshot = _snapshot(rule, private_zones=("Corp.Internal.",))
    assert _opens(snapshot, "10.1.0.1", "db.corp.internal")
    assert not _opens(snapshot, "10.2.0.1", "db.corp.internal")
    assert not snapshot.access(POD, "evilcorp.internal").resolvable
    assert not snapshot.access(OTHER, "db.corp.internal").resolvable


def test_cluster_traffic_is_exempt_but_never_opened_by_outside_names() -> None:
    """Packets and cluster names pass; an outside name that answers with a cluster address does not."""
    snapshot = _snapshot(_named("*"), dns_addresses=("10.96.0.10",), **CLUSTER)
    assert _opens(snapshot, "10.244.3.3")
    assert _opens(snapshot, "10.244.3.3", "db.prod.svc.cluster.local")
    assert not _opens(snapshot, "10.244.3.3", "rebound.evil.org")
    assert snapshot.decide(POD, "db.prod.svc.cluster.local", None, "tcp", 443).permitted
    assert not snapshot.access(POD, "db.prod.svc.cluster.local").resolvable
    assert not snapshot.decide(POD, None, to_packed("10.244.3.3"), "udp", 5353).permitted
    assert not snapshot.decide(POD, None, to_packed("10.244.3.3"), "tcp", 53).permitted
    assert not _opens(snapshot, "10.96.0.10")
    assert not _opens(snapshot, "5.6.7.8")
    assert snapshot.is_cluster_address(to_packed("10.96.0.1"))
    assert not snapshot.is_cluster_address(to_packed("10.96.0.10"))
    assert snapshot.guard_class(to_packed("5.6.7.8")) == "node"


def test_metadata_inside_a_cluster_cidr_is_never_exempt() -> None:
    """A pod range that holds a metadata address does not open it."""
    snapshot = _snapshot(cluster_cidrs=("100.64.0.0/10",))
    assert _opens(snapshot, "100.64.0.1")
    assert not _opens(snapshot, "100.100.100.200")


def test_governed_cluster_traffic_meets_the_rules() -> None:
    """``*`` matches cluster names; cluster addresses need a permit of their own CIDR."""
    snapshot = _snapshot(
        _named("*"), _static(*_cidr("10.96.0.0/16"), name="services"), cluster_traffic="govern", **CLUSTER
    )
    assert snapshot.access(POD, "db.prod.svc.cluster.local").resolvable
    assert _opens(snapshot, "10.96.0.1", "db.prod.svc.cluster.local")
    assert not _opens(snapshot, "10.244.3.3")


@pytest.mark.parametrize(
    ("name", "tunnel"),
    [
        ("_grpc_config.api.example.com", True),
        ("_mongodb._tcp.api.example.com", True),
        ("_a._b._c.api.example.com", None),
        ("_sixteen_octets_.api.example.com", None),
        ("a._tcp.api.example.com", None),
        ("_x.banned.example.com", None),
        ("_x.w.example.net", False),
    ],
)
def test_underscore_labels_before_a_permitted_name(name: str, tunnel: bool | None) -> None:
    """One or two of at most 15 octets; without addresses; never past a deny of the name."""
    deny = Rule(
        name="deny",
        action="deny",
        destinations=(Destination(kind="anywhere"),),
        web_groups=("*.banned.example.com",),
    )
    snapshot = _snapshot(
        deny, _named("api.example.com", "banned.example.com", "*.w.example.net", "w.example.net")
    )
    access = snapshot.access(POD, name)
    assert access.resolvable is (tunnel is not None)
    if tunnel is not None:
        assert (access.tunnel, access.exact) == (tunnel, False)
        found = access.at(to_packed(PUBLIC))
        assert bool(found.permits) is not tunnel
        assert access.permits_port("tcp", 443)
        assert not access.permits_port("tcp", 53)


def test_exact_means_permitted_by_an_exact_pattern() -> None:
    """A wildcard beside it does not take that away; a wildcard alone does not give it."""
    snapshot = _snapshot(_named("api.example.com", "*.example.com"))
    assert snapshot.access(POD, "api.example.com").exact
    assert not snapshot.access(POD, "x.example.com").exact


def test_service_selectors_pick_the_pods_behind_the_service() -> None:
    """By the Service's selector or, without one, by its endpoints."""
    services = (
        Service(namespace="ns", name="web", selector={"app": "a"}),
        Service(namespace="ns", name="bare", selector={}, addresses=("10.244.0.6",)),
    )
    for service, picked in (("web", POD), ("bare", OTHER)):
        rule = msgspec.structs.replace(_named("a.com"), selector=Selector(service=service))
        snapshot = _snapshot(rule, services=services)
        for pod in (POD, OTHER):
            assert snapshot.access(pod, "a.com").resolvable is (pod is picked)


def test_a_service_that_does_not_exist_is_not_understood() -> None:
    """A permit of it opens nothing and ends its policy's permits; a deny denies the whole namespace."""
    missing = msgspec.structs.replace(_named("a.com"), selector=Selector(service="gone"))
    snapshot = _snapshot(missing, msgspec.structs.replace(_named("b.com"), name="next"))
    assert snapshot.problems == ("ns/p/allow: there is no Service ns/gone",)
    assert not snapshot.access(POD, "a.com").resolvable
    assert not snapshot.access(POD, "b.com").resolvable
    deny = Rule(
        name="deny", action="deny", destinations=_cidr("93.0.0.0/8"), selector=Selector(service="gone")
    )
    snapshot = _snapshot(policies=(_policy(_named("b.com")), _policy(deny, name="q")))
    assert not _opens(snapshot, PUBLIC, "b.com")
    assert _opens(snapshot, "8.8.8.8", "b.com")


@pytest.mark.parametrize(
    ("destination", "opened"),
    [
        (Destination(kind="pods", namespace="db"), {"10.244.9.1", "10.244.9.2", "10.96.0.20", "10.96.0.21"}),
        (Destination(kind="pods", namespace="db", labels={"app": "x"}), {"10.244.9.1", "10.96.0.20"}),
        (Destination(kind="pods", namespace="db", pod_name="y"), {"10.244.9.2"}),
        (
            Destination(kind="pods", namespace="db", service="both"),
            {"10.244.9.1", "10.244.9.2", "10.96.0.21"},
        ),
        (Destination(kind="pods", namespace="none"), set()),
    ],
)
def test_groups_of_pods_hold_their_addresses_and_services(destination: Destination, opened: set[str]) -> None:
    """A permit of a group opens its pods, and the Services whose pods are all in it."""
    services = (
        Service(namespace="db", name="one", selector={"app": "x"}, cluster_ips=("10.96.0.20",)),
        Service(namespace="db", name="both", selector={"tier": "db"}, cluster_ips=("10.96.0.21",)),
    )
    backends = (
        Pod(namespace="db", name="x", uid="x", addresses=("10.244.9.1",), labels={"app": "x", "tier": "db"}),
        Pod(namespace="db", name="y", uid="y", addresses=("10.244.9.2",), labels={"app": "y", "tier": "db"}),
    )
    snapshot = _snapshot(
        _static(destination), pods=(POD, *backends), services=services, cluster_traffic="govern", **CLUSTER
    )
    candidates = ("10.244.9.1", "10.244.9.2", "10.96.0.20", "10.96.0.21", "10.244.0.5")
    assert {address for address in candidates if _opens(snapshot, address)} == opened


def test_bad_cidrs_fail_closed() -> None:
    """A permit's opens nothing, a deny's covers everything; both are problems."""
    deny = Rule(name="deny", action="deny", destinations=_cidr("x"))
    snapshot = _snapshot(_static(*_cidr("nonsense")))
    assert snapshot.static_boxes(POD) == ()
    snapshot = _snapshot(policies=(_policy(_named("a.com")), _policy(deny, name="q")))
    assert not snapshot.access(POD, "a.com").resolvable
    assert len(snapshot.problems) == 1


def test_pods_with_the_same_rules_share_a_profile_and_their_memory_is_their_own() -> None:
    """Rules are compiled once; the reasons name each pod."""
    snapshot = _snapshot(_named("a.com"))
    one, two = snapshot.access(POD, "b.com"), snapshot.access(OTHER, "b.com")
    assert one.profile is two.profile
    assert (one.reason, two.reason) == ("no rule permits b.com for ns/a", "no rule permits b.com for ns/b")
    assert snapshot.access(POD, "b.com") is one


def test_memory_of_names_is_bounded() -> None:
    """However many names a pod asks, few are kept; the ones in use stay."""
    snapshot = _snapshot(_named("*.example.com"))
    kept = snapshot.access(POD, "kept.example.com")
    for number in range(10_000):
        snapshot.access(POD, f"n{number}.example.com")
        assert snapshot.access(POD, "kept.example.com") is kept
    assert snapshot.access(POD, "n0.example.com") is not None


def test_the_policy_hash_is_of_the_policies_not_of_the_pods() -> None:
    """Nodes with other pods agree; another rule or setting changes it."""
    base = _snapshot(_named("a.com"))
    assert _snapshot(_named("a.com"), pods=(), generation=9).policy_hash == base.policy_hash
    assert _snapshot(_named("b.com")).policy_hash != base.policy_hash
    assert _snapshot(_named("a.com"), private_zones=("x",)).policy_hash != base.policy_hash
