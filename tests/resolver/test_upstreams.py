"""Forwarding, sans-I/O: whom it asks, what it believes, when it gives up."""

from __future__ import annotations

import random

import pytest

from policy.runtime.kinds import Upstream
from resolver import upstream_wire
from resolver.effects import AskUpstream
from resolver.health import FAILURES_TO_UNHEALTHY, PROBE_EVERY_S, shown
from resolver.upstreams import MAX_QUESTIONS, Answered, Cancel, Failed, Forwarding, Send

ONE = Upstream("192.0.2.1", 53, tls=False, name="")
TWO = Upstream("2001:db8::2", 53, tls=False, name="")
TLS = Upstream("192.0.2.9", 853, tls=True, name="dns.example")
NAME = b"\x03api\x07example\x03com\x00"


def forwarding(*group, cluster=()):
    """Return a forwarding with these upstreams and reproducible randomness."""
    return Forwarding({"outside": group, "cluster": cluster}, random.Random(7))


def question(number=1, *, group="outside", deadline_at=2.0, do=False):
    """Return a question of the core for api.example.com A."""
    return AskUpstream(number, NAME, 1, do, group, deadline_at=deadline_at)


def answer(attempt, *, flags=0x8180, message_id=None, section=None, rest=b"rest"):
    """Return a response to the attempt, right unless told otherwise."""
    message_id = attempt.id if message_id is None else message_id
    header = message_id.to_bytes(2, "big") + flags.to_bytes(2, "big") + b"\0\1\0\0\0\0\0\0"
    return header + (attempt.question if section is None else section) + rest


def sent(steps):
    """Return the attempts that the steps send."""
    return [step.attempt for step in steps if isinstance(step, Send)]


def test_a_question_is_built_afresh():
    """Own id, RD=1, CD=0, our OPT of 1232 octets; DO only where asked; the name in random case."""
    state = forwarding(ONE)
    (attempt,) = sent(state.ask(question(1), 0.0))
    (with_do,) = sent(state.ask(question(2, do=True), 0.0))
    assert attempt.wire[2:12] == b"\x01\x00\x00\x01\x00\x00\x00\x00\x00\x01"
    assert attempt.wire[12 : 12 + len(NAME)].lower() == NAME
    assert attempt.wire[12 + len(NAME) :] == b"\0\1\0\1" + b"\0\0\x29\x04\xd0\0\0\0\0\0\0"
    assert with_do.wire[-6:] == b"\0\0\x80\0\0\0"
    assert attempt.id != with_do.id
    assert attempt.question != with_do.question


def test_every_case_of_every_letter_occurs_and_nothing_else_changes():
    """0x20 touches letters only: digits, hyphens and length octets stay."""
    name = b"\x07a-9z_k1\x00"
    seen = {upstream_wire.question_section(name, 16, random.Random(seed)) for seed in range(200)}
    assert len(seen) == 2**3
    assert all(section.lower() == name + b"\0\x10\0\1" for section in seen)


def test_an_answer_ends_the_question():
    """What matches is handed on with the question in lower case; the socket is closed."""
    state = forwarding(ONE)
    (attempt,) = sent(state.ask(question(), 0.0))
    steps = state.datagram_received(attempt, answer(attempt), 0.02)
    assert steps == [Cancel(attempt), Answered(1, answer(attempt, section=NAME + b"\0\1\0\1"))]
    assert state.open_count == 0
    assert state.datagram_received(attempt, answer(attempt), 0.03) == []
    assert state.states()[0].latency_ms == pytest.approx(20)


def swapped(section):
    """Return the section with the case of its first letter turned."""
    return section[:1] + bytes((section[1] ^ 0x20,)) + section[2:]


@pytest.mark.parametrize(
    "forged",
    [
        lambda attempt: answer(attempt, message_id=attempt.id ^ 1),
        lambda attempt: answer(attempt, section=swapped(attempt.question)),
        lambda attempt: answer(attempt, section=attempt.question[:-4] + b"\0\x1c\0\1"),
        lambda attempt: answer(attempt, flags=0x0100),
        lambda attempt: answer(attempt, flags=0xA980),
        lambda attempt: b"",
        lambda attempt: b"\0",
        lambda attempt: attempt.id.to_bytes(2, "big") + b"\x81\x80",
        lambda attempt: answer(attempt)[:20],
    ],
    ids=["id", "case", "type", "query", "opcode", "empty", "octet", "stub", "half"],
)
def test_a_mismatch_moves_the_question_to_tcp(forged):
    """Wrong id, wrong case, wrong question, no response, garbage: no more UDP for this question."""
    state = forwarding(ONE)
    (attempt,) = sent(state.ask(question(), 0.0))
    steps = state.datagram_received(attempt, forged(attempt), 0.01)
    assert steps[0] == Cancel(attempt)
    (again,) = sent(steps)
    assert again.stream
    assert again.upstream == ONE
    assert state.datagram_received(attempt, answer(attempt), 0.02) == []
    assert Answered(1, answer(again, section=NAME + b"\0\1\0\1")) in state.stream_received(
        ONE, answer(again), 0.03
    )


def test_truncation_moves_the_question_to_tcp():
    """TC is an answer that has to be asked for again by TCP (RFC 7766, 5)."""
    state = forwarding(ONE)
    (attempt,) = sent(state.ask(question(), 0.0))
    (again,) = sent(state.datagram_received(attempt, answer(attempt, flags=0x8380), 0.01))
    assert again.stream


def test_silence_asks_the_next_and_a_late_answer_still_counts():
    """After the wait another upstream is asked; whoever answers first ends it for both."""
    state = forwarding(ONE, TWO)
    (first,) = sent(state.ask(question(), 0.0))
    assert state.next_deadline() == pytest.approx(0.4)
    (second,) = sent(state.deadline_passed(0.41))
    assert (first.upstream, second.upstream) == (ONE, TWO)
    steps = state.datagram_received(first, answer(first), 0.5)
    assert {step.attempt for step in steps if isinstance(step, Cancel)} == {first, second}
    assert isinstance(steps[-1], Answered)


def test_what_was_answered_has_no_deadline():
    """A question that has ended wakes nobody."""
    state = forwarding(ONE)
    (attempt,) = sent(state.ask(question(), 0.0))
    state.datagram_received(attempt, answer(attempt), 0.01)
    assert state.next_deadline() is None


def test_silence_of_all_fails_at_the_deadline():
    """22, and every socket is closed; tries are bounded."""
    state = forwarding(ONE)
    attempts = sent(state.ask(question(), 0.0))
    now = 0.0
    ended = []
    while state.open_count:
        now = state.next_deadline()
        steps = state.deadline_passed(now)
        attempts += sent(steps)
        ended += steps
    assert now == 2.0
    assert ended[-1] == Failed(1, 22)
    assert 3 <= len(attempts) <= 6
    assert not any(attempt.is_open for attempt in attempts)


def test_errors_go_to_the_next_at_once_and_fail_with_23():
    """A refused datagram needs no waiting; when all are refused the question fails at once."""
    state = forwarding(ONE, TWO)
    (first,) = sent(state.ask(question(), 0.0))
    steps = state.attempt_failed(first, 0.001)
    (second,) = sent(steps)
    assert second.upstream == TWO
    assert state.attempt_failed(second, 0.002)[-1] == Failed(1, 23)


def test_a_servfail_is_kept_while_another_is_asked():
    """SERVFAIL, REFUSED, NOTIMP, FORMERR: another may know better; if none does, it is the answer."""
    state = forwarding(ONE, TWO)
    (first,) = sent(state.ask(question(), 0.0))
    steps = state.datagram_received(first, answer(first, flags=0x8182), 0.01)
    (second,) = sent(steps)
    assert second.upstream == TWO
    final = state.datagram_received(second, answer(second, flags=0x8185), 0.02)[-1]
    assert isinstance(final, Answered)
    assert final.wire[3] & 15 == 5


def test_nxdomain_is_an_answer():
    """Only failures are taken elsewhere."""
    state = forwarding(ONE, TWO)
    (first,) = sent(state.ask(question(), 0.0))
    assert isinstance(state.datagram_received(first, answer(first, flags=0x8183), 0.01)[-1], Answered)


def test_unhealthy_upstreams_come_last_and_are_probed():
    """After failures in a row the other is asked first; now and then both are."""
    state = forwarding(ONE, TWO)
    for number in range(FAILURES_TO_UNHEALTHY):
        (attempt,) = sent(state.ask(question(number), 0.0))
        assert attempt.upstream == ONE
        (other,) = sent(state.attempt_failed(attempt, 0.0))
        state.datagram_received(other, answer(other), 0.01)
    assert [one.healthy for one in state.states()] == [False, True]
    assert [one.upstream for one in sent(state.ask(question(10), 0.1))] == [TWO]
    main, probe = sent(state.ask(question(11), PROBE_EVERY_S + 0.1))
    assert (main.upstream, probe.upstream) == (TWO, ONE)
    assert isinstance(state.datagram_received(probe, answer(probe), PROBE_EVERY_S + 0.2)[-1], Answered)
    assert [one.healthy for one in state.states()] == [True, True]
    assert [one.upstream for one in sent(state.ask(question(12), PROBE_EVERY_S + 0.3))] == [ONE]


def test_slow_names_do_not_make_a_server_unhealthy():
    """Silence counts only where nothing else was heard meanwhile: a pod cannot turn servers off."""
    state = forwarding(ONE, TWO)
    for number in range(10):
        state.ask(question(100 + number), number * 0.5)
        (good,) = sent(state.ask(question(number, deadline_at=9), number * 0.5))
        state.datagram_received(good, answer(good), number * 0.5 + 0.01)
        state.deadline_passed(number * 0.5 + 0.45)
    assert state.states()[0].healthy


def test_tls_upstreams_are_never_asked_by_datagram():
    """``tls://`` means the stream from the first try on."""
    (attempt,) = sent(forwarding(TLS).ask(question(), 0.0))
    assert attempt.stream


def test_streams_tell_late_answers_from_nonsense():
    """An unknown id is late; a wrong question or a short message ends the stream."""
    state = forwarding(TLS)
    (attempt,) = sent(state.ask(question(), 0.0))
    assert state.stream_received(TLS, answer(attempt, message_id=attempt.id ^ 5), 0.1) == []
    assert state.stream_received(TLS, answer(attempt, section=b"\x01x\0\0\1\0\1"), 0.1) is None
    assert state.stream_received(TLS, b"\0\1", 0.1) is None
    lower = answer(attempt, section=NAME + b"\0\1\0\1")
    assert state.stream_received(TLS, lower, 0.1)[-1] == Answered(1, lower)


def test_a_stream_that_had_served_is_tried_once_more():
    """An idle stream that its server closes costs no question (RFC 7766, 6.2.4); twice is a failure."""
    state = forwarding(TLS)
    (attempt,) = sent(state.ask(question(), 0.0))
    (again,) = sent(state.stream_lost(attempt, 0.1))
    assert again.upstream == TLS
    assert state.stream_lost(again, 0.2)[-1] == Failed(1, 23)


def test_groups_do_not_mix():
    """A cluster name never goes outside, and a group without upstreams fails at once."""
    state = forwarding(ONE, cluster=(TWO,))
    assert sent(state.ask(question(1, group="cluster"), 0.0))[0].upstream == TWO
    assert forwarding(ONE).ask(question(1, group="cluster"), 0.0) == [Failed(1, 22)]


def test_open_questions_are_bounded():
    """Beyond the bound a question fails at once instead of taking a socket."""
    state = forwarding(ONE)
    for number in range(MAX_QUESTIONS):
        state.ask(question(number), 0.0)
    assert state.ask(question(MAX_QUESTIONS), 0.0) == [Failed(MAX_QUESTIONS, 22)]


def test_a_reload_keeps_the_health_of_what_stays():
    """New groups apply to the next question; latency of a kept upstream is not forgotten."""
    state = forwarding(ONE)
    (attempt,) = sent(state.ask(question(), 0.0))
    state.datagram_received(attempt, answer(attempt), 0.05)
    state.use({"outside": (TWO, ONE), "cluster": ()})
    assert [(one.address, one.latency_ms) for one in state.states()] == [
        ("2001:db8::2", 0.0),
        ("192.0.2.1", 50.0),
    ]


@pytest.mark.parametrize(
    ("upstream", "text"),
    [
        (ONE, "192.0.2.1"),
        (TLS, "tls://192.0.2.9"),
        (Upstream("2001:db8::1", 5353, tls=False, name=""), "[2001:db8::1]:5353"),
        (Upstream("192.0.2.1", 8853, tls=True, name="x.y"), "tls://192.0.2.1:8853"),
    ],
)
def test_upstreams_are_shown_as_they_are_written(upstream, text):
    """Usual ports are left out."""
    assert shown(upstream) == text
