"""A list kept up to date: whatever the server does, what the sink knows becomes what the server holds."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from enforcer.kube.client import Api
from enforcer.kube.reflector import Reflector
from tests.kube.script import Exchange, Json, ScriptedApi, eventually, status

PODS = "/api/v1/pods"
Name = tuple[str, str]


class Heard:
    """What a sink was told; ``names`` is what it then knows."""

    def __init__(self) -> None:
        self.names: dict[str, str] = {}
        self.calls: list[str] = []
        self.troubles: list[str | None] = []

    def replaced(self, items: list[Name], /) -> None:
        """See ``Sink``."""
        self.names = dict(items)
        self.calls.append("replaced")

    def changed(self, kind: str, item: Name, /) -> None:
        """See ``Sink``."""
        self.calls.append(f"{kind} {item[0]}")
        if kind == "DELETED":
            self.names.pop(item[0], None)
        else:
            self.names[item[0]] = item[1]

    def trouble(self, sentence: str | None, /) -> None:
        """See ``Sink``."""
        self.troubles.append(sentence)

    @property
    def in_trouble(self) -> bool:
        """What was said last."""
        return bool(self.troubles) and self.troubles[-1] is not None


def kept(fields: Json) -> Name:
    """An object's name and value."""
    return fields["metadata"]["name"], str(fields.get("value", ""))


def pod(name: str, value: str = "", node: str = "a") -> Json:
    """A pod's object."""
    return {"metadata": {"namespace": "n", "name": name}, "value": value, "spec": {"nodeName": node}}


Start = Callable[..., tuple[Reflector[Name], Heard]]


@pytest.fixture
def reflect(server: ScriptedApi) -> Iterator[Start]:
    """Start reflectors of the scripted server's pods; they end with the test."""
    server.serve(PODS)
    started: list[Reflector[Name]] = []

    def start(api: Api | None = None, **options: object) -> tuple[Reflector[Name], Heard]:
        heard = Heard()
        api = api or Api(server.access, timeout_s=2.0)
        reflector = Reflector[Name](api, PODS, heard, keep=kept, **options)  # type: ignore[arg-type]
        reflector.start()
        started.append(reflector)
        return reflector, heard

    yield start
    for reflector in started:
        reflector.stop()
    server.thaw()
    for reflector in started:
        reflector.stop(join_s=20)


def held(server: ScriptedApi) -> dict[str, str]:
    """What the server holds."""
    with server.changed:
        return dict(map(kept, server.collections[PODS].values()))


def settled(server: ScriptedApi, heard: Heard) -> None:
    """Wait until the sink knows exactly that."""
    eventually(
        lambda: heard.calls and heard.names == held(server) and not heard.in_trouble,
        "the sink is up to date",
    )


def test_a_list_then_changes(server: ScriptedApi, reflect: Start) -> None:
    """The first list may come from the server's cache; then every change in order."""
    server.put(PODS, pod("a"))
    _, heard = reflect()
    settled(server, heard)
    server.put(PODS, pod("b"))
    server.put(PODS, pod("a", "new"))
    server.delete(PODS, "n/b")
    eventually(lambda: len(heard.calls) == 4)
    assert heard.calls == ["replaced", "ADDED b", "MODIFIED a", "DELETED b"]
    assert [each.query["resourceVersion"] for each in server.lists(PODS)] == ["0"]
    assert heard.troubles == []


def test_a_watch_that_the_server_ends_goes_on(server: ScriptedApi, reflect: Start) -> None:
    """Its time is up, or it breaks: the next goes on from the last version, and nothing is listed again."""
    _, heard = reflect()
    settled(server, heard)
    for number in range(5):
        eventually(lambda number=number: len(server.watches()) > number)
        server.drop_watches()
        server.put(PODS, pod(f"p{number}"))
    settled(server, heard)
    assert heard.calls == ["replaced", *(f"ADDED p{number}" for number in range(5))]
    assert len(server.lists(PODS)) == 1


def test_gone_lists_again(server: ScriptedApi, reflect: Start) -> None:
    """After a compaction: what was deleted unseen is gone, and the list is not older than what was known."""
    server.put(PODS, pod("a"))
    server.put(PODS, pod("b"))
    _, heard = reflect()
    settled(server, heard)
    known = server.version
    server.lose_quietly(PODS, "n/a")
    server.forget_history()
    settled(server, heard)
    assert heard.names == {"b": ""}
    assert [each.query["resourceVersion"] for each in server.lists(PODS)] == ["0", str(known)]
    assert heard.troubles == []


def test_gone_while_watching_as_an_event(server: ScriptedApi, reflect: Start) -> None:
    """The server may say so within a watch that had begun well."""

    def gone(exchange: Exchange) -> bool:
        if not exchange.asked.is_watch or len(server.watches()) > 1:
            return False
        exchange.begin()
        exchange.chunk(b'{"type":"ERROR","object":{"code":410,"reason":"Expired","message":"too old"}}\n')
        exchange.chunk(b"")
        return True

    server.faults.append(gone)
    _, heard = reflect()
    eventually(lambda: heard.calls.count("replaced") == 2)
    server.put(PODS, pod("a"))
    settled(server, heard)


def test_a_restored_server_is_behind(server: ScriptedApi, reflect: Start) -> None:
    """After a restore its versions are lower than ours: it is asked for what there is now."""
    server.put(PODS, pod("a"))
    _, heard = reflect()
    settled(server, heard)
    server.version = 5
    server.events.clear()
    server.collections[PODS].clear()
    server.put(PODS, pod("z"))
    server.oldest = 10**9  # no version that we know can be watched
    server.drop_watches()
    eventually(lambda: len(server.lists(PODS)) >= 3)
    server.oldest = 0
    settled(server, heard)
    assert heard.names == {"z": ""}
    asked = [each.query.get("resourceVersion") for each in server.lists(PODS)]
    assert None in asked


@pytest.mark.parametrize(("code", "reason"), [(429, "TooManyRequests"), (500, "InternalError"), (503, "x")])
def test_an_overloaded_server_is_given_the_time_it_asks_for(
    server: ScriptedApi, reflect: Start, code: int, reason: str
) -> None:
    """Retry-After counts; what was known stays, and it is said why."""
    times: list[float] = []

    def busy(exchange: Exchange) -> bool:
        if exchange.asked.is_watch or len(times) >= 2:
            return False
        times.append(time.monotonic())
        exchange.answer(code, status(code, reason, "busy"), Retry_After="1")
        return True

    server.faults.append(busy)
    server.put(PODS, pod("a"))
    _, heard = reflect()
    settled(server, heard)
    assert times[1] - times[0] >= 1.0
    assert heard.troubles[-1] is None
    assert "busy" in str(heard.troubles[0])


def test_a_refused_watch_is_trouble_until_it_is_allowed(server: ScriptedApi, reflect: Start) -> None:
    """A role without the verb: lists alone would look well."""
    allowed = threading.Event()

    def forbid(exchange: Exchange) -> bool:
        if allowed.is_set() or not exchange.asked.is_watch:
            return False
        exchange.answer(403, status(403, "Forbidden", "cannot watch"))
        return True

    server.faults.append(forbid)
    _, heard = reflect()
    eventually(lambda: len(heard.troubles) >= 3)
    assert None not in heard.troubles
    allowed.set()
    settled(server, heard)


def test_a_server_that_goes_and_comes(server: ScriptedApi, reflect: Start) -> None:
    """What was known stays; when it is back, what happened meanwhile is heard."""
    server.put(PODS, pod("a"))
    _, heard = reflect()
    settled(server, heard)
    server.stop()
    eventually(lambda: heard.in_trouble)
    assert heard.names == {"a": ""}
    server.delete(PODS, "n/a")
    server.put(PODS, pod("b"))
    server.start()
    settled(server, heard)
    assert heard.names == {"b": ""}


def test_a_frozen_server(server: ScriptedApi, reflect: Start) -> None:
    """A silent watch ends, the next is not answered: that is said. Then it goes on."""
    _, heard = reflect(Api(server.access, timeout_s=0.3, silence_s=0.2))
    settled(server, heard)
    server.freeze()
    eventually(lambda: heard.in_trouble)
    server.thaw()
    server.put(PODS, pod("a"))
    settled(server, heard)


@pytest.mark.parametrize(
    "line",
    [
        b"<html>\n",
        b"[1]\n",
        b'{"type":"ADDED"}\n',
        b'{"type":"ADDED","object":{"metadata":{"name":"half',
        b'{"type":"EXPLODED","object":{}}\n',
    ],
)
def test_garbage_on_a_watch(server: ScriptedApi, reflect: Start, line: bytes) -> None:
    """It ends that watch; the next goes on, and half an event is never a whole one."""

    def garble(exchange: Exchange) -> bool:
        if not exchange.asked.is_watch or len(server.watches()) > 2:
            return False
        exchange.begin()
        exchange.chunk(line)
        exchange.chunk(b"")
        return True

    server.faults.append(garble)
    server.put(PODS, pod("a"))
    _, heard = reflect()
    eventually(lambda: len(server.watches()) > 2)
    server.put(PODS, pod("b"))
    settled(server, heard)
    assert "half" not in heard.names


def test_an_empty_answer_is_no_empty_list(server: ScriptedApi, reflect: Start) -> None:
    """200 with nothing in it: what was known stays."""
    server.put(PODS, pod("a"))
    reflector, heard = reflect()
    settled(server, heard)
    broken = threading.Event()
    broken.set()

    def hollow(exchange: Exchange) -> bool:
        if exchange.asked.is_watch or not broken.is_set():
            return False
        exchange.answer(200, b"")
        return True

    server.faults.append(hollow)
    reflector.again()
    eventually(lambda: heard.in_trouble)
    assert heard.names == {"a": ""}
    broken.clear()
    settled(server, heard)


def test_a_dead_server_is_not_hammered(server: ScriptedApi, reflect: Start) -> None:
    """Pauses grow: in some seconds of failures there are few requests."""

    def fail(exchange: Exchange) -> bool:
        exchange.answer(500, status(500, "InternalError", "broken"))
        return True

    server.faults.append(fail)
    reflect()
    eventually(lambda: len(server.asked) >= 5)
    began_at = time.monotonic()
    eventually(lambda: len(server.asked) >= 7)
    assert time.monotonic() - began_at >= 1.5  # the sixth and seventh wait for 3.2 s and 6.4 s, or half of it


def test_watches_that_end_at_once_are_not_hammered(server: ScriptedApi, reflect: Start) -> None:
    """A proxy that cuts every watch: about one a second, and no trouble, because changes still come."""

    def close(exchange: Exchange) -> bool:
        if not exchange.asked.is_watch:
            return False
        exchange.begin()
        exchange.chunk(b"")
        return True

    server.faults.append(close)
    _, heard = reflect()
    eventually(lambda: len(server.watches()) >= 6)
    began_at = time.monotonic()
    eventually(lambda: len(server.watches()) >= 8)
    assert time.monotonic() - began_at >= 0.9
    assert heard.troubles == []


def test_only_this_nodes_pods(server: ScriptedApi, reflect: Start) -> None:
    """The query goes with lists and watches."""
    server.put(PODS, pod("here"))
    server.put(PODS, pod("there", node="b"))
    _, heard = reflect(query={"fieldSelector": "spec.nodeName=a"})
    eventually(lambda: heard.names == {"here": ""})
    server.put(PODS, pod("later", node="b"))
    server.put(PODS, pod("mine"))
    eventually(lambda: "mine" in heard.names)
    assert heard.names == {"here": "", "mine": ""}


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_mistake_of_ours_is_told(server: ScriptedApi) -> None:
    """A sink that raises does not leave a thread that is silently no more."""
    server.serve(PODS)
    died = threading.Event()

    class Broken(Heard):
        def replaced(self, items: list[Name], /) -> None:
            raise ValueError("a mistake")

    reflector = Reflector[Name](Api(server.access), PODS, Broken(), keep=kept, died=died.set)
    reflector.start()
    assert died.wait(20)
    reflector.stop(join_s=20)


def test_stopping_is_quick_and_silent(server: ScriptedApi, reflect: Start) -> None:
    """Whether it watches or waits to try again."""
    reflector, heard = reflect()
    settled(server, heard)
    reflector.stop(join_s=20)
    calls = list(heard.calls)
    server.put(PODS, pod("late"))
    assert heard.calls == calls
    assert heard.troubles == []


@pytest.mark.parametrize("seed", range(3))
def test_whatever_happens_it_ends_up_right(server: ScriptedApi, reflect: Start, seed: int) -> None:
    """Changes, cuts, compactions, refusals and pages by chance: in the end the sink knows what there is."""
    chance = random.Random(seed)
    server.page_items = 3
    failing = threading.Event()

    def refuse(exchange: Exchange) -> bool:
        if not failing.is_set() or chance.random() < 0.5:
            return False
        exchange.answer(chance.choice([429, 500, 410, 401]), status(500, "x", "by chance"))
        return True

    server.faults.append(refuse)
    reflector, heard = reflect()
    for step in range(150):
        name = f"p{chance.randrange(12)}"
        match chance.randrange(12):
            case 0:
                server.drop_watches()
            case 1:
                server.forget_history()
            case 2:
                (failing.clear if failing.is_set() else failing.set)()
            case 3:
                reflector.again()
            case 4 if f"n/{name}" in server.collections[PODS]:
                server.lose_quietly(PODS, f"n/{name}")
                server.forget_history()
            case 5 | 6 if f"n/{name}" in server.collections[PODS]:
                server.delete(PODS, f"n/{name}")
            case _:
                server.put(PODS, pod(name, str(step)))
        if step % 10 == 0:
            eventually(lambda: True)
    failing.clear()
    reflector.hurry()
    settled(server, heard)
