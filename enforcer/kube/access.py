"""How the API server is reached, and as whom: from a pod's service account or from a kubeconfig.

Owns the reading of both. Never opens a connection. Invariant: a secret is in no text that this makes,
neither in a repr nor in an error.
"""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import yaml

ACCOUNT_FOLDER = "/var/run/secrets/kubernetes.io/serviceaccount"
_MAX_FILE_BYTES = 1024 * 1024


class AccessError(Exception):
    """The API server cannot be reached like this; the text is one sentence that says what to do."""


@dataclass(frozen=True, kw_only=True)
class Access:
    """One server and one identity. Files win over data, and are read again when they change."""

    server: str
    """``https://host:port``, with a path where the API is below one."""
    ca_file: str = ""
    ca_data: str = field(default="", repr=False)
    """PEM. Without file and data the host's own certificate authorities count."""
    token_file: str = ""
    token: str = field(default="", repr=False)
    cert_file: str = ""
    key_file: str = ""
    cert_data: str = field(default="", repr=False)
    key_data: str = field(default="", repr=False)
    """PEM of the client's certificate and of its key."""
    server_name: str = ""
    """The name in the server's certificate, where it is not the one in ``server``."""
    namespace: str = "default"
    """The pod's own namespace, or the kubeconfig context's."""
    insecure: bool = False
    """Take any certificate."""
    fingerprint: str = ""
    """SHA-256 of the server's certificate in hex; it alone is taken then, also where ``insecure``."""


def in_cluster(environ: Mapping[str, str] = os.environ, folder: str = ACCOUNT_FOLDER) -> Access:
    """Return the access of this pod's service account. Raises ``AccessError``."""
    host, port = environ.get("KUBERNETES_SERVICE_HOST", ""), environ.get("KUBERNETES_SERVICE_PORT", "")
    if not host or not port:
        raise AccessError(
            "this is no pod of a cluster (KUBERNETES_SERVICE_HOST is not set); "
            "set policy.kubernetes.kubeconfig"
        )
    token_file, ca_file = f"{folder}/token", f"{folder}/ca.crt"
    for path in (token_file, ca_file):
        if not _read(path).strip():
            raise AccessError(f"{path} is empty; give the pod a service account token")
    try:
        namespace = _read(f"{folder}/namespace").strip()
    except AccessError:
        namespace = ""
    host = f"[{host}]" if ":" in host else host
    return Access(
        server=f"https://{host}:{port}",
        ca_file=ca_file,
        token_file=token_file,
        namespace=namespace or "default",
    )


def from_kubeconfig(path: str, context: str = "") -> Access:
    """Return the access of a kubeconfig's context (its current one if none is named).

    Certificates, tokens and token files are understood; what runs a program for a token is not.
    Raises ``AccessError``.
    """
    try:
        content = yaml.safe_load(_read(path))
    except (yaml.YAMLError, RecursionError):
        raise AccessError(f"{path} is no YAML; write a kubeconfig") from None
    if not isinstance(content, dict):
        raise AccessError(f"{path} is no kubeconfig; write clusters, users and contexts")
    config = _Kubeconfig(path, content)
    name = context or config.text(content, "current-context")
    if not name:
        raise AccessError(f"{path} names no current-context; set policy.kubernetes.context")
    chosen = config.entry("contexts", "context", name)
    cluster = config.entry("clusters", "cluster", config.text(chosen, "cluster"))
    user = config.entry("users", "user", config.text(chosen, "user")) if chosen.get("user") else {}
    for unsupported in ("exec", "auth-provider", "username", "password"):
        if unsupported in user:
            raise AccessError(
                f"{path}: the user of {name!r} has {unsupported}, which is not supported; "
                "use a token, a tokenFile or a client certificate"
            )
    server = config.text(cluster, "server").rstrip("/")
    parts = urlsplit(server)
    if parts.scheme not in {"https", "http"} or not parts.hostname:
        raise AccessError(f"{path}: {server!r} is no server; write https://HOST:PORT")
    return Access(
        server=server,
        ca_file=config.place(cluster, "certificate-authority"),
        ca_data=config.decoded(cluster, "certificate-authority-data"),
        token_file=config.place(user, "tokenFile"),
        token=config.text(user, "token"),
        cert_file=config.place(user, "client-certificate"),
        key_file=config.place(user, "client-key"),
        cert_data=config.decoded(user, "client-certificate-data"),
        key_data=config.decoded(user, "client-key-data"),
        server_name=config.text(cluster, "tls-server-name"),
        namespace=config.text(chosen, "namespace") or "default",
        insecure=cluster.get("insecure-skip-tls-verify") is True,
    )


class _Kubeconfig:
    """One file's entries, by name and checked."""

    def __init__(self, path: str, content: Mapping[str, object]) -> None:
        self._path = path
        self._content = content

    def entry(self, group: str, key: str, name: str) -> Mapping[str, object]:
        listed = self._content.get(group)
        for each in listed if isinstance(listed, list) else ():
            if isinstance(each, dict) and each.get("name") == name:
                found = each.get(key)
                if isinstance(found, dict):
                    return found
        raise AccessError(f"{self._path} has no {key} {name!r} under {group}")

    def text(self, fields: Mapping[str, object], key: str) -> str:
        value = fields.get(key)
        if value is None:
            return ""
        if not isinstance(value, str):
            raise AccessError(f"{self._path}: {key} is no text; put it in quotes")
        return value.strip()

    def place(self, fields: Mapping[str, object], key: str) -> str:
        """Return a file's absolute path: relative ones are the kubeconfig's neighbours."""
        path = self.text(fields, key)
        return str(Path(self._path).parent / path) if path else ""

    def decoded(self, fields: Mapping[str, object], key: str) -> str:
        try:
            return base64.b64decode(self.text(fields, key), validate=True).decode("ascii")
        except (binascii.Error, UnicodeDecodeError):
            raise AccessError(f"{self._path}: {key} is not Base64 of a PEM text") from None


def _read(path: str) -> str:
    try:
        with open(path, "rb") as file:
            content = file.read(_MAX_FILE_BYTES + 1)
    except OSError as error:
        raise AccessError(f"{path} cannot be read: {error.strerror}") from None
    if len(content) > _MAX_FILE_BYTES:
        raise AccessError(f"{path} is larger than {_MAX_FILE_BYTES >> 20} MiB")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        raise AccessError(f"{path} is no text") from None
