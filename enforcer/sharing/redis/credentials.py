"""The secrets of shared state: passwords, HMAC keys, and where the TLS files are.

Owns reading their files: bounded, regular files only, read again for as long as the process lives.
Never logs or shows what is in them, and never reads on the event loop (``refresh`` and ``password``
are for threads). Invariant: ``keys`` is the last good pair; a file that breaks takes none away.
"""

from __future__ import annotations

import os
import stat
from typing import NamedTuple

from policy.runtime.state_section import RedisSettings

LARGEST_BYTES = 4096
SHORTEST_KEY_BYTES = 16


class CredentialError(Exception):
    """A file cannot be used; the text is one sentence with the key, the path and what to do."""


class HmacKeys(NamedTuple):
    """What seals records. ``previous`` still checks, for a while after a rotation."""

    current: bytes
    previous: bytes | None

    def __repr__(self) -> str:
        """Show nothing of the keys, wherever this ends up."""
        return "HmacKeys(…)"


class TlsFiles(NamedTuple):
    """Paths; "" where there is none. They are read at every connection."""

    ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""


class Credentials:
    """The files of one ``state.redis``."""

    def __init__(
        self,
        *,
        hmac_key_file: str,
        previous_hmac_key_file: str = "",
        password_file: str = "",
        sentinel_password_file: str = "",
        tls: TlsFiles | None = None,
    ) -> None:
        self._hmac_key_file = hmac_key_file
        self._previous_hmac_key_file = previous_hmac_key_file
        self._password_file = password_file
        self._sentinel_password_file = sentinel_password_file
        self.tls = tls or TlsFiles()
        self.keys: HmacKeys | None = None
        self.problem = ""

    @classmethod
    def of(cls, settings: RedisSettings) -> Credentials:
        """Return those that the configuration names; nothing is read yet."""
        return cls(
            hmac_key_file=settings.hmac_key_file,
            previous_hmac_key_file=settings.previous_hmac_key_file,
            password_file=settings.password_file,
            sentinel_password_file=settings.sentinel_password_file,
            tls=TlsFiles(settings.ca_file, settings.cert_file, settings.key_file),
        )

    def refresh(self) -> bool:
        """Read the HMAC keys again; True if they differ from those before.

        Never raises for a file: ``problem`` is then its sentence and ``keys`` stays as it was.
        """
        try:
            read = self._both()
            if _key("hmacKeyFile", self._hmac_key_file) != read.current:
                read = self._both()  # they changed places meanwhile: one of each would miss the other key
        except CredentialError as error:
            self.problem = str(error)
            return False
        self.problem = ""
        is_new, self.keys = tuple(read) != tuple(self.keys or ()), read
        return is_new

    def _both(self) -> HmacKeys:
        current, older = _key("hmacKeyFile", self._hmac_key_file), self._previous_hmac_key_file
        return HmacKeys(current, _key("previousHmacKeyFile", older) if older else None)

    def password(self) -> str:
        """Return Redis's password as it is in its file now, "" if there is no file.

        Raises ``CredentialError``.
        """
        return _password("passwordFile", self._password_file)

    def sentinel_password(self) -> str:
        """Return the Sentinels' password as it is in its file now, "" if there is no file.

        Raises ``CredentialError``.
        """
        return _password("sentinelPasswordFile", self._sentinel_password_file)


def _password(setting: str, path: str) -> str:
    if not path:
        return ""
    try:
        return _content(setting, path, 1).decode("utf-8")
    except UnicodeDecodeError:
        raise CredentialError(
            f"state.redis.{setting}: {path} is not UTF-8: write the password as text"
        ) from None


def _key(setting: str, path: str) -> bytes:
    return _content(setting, path, SHORTEST_KEY_BYTES)


def _content(setting: str, path: str, fewest: int) -> bytes:
    """Return a file's content without its last line end."""
    where = f"state.redis.{setting}: {path}"
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise CredentialError(f"{where} is no regular file: name the file itself")
            content = os.read(fd, LARGEST_BYTES + 3)
        finally:
            os.close(fd)
    except OSError as error:
        raise CredentialError(
            f"{where} cannot be read ({error.strerror}): create it, readable by root"
        ) from None
    content = content.removesuffix(b"\n").removesuffix(b"\r")
    if not fewest <= len(content) <= LARGEST_BYTES:
        raise CredentialError(
            f"{where} has {len(content)} octets: write {fewest} to {LARGEST_BYTES}"
            + (" (head -c 32 /dev/urandom | base64)" if fewest > 1 else "")
        )
    return content
