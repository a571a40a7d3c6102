"""Laws of putting manifests together step by step: whatever came before, the outcome is the whole's."""

from __future__ import annotations

import json

from hypothesis import given, settings
from hypothesis import strategies as st

from policy.manifest import FileRead, GovernedNamespaces, Loaded, assemble, read_file
from policy.manifest_assembly import Assembly

GOVERNED = GovernedNamespaces(names=("always",), match_labels={"governed": "yes"})
NAMESPACES = st.sampled_from(["a", "b", "always"])


def _object(kind: str, namespace: str, name: str, **more: object) -> dict[str, object]:
    api = "networking.aviatrix.com/v1alpha1" if kind == "FirewallPolicy" else "v1"
    return {"apiVersion": api, "kind": kind, "metadata": {"namespace": namespace, "name": name}, **more}


def _policy(namespace: str, name: str, selector: dict[str, object], domain: str) -> dict[str, object]:
    rule = {
        "name": "r", "action": "permit", "selector": selector, "protocol": "tcp", "port": 443,
        "destinationSmartGroups": [{"name": "to"}], "webGroups": [{"name": "web"}],
    }  # fmt: skip
    spec = {
        "smartGroups": [{"name": "to", "selectors": [{"cidr": "0.0.0.0/0"}]}],
        "webGroups": [{"name": "web", "domains": [domain]}],
        "rules": [rule],
    }
    return _object("FirewallPolicy", namespace, name, spec=spec)


def _namespace(name: str, governed: str) -> dict[str, object]:
    return {
        "apiVersion": "v1", "kind": "Namespace",
        "metadata": {"name": name, "labels": {"governed": governed}},
    }  # fmt: skip


def _pod(namespace: str, name: str, uid: int, last: int) -> dict[str, object]:
    found = _object("Pod", namespace, name, status={"podIP": f"10.0.0.{last}", "phase": "Running"})
    found["metadata"] = {"namespace": namespace, "name": name, "uid": f"u{uid}"}
    return found


objects = st.one_of(
    st.builds(
        _policy,
        NAMESPACES,
        st.sampled_from(["p", "q", "r", "s", "t"]),
        st.sampled_from([{"matchLabels": {"app": "x"}}, {"service": "front"}]),
        st.sampled_from(["example.com", "*.example.org", "not a name"]),
    ),
    st.builds(_policy, NAMESPACES, st.uuids().map(str), st.just({}), st.just("example.com")),
    st.builds(
        _pod, NAMESPACES, st.sampled_from(["m", "n", "o"]), st.integers(1, 9), st.integers(1, 9)
    ),
    st.builds(_pod, NAMESPACES, st.uuids().map(str), st.integers(10, 9999), st.integers(10, 255)),
    st.builds(_namespace, NAMESPACES, st.sampled_from(["yes", "no"])),
    st.builds(
        lambda namespace: _object("Service", namespace, "front", spec={"selector": {"app": "x"}}), NAMESPACES
    ),
    st.just({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}}),
)  # fmt: skip
files = st.builds(
    lambda listed: json.dumps({"apiVersion": "v1", "kind": "List", "items": listed}),
    st.lists(objects, min_size=1, max_size=2),
)


@st.composite
def histories(draw: st.DrawFn) -> list[list[FileRead]]:
    """Draw files that come, change and go, one or two at a time, as the lists of their readings."""
    names = [f"f{number}" for number in range(6)]
    now = {name: read_file(name, draw(files)) for name in names[:3]}
    found = [list(now.values())]
    for _ in range(draw(st.integers(1, 6))):
        for name in draw(st.lists(st.sampled_from(names), min_size=1, max_size=2)):
            if draw(st.sampled_from([True, True, False])):
                now[name] = read_file(name, draw(files))
            else:
                now.pop(name, None)
        found.append([now[name] for name in sorted(now)])
    return found


class _Asked:
    """Which namespaces are governed, and how often that was looked at."""

    match_labels = None

    def __init__(self) -> None:
        self.count = 0

    @property
    def names(self) -> tuple[str, ...]:
        self.count += 1
        return ("a",)


def test_a_change_costs_what_changed() -> None:
    """Among a hundred objects one that is edited and one that comes are all that is looked at."""
    reads = [read_file(f"f{n}", json.dumps(_policy("a", f"p{n}", {}, "example.com"))) for n in range(100)]
    asked = _Asked()
    assembly = Assembly(asked)
    assembly.assemble(reads)
    before, edited = asked.count, read_file("f7", json.dumps(_policy("a", "p7", {}, "example.org")))
    loaded = assembly.assemble([*reads[:7], edited, *reads[8:]])
    assert loaded.policies[7].rules[0].web_groups == ("example.org",)
    loaded = assembly.assemble(
        [*reads[:7], edited, *reads[8:99], read_file("g", json.dumps(_pod("a", "m", 1, 1)))]
    )
    assert (len(loaded.policies), len(loaded.pods)) == (99, 1)
    assert asked.count - before == 2


def said(loaded: Loaded) -> list[object]:
    """What was loaded, whatever the order of objects; findings of one place in any order."""
    return [
        sorted(loaded.policies, key=repr),
        sorted(loaded.pods, key=repr),
        loaded.services,
        loaded.namespaces,
        loaded.marks,
        sorted(loaded.findings, key=repr),
        [(each.file, each.document) for each in loaded.findings],
    ]


@settings(max_examples=150)
@given(histories())
def test_step_by_step_is_as_all_at_once(history: list[list[FileRead]]) -> None:
    """After each step the same objects and findings as without those before."""
    assembly = Assembly(GOVERNED)
    for reads in history:
        assert said(assembly.assemble(reads)) == said(assemble(reads, GOVERNED))


@given(histories())
def test_what_did_not_change_is_the_same_object(history: list[list[FileRead]]) -> None:
    """An object that is equal to the one of that name before is that one."""
    assembly = Assembly(GOVERNED)
    before: dict[tuple[str, str, str], object] = {}
    for reads in history:
        loaded = assembly.assemble(reads)
        now = {
            (type(each).__name__, each.namespace, each.name): each
            for each in (*loaded.policies, *loaded.pods)
        }
        for name, each in now.items():
            if name in before and before[name] == each:
                assert before[name] is each
        before = dict(now)
