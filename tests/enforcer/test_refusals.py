"""Refusals as records: whose packet it was, by which address, and what rules that watch would have said."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from enforcer.blocked import BlockedRecords, Refused
from enforcer.nflog import DeniedPacket
from enforcer.refusals import Refusals
from policy.addresses import to_packed
from policy.authority import LookupRecord, LookupsRecorded
from tests.enforcer.rig import API, OTHER, A, B, KeptRecords, Rig, permit, policy

SERVER = to_packed(API)
A4, A6, B4 = to_packed(A.addresses[0]), to_packed(A.addresses[1]), to_packed(B.addresses[0])


class _Told:
    """Refusals of a rig whose pods a and b are admitted."""

    def __init__(self, folder: Path) -> None:
        watching = msgspec.structs.replace(permit("api.example.com", first=80, name="later"), watch=True)
        rules = policy(permit("api.example.com"), watching)
        self.rig = Rig(folder).settled_with(rules)
        self.blocked = BlockedRecords(100)
        self.records = KeptRecords()
        self.refusals = Refusals(
            self.rig.ledger, self.blocked, self.records, lambda: self.rig.reconciler.snapshot, self.rig.clock
        )

    def packet(
        self, prefix: str, source: bytes, to: bytes = SERVER, port: int = 443, interface: str = "veth2"
    ) -> Refused:
        """Have one packet denied and return its record."""
        hook = "prerouting" if prefix in {"forged", "unknown"} else "forward"
        self.refusals.packets_denied([DeniedPacket(source, to, "tcp", port, prefix, interface, hook)])
        return self.blocked.raw[-1]


@pytest.fixture
def told(tmp_path: Path) -> _Told:
    """Refusals of two pods."""
    return _Told(tmp_path)


@pytest.mark.parametrize("prefix", ["denied", "port", "guard", "unknown"])
def test_a_packet_is_its_senders(told: _Told, prefix: str) -> None:
    """Pod and podIP name who sent it, ``address`` where it went."""
    found = told.packet(prefix, A4)
    assert (found.namespace, found.pod, found.pod_ip, found.address) == ("mcp", "a", A.addresses[0], API)


def test_a_known_pod_is_never_called_unknown(told: _Told) -> None:
    """While it comes, or while sets are filled, its packets meet the chain for unknown ones."""
    found = told.packet("unknown", A4)
    assert found.reason_class == "unmarked"
    assert told.packet("unknown", to_packed("100.64.0.99")).reason_class == "unknown-pod"


def test_a_forged_source_is_told_of_the_pod_that_forged_it(told: _Told) -> None:
    """The interface says who it was; whom he played is in the reason."""
    found = told.packet("forged", B4, interface="veth2")
    assert (found.pod, found.pod_ip) == ("a", A.addresses[0])
    assert B.addresses[0] in found.reason
    assert told.packet("forged", to_packed("2a00:1::3"), interface="veth2").pod == "a"


def test_a_forged_source_from_elsewhere_is_nobodys(told: _Told) -> None:
    """By the uplink, or an interface of no pod: no pod is accused."""
    found = told.packet("forged", A4, interface="eth0")
    assert (found.namespace, found.pod, found.pod_ip) == ("", "", "")


def test_the_fenced_resolver_is_no_pod(told: _Told) -> None:
    """What its uid may not send is recorded without a pod."""
    assert told.packet("fence", to_packed("192.0.2.1")).pod_ip == ""


def test_a_rule_that_watches_tells_what_it_would_have_permitted(told: _Told) -> None:
    """Port 80 of a name that is open on 443: denied, and the watching rule says what it would have done."""
    assert told.rig.ask("api.example.com", API).outcomes == ("realized",)
    found = told.packet("denied", A4, port=80)
    assert found.reason_class == "port-not-permitted"
    watched = [fields for event, fields in told.records.told if event == "packet.watched"]
    assert len(watched) == 1
    assert "later" in str(watched[0]["watched"])
    told.packet("denied", A4, port=80)
    assert len([event for event in told.records.events() if event == "packet.watched"]) == 1


def test_nothing_watches_an_address_of_no_name(told: _Told) -> None:
    """A rule for names says nothing about an address that no lookup gave."""
    told.packet("denied", A4, to=to_packed(OTHER), port=80)
    assert "packet.watched" not in told.records.events()


def test_a_resolver_cannot_name_pods_or_times_that_are_not(told: _Told) -> None:
    """What a hijacked resolver claims of lookups: unknown pods stay nameless, numbers are clamped."""
    claimed = LookupRecord(
        verdict="blocked", namespace="kube-system", pod="nobody", pod_ip="1" * 500, name="x" * 9000,
        qtype="A" * 99, policy="p" * 9000, rule="r", reason="z" * 9000, count=-5, age_s=float("nan"),
    )  # fmt: skip
    told.refusals.lookups_recorded(LookupsRecorded((claimed,)))
    found = told.blocked.raw[-1]
    assert (found.namespace, found.pod, found.times) == ("", "", 1)
    assert max(map(len, (found.pod_ip, found.name, found.qtype, found.policy, found.reason))) <= 1024
    assert found.at <= told.rig.clock()


def _lookup(name: str) -> LookupRecord:
    return LookupRecord(
        verdict="blocked", namespace="mcp", pod="a", pod_ip="", name=name, qtype="A", policy="", rule="",
        reason="no rule", count=1, age_s=0.0,
    )  # fmt: skip


def test_what_is_logged_has_a_budget(told: _Told) -> None:
    """A pod that tries a thousand names: records as far as there is room, log as far as its share goes."""
    for number in range(0, 1000, 100):
        names = tuple(_lookup(f"n{each}.example") for each in range(number, number + 100))
        told.refusals.lookups_recorded(LookupsRecorded(names))
    events = told.records.events()
    assert events.count("lookup.blocked") == 50
    assert events.count("log.suppressed") == 1
    assert told.refusals.budget.suppressed == 950
    assert len(told.blocked) == 100
    told.rig.clock.at += 61
    told.refusals.lookups_recorded(LookupsRecorded((_lookup("later.example"),)))
    assert told.records.events()[-2:] == ["log.suppressed", "lookup.blocked"]
