"""Keys, seals and records: what is written reads back the same, and nothing else is believed."""

from __future__ import annotations

import hashlib
import hmac
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enforcer.elements import GRANT_SETS, grant_keys
from enforcer.sharing.records import formats, seal
from enforcer.sharing.records.formats import (
    BlockedRecord,
    GrantRecord,
    NodeFacts,
    NodeRecord,
    PodRecord,
    SharedUpstream,
)
from enforcer.sharing.records.keys import Keys, place_of
from enforcer.sharing.records.reasons import SharedReason, reasons_left
from enforcer.sharing.records.seal import Keyring, NotBelieved
from policy.addresses import from_packed, to_packed

KEYS = Keys("default", "node-a")
RING = Keyring(b"the key of the cluster")
POD4, POD6, TO4, TO6 = (to_packed(t) for t in ("10.0.0.1", "2a00:1::2", "203.0.113.7", "2001:db8::7"))

hostile = st.text(max_size=40) | st.sampled_from(
    ["", " ", "a b", "a/b", "%2F", "; ", "+1", "\x1b[31m", "\u202e", "\r\n*1\r\n", "\x00", "é"]
)
"""Text as a stranger may choose it."""
whole = st.integers(0, 2**40)
tenths = st.integers(0, 10**6).map(lambda n: n / 10)
v4, v6 = st.binary(min_size=4, max_size=4), st.binary(min_size=16, max_size=16)


_FIELDS = (
    b"generation namespace node pod realizedAt reasons session uid smartGroups policies beat challenge "
    b"heartbeatAt version policyHash pods grants startedAt enforcing rejectedPolicies pending lastRealizedAt "
    b"problems upstreams kind podIP name qtype address port protocol reason policy rule at count seq"
).split()


def _key() -> bytes:
    ((name, key, _),) = grant_keys(POD4, TO4, Ports("tcp", 443, 443))
    return KEYS.grant(name, key)


def _grant(reasons: tuple[SharedReason, ...]) -> GrantRecord:
    place = place_of(_key())
    return GrantRecord(*place[3:], "mcp", "a", "uid-a", "node-a", reasons, 0, 3, "t", "s")


def _facts(problems: tuple[str, ...]) -> NodeFacts:
    return NodeFacts("1", 2, "h", 3, 4, "t", True, 5, 6, 7, "", problems, ())  # noqa: FBT003


class Ports(NamedTuple):
    """Ports of a rule."""

    protocol: str
    first: int
    last: int


@st.composite
def elements(draw: st.DrawFn) -> tuple[str, bytes]:
    """An element of a grant, of any set."""
    family = draw(st.sampled_from([v4, v6]))
    protocol = draw(st.sampled_from(["tcp", "udp", "icmp", "any"]))
    first = draw(st.integers(0, 65535))
    last = draw(st.just(first) | st.integers(first, 65535))
    if draw(st.booleans()):
        first, last = 0, 65535
    name, key, _ = draw(st.sampled_from(grant_keys(draw(family), draw(family), Ports(protocol, first, last))))
    return name, key


class TestKeys:
    """The names."""

    def test_how_they_are_written(self) -> None:
        """As the contract has them."""
        of = {
            Ports("tcp", 443, 443): b"tcp:443",
            Ports("udp", 0, 65535): b"udp:any",
            Ports("any", 0, 65535): b"any:any",
            Ports("icmp", 0, 0): b"icmp:any",
        }
        for permit, tail in of.items():
            ((name, key, _),) = grant_keys(POD4, TO4, permit)
            assert KEYS.grant(name, key) == b"nameward:default:{node-a}:grant:10.0.0.1:203.0.113.7:" + tail
            ((name, key, _),) = grant_keys(POD6, TO6, permit)
            expected = b"nameward:default:{node-a}:grant:[2a00:1::2]:[2001:db8::7]:" + tail
            assert KEYS.grant(name, key) == expected
        wide = [KEYS.grant(name, key) for name, key, _ in grant_keys(POD4, TO4, Ports("tcp", 4032, 8192))]
        assert [key.rpartition(b":")[2] for key in wide] == [b"4032-4095", b"4096-8191", b"8192"]
        assert KEYS.pod(POD6) == b"nameward:default:{node-a}:pod:[2a00:1::2]"
        assert KEYS.heartbeat == b"nameward:default:{node-a}:node"
        assert KEYS.nodes == b"nameward:default:nodes"
        assert KEYS.owner(POD4) == b"nameward:default:owner:10.0.0.1"
        assert KEYS.owner(POD6) == b"nameward:default:owner:[2a00:1::2]"

    @given(elements())
    def test_read_back(self, element: tuple[str, bytes]) -> None:
        """A grant's key says what its element opens."""
        name, key = element
        place = place_of(KEYS.grant(name, key))
        size = 4 if name[-1] == "4" else 16
        assert (place.cluster, place.node, place.kind) == ("default", "node-a", "grant")
        assert (place.pod_ip, place.address) == (from_packed(key[:size]), from_packed(key[size : 2 * size]))

    @given(st.lists(elements(), unique=True))
    def test_two_elements_never_share_a_name(self, some: list[tuple[str, bytes]]) -> None:
        """Whatever sets they are of."""
        assert len({KEYS.grant(name, key) for name, key in some}) == len(some)

    def test_all_sets_and_protocols_differ(self) -> None:
        """Each set with each protocol number that it may hold, at one pair of addresses and one port."""
        for size, pair in ((4, POD4 + TO4), (16, POD6 + TO6)):
            named = []
            for name in GRANT_SETS:
                if (size == 4) != name.endswith("4"):
                    continue
                for number in (1, 6, 17, 58, 132):
                    rest = bytes((number, 0, 0, 0)) + (b"" if "protocol" in name else b"\x10\0\0\0")
                    named.append(KEYS.grant(name, pair if "all" in name else pair + rest))
            assert len(set(named)) == len(named) - 4  # of the set of pairs, all five are one element

    @pytest.mark.parametrize(
        "key",
        [
            b"",
            b"nameward:default:{node-a}:grant:10.0.0.1:203.0.113.7:tcp",
            b"nameward:default:{node-a}:grant:10.0.0.1:203.0.113.7:tcp:443\n",
            b"nameward:default:{node-a}:grant:10.0.0.01:203.0.113.7:tcp:443",
            b"nameward:default:{node-a}:grant:[10.0.0.1]:203.0.113.7:tcp:443",
            b"nameward:default:{node-a}:grant:2a00:1::2:203.0.113.7:tcp:443",
            b"nameward:default:{node-a}:grant:[2A00:1::2]:[2001:db8::7]:tcp:443",
            b"nameward:default:{node-a}:pod:10.0.0.1:x",
            b"nameward:default:{node-a}:node:x",
            b"nameward:default:{NODE}:node",
            b"nameward:default:{a}b}:node",
            b"nameward:default:{node-a}:node\xff",
            b"nameward:default:{node-a}:" + b"x" * 10_000,
        ],
    )
    def test_what_nobody_would_write(self, key: bytes) -> None:
        """Is no key."""
        with pytest.raises(ValueError, match=r"no key of|longer|not how|ascii|appear"):
            place_of(key)


class TestSeal:
    """The MAC."""

    def test_what_it_is_made_over(self) -> None:
        """HMAC-SHA-256 of key and sorted pairs as Redis would be told them, 16 octets of it."""
        said = b"$1\r\nk\r\n$1\r\na\r\n$2\r\nxy\r\n$1\r\nv\r\n$1\r\n1\r\n"
        expected = hmac.new(b"s", said, hashlib.sha256).hexdigest()[:32].encode()
        assert seal.seal(Keyring(b"s"), b"k", {b"v": b"1", b"a": b"xy"}) == expected

    @given(st.binary(min_size=1, max_size=200), st.binary(max_size=300))
    def test_it_is_the_standard_one(self, key: bytes, said: bytes) -> None:
        """For keys of any length."""
        assert Keyring(key).mac(said) == hmac.digest(key, said, "sha256").hex()[:32].encode()

    fields = st.dictionaries(
        st.binary(max_size=6).filter(lambda name: name not in {b"v", b"mac"}),
        st.binary(max_size=6),
        max_size=4,
    )

    @given(fields, fields, st.binary(max_size=8), st.binary(max_size=8))
    def test_any_change_shows(
        self, one: dict[bytes, bytes], other: dict[bytes, bytes], key: bytes, other_key: bytes
    ) -> None:
        """Of a name, a value, the number of fields, or the key it lies under."""
        record = {**one, b"v": b"1"}
        mac = seal.seal(RING, key, record)
        seal.check(RING, key, {**record, b"mac": mac})
        if (key, one) != (other_key, other):
            with pytest.raises(NotBelieved) as doubt:
                seal.check(RING, other_key, {**other, b"v": b"1", b"mac": mac})
            assert doubt.value.reason == "mac"

    @given(st.binary(min_size=1, max_size=40), st.data())
    def test_any_letter_shows(self, value: bytes, data: st.DataObject) -> None:
        """One bit of a value or of the MAC."""
        record = seal.sealed(RING, b"k", {"a": value.hex()})
        name = data.draw(st.sampled_from([b"a", b"mac"]))
        at, bit = data.draw(st.integers(0, len(record[name]) - 1)), data.draw(st.integers(0, 7))
        changed = bytearray(record[name])
        changed[at] ^= 1 << bit
        with pytest.raises(NotBelieved):
            seal.check(RING, b"k", {**record, name: bytes(changed)})

    def test_parts_cannot_move(self) -> None:
        """What a value takes from its name, or from the next field, is another record."""
        mac = seal.seal(RING, b"k", {b"ab": b"c", b"v": b"1"})
        for forged in ({b"a": b"bc"}, {b"abc": b""}, {b"ab": b"c\r\n$1\r\nv\r\n$1\r\n1"}):
            with pytest.raises(NotBelieved):
                seal.check(RING, b"k", {**forged, b"v": b"1", b"mac": mac})

    def test_a_version_of_others(self) -> None:
        """Is not looked at further; no version at all is no record."""
        record = seal.sealed(RING, b"k", {"a": "b"})
        for version, reason in ((b"2", "version"), (None, "malformed")):
            changed = {**record, b"v": version} if version else {b"mac": record[b"mac"]}
            with pytest.raises(NotBelieved) as doubt:
                seal.check(RING, b"k", changed)  # type: ignore[arg-type]
            assert doubt.value.reason == reason

    def test_unknown_fields_are_kept_and_sealed(self) -> None:
        """A newer program's field does not hurt, and cannot be put in by others."""
        record = seal.sealed(RING, b"k", {"a": "b", "newer": "c"})
        assert seal.believed(RING, b"k", record)["newer"] == "c"
        with pytest.raises(NotBelieved):
            seal.believed(RING, b"k", {**record, b"more": b"d"})

    def test_rotation(self) -> None:
        """While keys are changed, both are believed; afterwards the old one is not."""
        old, both, new = Keyring(b"old"), Keyring(b"new", b"old"), Keyring(b"new")
        by_old, by_both = seal.sealed(old, b"k", {"a": "b"}), seal.sealed(both, b"k", {"a": "b"})
        seal.check(both, b"k", by_old)
        seal.check(both, b"k", by_both)
        seal.check(new, b"k", by_both)
        seal.check(Keyring(b"old", b"new"), b"k", by_both)
        with pytest.raises(NotBelieved):
            seal.check(new, b"k", by_old)
        assert both != new
        assert Keyring(b"new") == new

    @pytest.mark.parametrize(
        "fields",
        [
            {b"%d" % each: b"" for each in range(70)},
            {b"a": b"x" * 70_000},
            {b"x" * 70_000: b"a"},
        ],
    )
    def test_what_is_too_large(self, fields: dict[bytes, bytes]) -> None:
        """Is not even hashed."""
        record = {**fields, b"v": b"1"}
        record[b"mac"] = seal.seal(RING, b"k", record)
        with pytest.raises(NotBelieved) as doubt:
            seal.check(RING, b"k", record)
        assert doubt.value.reason == "malformed"

    def test_not_text(self) -> None:
        """Octets that are no UTF-8 are malformed, also with a seal."""
        record = {b"a": b"\xff", b"v": b"1"}
        record[b"mac"] = seal.seal(RING, b"k", record)
        with pytest.raises(NotBelieved) as doubt:
            seal.believed(RING, b"k", record)
        assert doubt.value.reason == "malformed"


shared_reasons = st.lists(
    st.builds(SharedReason, hostile, hostile, hostile, tenths), min_size=0, max_size=5
).map(lambda listed: tuple(sorted(listed, key=lambda each: (-each.remaining_s, each))))
names = st.lists(hostile.filter(bool), max_size=5).map(tuple)
lines = st.lists(hostile.map(lambda text: " ".join(text.split())).filter(bool), max_size=5).map(tuple)
upstreams = st.lists(st.builds(SharedUpstream, hostile, st.booleans(), tenths), max_size=3).map(tuple)
facts = st.builds(
    NodeFacts,
    version=hostile,
    generation=whole,
    policy_hash=hostile,
    pods=whole,
    grants=whole,
    started_at=hostile,
    enforcing=st.booleans(),
    policies=whole,
    rejected_policies=whole,
    pending=whole,
    last_realized_at=hostile,
    problems=lines,
    upstreams=upstreams,
)


class TestRecords:
    """Values and fields."""

    @given(elements(), shared_reasons, st.integers(0, 9), st.data())
    def test_grant(
        self, element: tuple[str, bytes], reasons: tuple[SharedReason, ...], more: int, data: st.DataObject
    ) -> None:
        """Reads back as it was, whatever its texts."""
        key = KEYS.grant(*element)
        place = place_of(key)
        texts = [data.draw(hostile) for _ in range(5)]
        record = GrantRecord(
            *place[3:], *texts[:3], "node-a", reasons, more, data.draw(whole), texts[3], texts[4]
        )
        fields = record.fields()
        assert list(fields) == sorted(fields)
        assert formats.grant_from(key, fields) == record

    @given(v4 | v6, names, names, hostile, hostile)
    def test_pod(
        self, address: bytes, groups: tuple[str, ...], policies: tuple[str, ...], uid: str, name: str
    ) -> None:
        """Reads back as it was."""
        record = PodRecord(from_packed(address), "mcp", name, uid, "node-a", groups, policies, "s")
        assert formats.pod_from(KEYS.pod(address), record.fields()) == record

    @given(facts, whole, hostile)
    def test_node(self, said: NodeFacts, beat: int, text: str) -> None:
        """Reads back as it was."""
        record = NodeRecord("node-a", text, beat, text, text, said)
        assert formats.node_from(KEYS.heartbeat, record.fields()) == record

    @given(st.lists(hostile, min_size=13, max_size=13), st.none() | st.integers(0, 65535), whole, whole)
    def test_blocked(self, texts: list[str], port: int | None, times: int, seq: int) -> None:
        """Reads back as it was."""
        kind, namespace, pod, pod_ip, name, qtype, address, protocol, reason, policy, rule, at, session = (
            texts
        )
        record = BlockedRecord(
            kind, "node-a", namespace, pod, pod_ip, name, qtype, address, port, protocol, reason, policy,
            rule, at, times, session, seq,
        )  # fmt: skip
        assert formats.blocked_from(KEYS.blocked, record.fields()) == record

    def test_a_grant_is_read_by_people(self) -> None:
        """Plain words, in a value that Redis keeps small."""
        reason = SharedReason("api.example.com", "mcp/web", "allow", 59.94)
        assert _grant((reason,)).fields()[b"reasons"] == b"api.example.com mcp/web/allow 59.9"

    def test_names_as_obots_provider_makes_them_are_compact(self) -> None:
        """No value beyond what Redis keeps compactly by its default: half the memory."""
        policy, rule = "obot-mcp/obot-mnp-ms1crm7k-fw", "allow-approved-egress"
        record = _grant((SharedReason("api.crm-production.example.com", policy, rule, 118.2),))
        assert max(map(len, record.fields().values())) <= 64
        assert formats.grant_from(_key(), record.fields()) == record

    def test_many_reasons(self) -> None:
        """Are cut to a bound, those that end first, and how many went is said."""
        many = tuple(SharedReason("n" * 100, "mcp/web", f"r{each}", 100.0 - each) for each in range(64))
        record = _grant(many)
        fields = record.fields()
        assert len(fields[b"reasons"]) < 4100
        read = formats.grant_from(_key(), fields)
        assert read.reasons == many[: len(read.reasons)]
        assert len(read.reasons) + read.more == 64

    def test_many_problems(self) -> None:
        """Are cut to a bound; one that is too long shows its beginning."""
        said = _facts(problems=("é" * 5000, "second\nline", *("x" * 500 for _ in range(9))))
        fields = NodeRecord("node-a", "s", 1, "c", "t", said).fields()
        assert len(fields[b"problems"]) <= 2000
        read = formats.node_from(KEYS.heartbeat, fields).facts.problems
        assert read[0] == "é" * 500
        assert read[1] == "second line"

    def test_reasons_run_while_their_grant_is_renewed(self) -> None:
        """The longest one has what the grant has, the others what passed less; what is over is gone."""
        reasons = [SharedReason("a", "p", "r", 60.0), SharedReason("b", "p", "r", 20.0)]
        assert [each.remaining_s for each in reasons_left(reasons, 50.0)] == [50.0, 10.0]
        assert [each.name for each in reasons_left(reasons, 30.0)] == ["a"]
        assert reasons_left(reasons[:1], 60.0)[0].remaining_s == 60.0
        assert reasons_left([], 1.0) == []

    @given(
        st.sampled_from(["grant", "pod", "node", "blocked"]),
        st.dictionaries(st.sampled_from(sorted(_FIELDS)), st.binary(max_size=12) | st.just(b"1")),
    )
    def test_no_octets_raise_anything_else(self, kind: str, fields: dict[bytes, bytes]) -> None:
        """A record that has a seal and no sense is malformed."""
        read = {
            "grant": lambda: formats.grant_from(_key(), fields),
            "pod": lambda: formats.pod_from(KEYS.pod(POD4), fields),
            "node": lambda: formats.node_from(KEYS.heartbeat, fields),
            "blocked": lambda: formats.blocked_from(KEYS.blocked, fields),
        }[kind]
        with pytest.raises(NotBelieved) as doubt:
            read()
        assert doubt.value.reason == "malformed"

    def test_a_record_of_another_node(self) -> None:
        """Under a key of this one is no record."""
        fields = _grant(()).fields()
        with pytest.raises(NotBelieved):
            formats.grant_from(_key(), {**fields, b"node": b"node-b"})
        with pytest.raises(NotBelieved):
            formats.grant_from(KEYS.heartbeat, fields)
        with pytest.raises(NotBelieved):
            formats.pod_from(b"foreign", fields)
