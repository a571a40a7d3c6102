"""Requests: what is sent, what comes back, and everything that a server may send instead."""

from __future__ import annotations

import dataclasses
import threading
from pathlib import Path

import pytest

from enforcer.kube.access import Access, AccessError, from_kubeconfig, in_cluster
from enforcer.kube.client import Api, ApiLost, ApiRefused, at
from tests.kube.script import Exchange, ScriptedApi, eventually, status

PODS = "/api/v1/pods"


def pod(name: str, **more: object) -> dict[str, object]:
    """A pod's object."""
    return {"metadata": {"namespace": "n", "name": name}, **more}


def api_of(server: ScriptedApi, timeout_s: float = 5.0, silence_s: float = 75.0, **changes: str) -> Api:
    """A client of the scripted server."""
    return Api(dataclasses.replace(server.access, **changes), timeout_s=timeout_s, silence_s=silence_s)


def test_a_list_follows_its_pages(server: ScriptedApi) -> None:
    """All pages are one list; only the first asks for a version."""
    server.serve(PODS)
    for name in "abcde":
        server.put(PODS, pod(name))
    server.page_items = 2
    found = api_of(server).list(PODS, resourceVersion="0", limit="2")
    assert [each["metadata"]["name"] for each in found.items] == list("abcde")
    assert found.resource_version == str(server.version)
    assert [each.query.get("resourceVersion") for each in server.lists(PODS)] == ["0", None, None]


def test_a_token_is_read_again_when_its_file_changes(server: ScriptedApi, tmp_path: Path) -> None:
    """kubelet renews it long before its end; nothing is refused meanwhile."""
    server.serve(PODS)
    token = tmp_path / "token"
    token.write_text("one\n")
    api = api_of(server, token_file=str(token))
    api.list(PODS)
    new = tmp_path / "new"
    new.write_text("two")
    new.rename(token)
    api.list(PODS)
    assert [each.token for each in server.asked] == ["one", "two"]


@pytest.mark.parametrize("code", [401, 403])
def test_a_refused_token_is_read_again_at_once(server: ScriptedApi, tmp_path: Path, code: int) -> None:
    """A file that changed in the moment between: the request is sent once more, with what it holds now."""
    server.serve(PODS)
    token = tmp_path / "token"
    token.write_text("old")
    api = api_of(server, token_file=str(token))
    api.list(PODS)
    before = token.stat()

    def expired(exchange: Exchange) -> bool:
        if exchange.asked.token != "old":
            return False
        token.write_text("new")
        exchange.answer(code, status(code, "Refused", "expired"))
        return True

    server.faults.append(expired)
    assert api.list(PODS).items == []
    assert [each.token for each in server.asked] == ["old", "old", "new"]
    assert before.st_size == token.stat().st_size


@pytest.mark.parametrize("code", [401, 403])
def test_a_refusal_that_a_token_does_not_change_is_said(
    server: ScriptedApi, tmp_path: Path, code: int
) -> None:
    """Without another token there is no second request."""
    token = tmp_path / "token"
    token.write_text("same")

    def refuse(exchange: Exchange) -> bool:
        exchange.answer(code, status(code, "Forbidden", "no"))
        return True

    server.faults.append(refuse)
    with pytest.raises(ApiRefused) as refused:
        api_of(server, token_file=str(token)).list(PODS)
    assert refused.value.status == code
    assert len(server.asked) == 1


@pytest.mark.parametrize("token", ["secret\nsecond", "se\x01cret", "secr\u0119t"])
def test_a_token_that_is_none_is_told_to_nobody(server: ScriptedApi, token: str) -> None:
    """The transport would name the header with its value: in a log, in `status`, in the NodeStatus."""
    server.serve(PODS)
    with pytest.raises(ApiLost, match="holds no token") as lost:
        api_of(server, token=token).list(PODS)
    assert "sec" not in str(lost.value)
    assert not server.asked


def test_a_token_file_that_is_gone_leaves_the_token(server: ScriptedApi, tmp_path: Path) -> None:
    """In the moment of a rotation there may be none; the old token still does."""
    server.serve(PODS)
    token = tmp_path / "token"
    token.write_text("kept")
    api = api_of(server, token_file=str(token))
    api.list(PODS)
    token.unlink()
    api.list(PODS)
    assert [each.token for each in server.asked] == ["kept", "kept"]


def test_a_redirect_is_not_followed(server: ScriptedApi) -> None:
    """Our token goes to no server that another one names."""
    other = ScriptedApi().start()

    def elsewhere(exchange: Exchange) -> bool:
        exchange.answer(307, b"", Location=f"http://127.0.0.1:{other.port}{PODS}")
        return True

    server.faults.append(elsewhere)
    try:
        with pytest.raises(ApiRefused):
            api_of(server, token="secret").list(PODS)
        assert other.asked == []
    finally:
        other.stop()


@pytest.mark.parametrize(
    "body", [b"<html>login</html>", b"", b"[]", b"\xff\xfe\x00", b'"text"', b'{"items": [1]}', b'{"items":[{']
)
def test_garbage_is_lost(server: ScriptedApi, body: bytes) -> None:
    """A proxy's page instead of the API: neither an object nor a list."""

    def garble(exchange: Exchange) -> bool:
        exchange.answer(200, body)
        return True

    server.faults.append(garble)
    with pytest.raises(ApiLost):
        api_of(server).list(PODS)


def test_an_answer_without_end_is_lost(server: ScriptedApi) -> None:
    """One object is never larger than any can be."""

    def flood(exchange: Exchange) -> bool:
        exchange.begin()
        try:
            while True:
                exchange.chunk(b" " * 65536)
        except OSError:
            exchange.close_connection = True
        return True

    server.faults.append(flood)
    with pytest.raises(ApiLost, match="larger than any"):
        api_of(server).get(PODS)


def test_nobody_there_is_lost(server: ScriptedApi) -> None:
    """A sentence that says what happened."""
    api = api_of(server)
    server.stop()
    with pytest.raises(ApiLost, match="Connection refused"):
        api.get("/version")
    server.start()


def test_a_frozen_server_is_lost(server: ScriptedApi) -> None:
    """It takes connections and says nothing: that ends with the time-out."""
    server.serve(PODS)
    server.freeze()
    with pytest.raises(ApiLost, match="in time"):
        api_of(server, timeout_s=0.2).get(PODS)


def test_a_frozen_watch_is_lost(server: ScriptedApi) -> None:
    """Its answer has begun; silence beyond the bookmarks' pace is the end of it."""
    server.serve(PODS)
    watching = api_of(server, silence_s=0.1).watch(PODS, "100", 300)
    with pytest.raises(ApiLost, match="in time"):
        list(watching)


def test_a_watch_may_be_silent_for_longer_than_an_answer_may_take(server: ScriptedApi) -> None:
    """The time-out is for the beginning alone."""
    server.serve(PODS)
    watching = iter(api_of(server, timeout_s=0.3).watch(PODS, "100", 300))
    told = threading.Timer(1.0, server.put, (PODS, pod("late")))
    told.start()
    assert next(watching).object["metadata"]["name"] == "late"
    told.join()


def test_a_watch_is_closed_from_another_thread(server: ScriptedApi) -> None:
    """Whoever waits for the next event is woken, and hears of no error."""
    server.serve(PODS)
    watching = api_of(server).watch(PODS, "100", 300)
    seen: list[object] = []
    waiting = threading.Thread(target=lambda: seen.extend(watching))
    waiting.start()
    eventually(lambda: len(server.watches()) == 1)
    watching.close()
    waiting.join(20)
    assert not waiting.is_alive()
    assert seen == []


def test_connections_are_used_again(server: ScriptedApi) -> None:
    """A request whose answer was read to its end leaves its connection for the next."""
    server.serve(PODS)
    ports = set()

    def note(exchange: Exchange) -> bool:
        ports.add(exchange.client_address)
        return False

    server.faults.append(note)
    api = api_of(server)
    for _ in range(5):
        api.list(PODS)
        api.get("/version")
    assert len(ports) == 1


def test_a_path_step_is_one_name() -> None:
    """No name can lead out of its collection."""
    assert at("api", "v1", "namespaces", "../x?y", "pods") == "/api/v1/namespaces/..%2Fx%3Fy/pods"


# --- access --------------------------------------------------------------------------------------


def account(folder: Path, **files: str) -> Path:
    """A service account's folder."""
    for name, content in ({"token": "t", "ca.crt": "c", "namespace": "own"} | files).items():
        (folder / name).write_text(content)
    return folder


SERVICE = {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "KUBERNETES_SERVICE_PORT": "443"}


def test_the_pods_own_account(tmp_path: Path) -> None:
    """Server by the environment, the rest by files that are read later."""
    found = in_cluster(SERVICE, str(account(tmp_path)))
    assert found.server == "https://10.0.0.1:443"
    assert found.namespace == "own"
    assert found.token_file == f"{tmp_path}/token"
    over6 = in_cluster(SERVICE | {"KUBERNETES_SERVICE_HOST": "fd00::1"}, str(tmp_path))
    assert over6.server == "https://[fd00::1]:443"


@pytest.mark.parametrize("missing", ["environment", "token", "ca.crt"])
def test_no_account_is_said(tmp_path: Path, missing: str) -> None:
    """One sentence that says what to do."""
    account(tmp_path)
    if missing != "environment":
        (tmp_path / missing).write_text("")
    with pytest.raises(AccessError, match=r"kubeconfig|service account"):
        in_cluster({} if missing == "environment" else SERVICE, str(tmp_path))


KUBECONFIG = """
current-context: here
contexts: [{name: here, context: {cluster: c, user: u, namespace: n}}, {name: bare, context: {cluster: c}}]
clusters: [{name: c, cluster: {server: "https://h:6443/", certificate-authority: ca.pem}}]
users: [{name: u, user: {tokenFile: token}}]
"""


def test_a_kubeconfigs_context(tmp_path: Path) -> None:
    """Relative files are its neighbours."""
    path = tmp_path / "config"
    path.write_text(KUBECONFIG)
    found = from_kubeconfig(str(path))
    assert (found.server, found.namespace) == ("https://h:6443", "n")
    assert (found.ca_file, found.token_file) == (f"{tmp_path}/ca.pem", f"{tmp_path}/token")
    assert from_kubeconfig(str(path), "bare").token_file == ""


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("current-context: here", "", "no current-context"),
        ("here\n", "away\n", "no context 'away'"),
        ("https://h:6443/", "ftp://h", "is no server"),
        ("{tokenFile: token}", "{exec: {command: aws}}", "exec, which is not supported"),
        ("{tokenFile: token}", "{token: 5}", "token is no text"),
        ("{tokenFile: token}", "{client-key-data: '%'}", "not Base64"),
        ("name: c, cluster", "name: d, cluster", "no cluster 'c'"),
        ("clusters: [", "clusters: [*", "no YAML"),
    ],
)
def test_a_kubeconfig_that_does_not_do(tmp_path: Path, old: str, new: str, said: str) -> None:
    """Each mistake has its sentence."""
    path = tmp_path / "config"
    assert old in KUBECONFIG
    path.write_text(KUBECONFIG.replace(old, new))
    with pytest.raises(AccessError, match=said):
        from_kubeconfig(str(path))


def test_no_secret_is_shown() -> None:
    """A token is in no repr, and so in no record."""
    assert "secret" not in repr(Access(server="https://h", token="secret", key_data="secret"))
