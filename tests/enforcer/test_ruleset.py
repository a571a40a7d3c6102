"""The ruleset's text: golden files per layout, each one the kernel accepts, none that grows."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import msgspec
import pytest

from enforcer.elements import GRANT_SETS, GUARD_SETS, LIVE_SETS, NODE_SETS, PREFIX_SETS, RANGE_SETS
from enforcer.ruleset import COUNTERS, GUARD_TABLE, TABLE, Layout, guard, remove, structure
from enforcer.witness import SEEN_SETS

GOLDEN = Path(__file__).parent.parent / "golden"
LAYOUTS = {
    "default": Layout(),
    "govern": Layout(cluster_traffic="govern"),
    "allow-unknown": Layout(unknown_pods="allow"),
    "no-capture": Layout(capture=False),
    "rewrite": Layout(capture_by="rewrite", rewrite_to=("45.1.0.1", "2600:1::1")),
    "rewrite-redirect": Layout(capture_by="rewrite"),
    "names": Layout(pod_interface_kinds=(), pod_interface_names=("eni*", "cali*", "cni0")),
    "mixed": Layout(
        pod_interface_names=("cni0",), nflog_group=7, resolver_uid=990, dns_port=10053, grants=1000
    ),
}


def text_of(case: str) -> str:
    """Both tables of one layout."""
    return structure(LAYOUTS[case]) + guard(LAYOUTS[case])


@pytest.mark.parametrize("case", LAYOUTS)
def test_the_text_is_the_golden_one(case):
    """A change of the ruleset is seen in review (NAMEWARD_WRITE_GOLDEN=1 writes the files anew)."""
    path = GOLDEN / f"{case}.nft"
    if os.environ.get("NAMEWARD_WRITE_GOLDEN"):
        path.write_text(text_of(case))
    assert path.read_text() == text_of(case)


@pytest.mark.kernel
@pytest.mark.parametrize("case", LAYOUTS)
def test_the_kernel_accepts_the_golden_text(case):
    """``nft -c`` in a network namespace of its own, twice: it replaces itself."""
    subprocess.run(
        ["unshare", "-n", "nft", "-c", "-f", str(GOLDEN / f"{case}.nft")], check=True, capture_output=True
    )


def sets_of(text: str) -> dict[str, str]:
    """Set name → its definition."""
    return {line.split()[1]: line for line in map(str.strip, text.splitlines()) if line.startswith("set ")}


def test_every_set_that_elements_name_is_there_and_no_other():
    """Elements and structure agree, in both tables."""
    dynamic = {"talkative", "talkers4", "talkers6", "settled", *SEEN_SETS}
    assert set(sets_of(structure(Layout()))) == {*GRANT_SETS, *LIVE_SETS, *NODE_SETS, *dynamic}
    assert set(sets_of(guard(Layout()))) == set(GUARD_SETS)


def test_interval_sets_hold_static_permits_and_cidrs_only():
    """No grant ever costs what an interval set costs."""
    intervals = {name for name, line in sets_of(structure(Layout())).items() if "interval" in line}
    assert intervals == RANGE_SETS | PREFIX_SETS


def test_no_rule_of_the_packet_path_writes_a_set_that_opens():
    """What packets update cannot be revoked: the log's limits alone, and what no rule looks up."""
    lines = text_of("default").splitlines()
    for line in lines:
        if "update @" in line or "add @" in line:
            assert re.search("update @(talk|met[46]|untracked[46])", line)
        if "dynamic" in line:
            assert line.split()[1].startswith("talk") or line.split()[1] in SEEN_SETS
    looked_up = [line for line in lines if re.search("@(met|untracked)[46]", line) and "update @" not in line]
    assert looked_up == []


def test_each_table_owns_its_name_alone():
    """Nothing of anybody else's is named, and nothing is flushed."""
    for case in LAYOUTS:
        text = text_of(case)
        assert "flush" not in text
        tables = set(re.findall(r"^(?:delete )?table inet (\S+)", text, re.MULTILINE))
        assert tables == {TABLE, GUARD_TABLE}
    assert remove().splitlines() == [f"table inet {TABLE}", f"delete table inet {TABLE}"]


def test_counters_are_those_that_are_named():
    """Metrics read what the rules count."""
    text = structure(Layout())
    for name in COUNTERS:
        assert f"counter {name} {{ }}" in text
        assert f'counter name "{name}"' in text


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("pod_interface_names", ('eth0" drop; "',)),
        ("pod_interface_names", ("*",)),
        ("pod_interface_names", ("name-longer-than-ifnamsiz",)),
        ("pod_interface_kinds", ("veth\n",)),
        ("pod_interface_kinds", ()),
        ("resolver_uid", 0),
        ("nflog_group", 65536),
        ("rewrite_to", ("45.1.0.1; accept",)),
    ],
)
def test_a_layout_that_would_open_the_node_is_refused(field, value):
    """Names that break out of the text, patterns that match everything, root as the fenced user."""
    with pytest.raises(ValueError, match=r"podInterfaces|uid|nflogGroup|does not appear"):
        msgspec.structs.replace(Layout(), **{field: value})


@pytest.mark.parametrize("case", LAYOUTS)
def test_no_rule_needs_the_names_of_protocols(case):
    """Protocols are numbers: without /etc/protocols (netbase) nft knows no name of one."""
    text = text_of(case)
    assert re.findall(r"l4proto (?:!= )?(?:\{[^}]*[a-z][^}]*\}|[a-z]\w*)", text) == []


def test_no_live_set_is_allotted_whole():
    """A size on a set without timeouts is memory taken at once: 16 MB each at a million grants."""
    lives = re.findall(r"set live\w+ \{[^}]*\}", structure(Layout()))
    assert len(lives) == 10
    assert not any("size" in each for each in lives)


def test_the_guard_tells_of_what_pods_send_alone():
    """What comes to a pod while the policy table is away is dropped in silence: it is not the pod's doing."""
    for line in guard(Layout()).splitlines():
        if "daddr @governed" in line:
            assert "leak" not in line
            assert line.endswith("drop")


def _chain(text: str, name: str) -> list[str]:
    """Rules of a chain, in their order."""
    body = text.split(f"  chain {name} {{\n", 1)[1].split("\n  }", 1)[0]
    return [line.strip() for line in body.splitlines() if "type filter hook" not in line]


@pytest.mark.parametrize("case", LAYOUTS)
def test_a_packet_of_a_live_flow_meets_few_rules(case):
    """Counted: what stands before the source is known, and before the flow is known to be live."""
    text = structure(LAYOUTS[case])
    source = [rule for rule in _chain(text, "prerouting") if "@podsrc4" in rule]
    assert _chain(text, "prerouting")[0] == source[0]
    known = len(source) * 2
    assert _chain(text, "prerouting")[known] == "iifname @uplinks goto outside"
    assert len(_chain(text, "outside")) == 2
    forward = _chain(text, "forward")
    place = next(number for number, rule in enumerate(forward) if "jump opened4" in rule)
    assert forward[:place] == ["meta nfproto != @settled goto unsettled"]
    assert len(_chain(text, "opened4")) == 2
    assert _chain(text, "pass")[-1] == "accept"


@pytest.mark.parametrize("case", LAYOUTS)
def test_the_short_way_asks_for_a_flow_that_was_let_pass(case):
    """A live element alone begins no flow, and a second governed pod has a say of its own."""
    text = structure(LAYOUTS[case])
    for v, ip in ((4, "ip"), (6, "ip6")):
        ways = [rule for rule in _chain(text, "forward") if f"jump opened{v}" in rule]
        assert len(ways) == 1
        assert " ct status confirmed " in ways[0]
        assert _chain(text, f"opened{v}") == [
            f"ct direction original {ip} daddr != @governed{v} goto pass",
            f"ct direction reply {ip} saddr != @governed{v} goto pass",
        ]
