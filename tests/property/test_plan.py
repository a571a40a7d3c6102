"""Laws of plans and revisions: nothing from equal to equal, and applying a plan gives what was wanted."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from enforcer.elements import Add, Change, Element, Remove
from enforcer.plan import node_plan
from policy.rules import Policy
from tests.enforcer.rig import Rig, permit, policy

Sets = dict[str, dict[bytes, Element]]


def _sets(chosen: dict[str, dict[bytes, bytes]]) -> Sets:
    return {
        name: {key: Element(name, key, end) for key, end in keys.items()} for name, keys in chosen.items()
    }


sets = st.dictionaries(
    st.sampled_from(["governed4", "podsrc4", "cluster4", "static4"]),
    st.dictionaries(st.binary(min_size=1, max_size=2), st.sampled_from([b"", b"\xf0", b"\xff"]), max_size=5),
).map(_sets)


def _applied(plan: list[Change], installed: Sets) -> Sets:
    after = {name: dict(keys) for name, keys in installed.items()}
    for change in plan:
        if isinstance(change, Remove):
            del after[change.set][change.key]
        elif isinstance(change, Add):
            assert change.element.key not in after.setdefault(change.element.set, {})
            after[change.element.set][change.element.key] = change.element
    return {name: keys for name, keys in after.items() if keys}


@given(sets)
def test_the_plan_from_a_state_to_itself_is_empty(state: Sets) -> None:
    """plan(d, d) is nothing to do."""
    assert node_plan(state, state) == []


@given(sets, sets)
def test_applying_the_plan_gives_what_was_wanted(desired: Sets, installed: Sets) -> None:
    """No removal of what is not there, no addition of what is, and the result is the desired state."""
    wanted = {name: keys for name, keys in desired.items() if keys}
    assert _applied(node_plan(desired, installed), installed) == wanted


NAMES = ["a.example.org", "b.example.org", "c.example.net"]
ports = st.sampled_from([(443, 443), (80, 80), (400, 500), (1, 65535), (0, 65535), (8000, 8010)])
rules = st.lists(st.tuples(st.sampled_from([*NAMES, "*.example.org"]), ports), min_size=1, max_size=3)
requests = st.lists(
    st.tuples(st.sampled_from(NAMES), st.integers(1, 4), st.integers(0, 60), st.integers(0, 90)), max_size=6
)


def _policies(chosen: list[tuple[str, tuple[int, int]]]) -> Policy:
    return policy(
        *(
            permit(name, first=first, last=last, name=f"r{i}")
            for i, (name, (first, last)) in enumerate(chosen)
        )
    )


@settings(max_examples=60, deadline=None)
@given(rules, rules, requests, st.sampled_from(["cut", "keep"]), st.booleans())
def test_after_any_change_only_what_is_permitted_is_open(
    before: list[tuple[str, tuple[int, int]]],
    after: list[tuple[str, tuple[int, int]]],
    asked: list[tuple[str, int, int, int]],
    on_revoke: str,
    restarts: bool,
) -> None:
    """Whatever was asked and whatever changed: kernel and ledger agree, all that is open is permitted,
    a second look changes nothing, and a restart in between makes no difference to it."""
    with tempfile.TemporaryDirectory() as folder:
        rig = Rig(Path(folder), per_pod=5000, total=5000).settled_with(_policies(before))
        for name, last_octet, ttl_s, pause_s in asked:
            rig.ask(name, f"8.8.8.{last_octet}", ttl_s=ttl_s)
            rig.clock.at += pause_s
        if restarts:
            rig = rig.killed().begin()
        rig.reconciler.on_revoke = on_revoke  # type: ignore[assignment]
        snapshot = rig.apply(_policies(after))
        rig.run_threads()
        _agree(rig)
        for account in rig.ledger.accounts.values():
            pod = snapshot.pod(account.identity.key)
            assert pod is not None
            for holding in account.holdings():
                if holding.until <= rig.clock():
                    continue
                opens = holding.opens
                for reason in holding.reasons:
                    permits = snapshot.access(pod, reason.name).at(opens.destination).permits
                    assert any(
                        each.protocol == "any"
                        or (each.protocol == opens.protocol and each.first <= opens.first)
                        for each in permits
                    )
        commits = len(rig.kernel.commits)
        rig.apply(_policies(after), private_zones=("other.internal",))
        assert len(rig.kernel.commits) == commits
        rig.journal.close()


def _agree(rig: Rig) -> None:
    """The ledger holds exactly what the kernel holds."""
    now = rig.clock()
    holdings = [each for account in rig.ledger.accounts.values() for each in account.holdings()]
    assert rig.ledger.count == len(holdings)
    assert rig.live_now() == {each.key[:2] for each in holdings}
    assert rig.open_now() == {each.key[:2] for each in holdings if each.until > now}
