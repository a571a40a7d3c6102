"""Secrets: read from their files, bounded, again and again; what is wrong is said, nothing is shown."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from enforcer.sharing.redis.credentials import CredentialError, Credentials, HmacKeys
from enforcer.sharing.redis.line import Login
from policy.runtime.settings import load_settings


def keyed(tmp_path: Path, content: bytes = b"k" * 32, previous: str = "") -> Credentials:
    """Credentials with this key."""
    (tmp_path / "key").write_bytes(content)
    return Credentials(hmac_key_file=str(tmp_path / "key"), previous_hmac_key_file=previous)


@pytest.mark.parametrize(
    ("content", "key"),
    [
        (b"0123456789abcdef", b"0123456789abcdef"),
        (b"0123456789abcdef\n", b"0123456789abcdef"),
        (b"0123456789abcdef\r\n", b"0123456789abcdef"),
        (b"0123456789abcdef\n\n", b"0123456789abcdef\n"),
        (b"\x00\xff" * 2048, b"\x00\xff" * 2048),
    ],
)
def test_a_key_is_the_content_without_its_last_line_end(tmp_path: Path, content: bytes, key: bytes) -> None:
    """Any octets, 16 to 4096 of them."""
    credentials = keyed(tmp_path, content)
    assert credentials.keys is None, "nothing is read before it is asked for"
    assert credentials.refresh() is True
    assert credentials.keys == HmacKeys(key, None)
    assert credentials.problem == ""
    assert credentials.refresh() is False


@pytest.mark.parametrize("content", [b"", b"fifteen octets.", b"x" * 4097, b"x" * 100_000])
def test_a_key_too_short_or_too_long_is_refused(tmp_path: Path, content: bytes) -> None:
    """With its setting, path, size and what to do."""
    credentials = keyed(tmp_path, content)
    assert credentials.refresh() is False
    assert credentials.keys is None
    assert credentials.problem.startswith(f"state.redis.hmacKeyFile: {tmp_path}/key has ")
    assert "octets: write 16 to 4096 (head -c 32 /dev/urandom | base64)" in credentials.problem


def test_what_is_no_file_is_refused_at_once(tmp_path: Path) -> None:
    """A folder, a FIFO nobody writes to, nothing at all."""
    os.mkfifo(tmp_path / "fifo")
    for name, said in (("", "no regular file"), ("fifo", "no regular file"), ("absent", "No such file")):
        credentials = Credentials(hmac_key_file=str(tmp_path / name))
        assert credentials.refresh() is False
        assert said in credentials.problem


def test_a_rotation_has_no_gap(tmp_path: Path) -> None:
    """A file rewritten or a symlink exchanged gives the new keys; one that is broken, the last good."""
    credentials = keyed(tmp_path, b"a" * 32, str(tmp_path / "previous"))
    assert credentials.refresh() is False
    assert "previousHmacKeyFile" in credentials.problem
    (tmp_path / "previous").write_bytes(b"b" * 32)
    assert credentials.refresh() is True
    assert credentials.keys == HmacKeys(b"a" * 32, b"b" * 32)
    (tmp_path / "key").write_bytes(b"")
    assert credentials.refresh() is False
    assert credentials.keys == HmacKeys(b"a" * 32, b"b" * 32), "the last good ones"
    assert credentials.problem
    (tmp_path / "next").write_bytes(b"c" * 32)
    (tmp_path / "link").symlink_to("next")
    (tmp_path / "link").replace(tmp_path / "key")
    assert credentials.refresh() is True
    assert credentials.keys == HmacKeys(b"c" * 32, b"b" * 32)
    assert credentials.problem == ""


def test_keys_that_change_places_while_they_are_read_are_both_there(tmp_path: Path) -> None:
    """One file of before and one of after would believe one key alone, for a second."""
    old, new = b"a" * 32, b"b" * 32
    for name, keys in (("one", (old, new)), ("two", (new, old))):
        (tmp_path / name).mkdir()
        for file, key in zip(("current", "previous"), keys, strict=True):
            (tmp_path / name / file).write_bytes(key)
    link = tmp_path / "keys"
    link.symlink_to("one")
    credentials = Credentials(
        hmac_key_file=str(link / "current"), previous_hmac_key_file=str(link / "previous")
    )
    for turn in range(500):
        (tmp_path / "new").symlink_to(("two", "one")[turn % 2])
        exchange = threading.Thread(target=lambda: (tmp_path / "new").replace(link))
        exchange.start()
        credentials.refresh()
        exchange.join()
        assert credentials.keys is not None
        assert set(credentials.keys) == {old, new}, turn


def test_passwords_are_read_when_they_are_asked_for(tmp_path: Path) -> None:
    """ "" without a file; an empty file, or one that is no text, is a mistake."""
    credentials = keyed(tmp_path)
    assert (credentials.password(), credentials.sentinel_password()) == ("", "")
    path = tmp_path / "password"
    credentials = Credentials(
        hmac_key_file="", password_file=str(path), sentinel_password_file=str(tmp_path / "other")
    )
    with pytest.raises(CredentialError, match=r"state\.redis\.passwordFile: .* cannot be read"):
        credentials.password()
    path.write_text("pässword\n")
    assert credentials.password() == "pässword"
    path.write_bytes(b"\n")
    with pytest.raises(CredentialError, match="has 0 octets: write 1 to 4096"):
        credentials.password()
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(CredentialError, match="is not UTF-8"):
        credentials.password()
    with pytest.raises(CredentialError, match="sentinelPasswordFile"):
        credentials.sentinel_password()


def test_nothing_of_them_is_shown() -> None:
    """In no repr, which is where a log or a traceback would find it."""
    assert "secret" not in repr(HmacKeys(b"secret-of-16-octets", b"another-secret---"))
    assert "secret" not in repr(Login("user", "secret"))
    assert "secret" not in str(Login("user", "secret"))


def test_they_are_those_of_the_configuration(tmp_path: Path) -> None:
    """Each setting has its file."""
    path = tmp_path / "nameward.yaml"
    names = ("hmacKey", "previousHmacKey", "password", "sentinelPassword", "ca", "cert", "key")
    for name in names:
        (tmp_path / name).write_text(f"content of {name}")
    files = ", ".join(f"{name}File: {tmp_path}/{name}" for name in names)
    url = "rediss+sentinel://u@h:1/m"
    path.write_text(f"policy: {{governedNamespaces: [a]}}\nstate: {{redis: {{url: '{url}', {files}}}}}\n")
    redis = load_settings(path, {}).state.redis
    assert redis is not None
    credentials = Credentials.of(redis)
    assert credentials.refresh()
    assert credentials.keys == HmacKeys(b"content of hmacKey", b"content of previousHmacKey")
    assert credentials.password() == "content of password"
    assert credentials.sentinel_password() == "content of sentinelPassword"
    assert credentials.tls == (f"{tmp_path}/ca", f"{tmp_path}/cert", f"{tmp_path}/key")
