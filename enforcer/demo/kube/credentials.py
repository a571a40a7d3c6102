"""Who may speak to a cluster's API server: its authority, its keys, tokens of users, kubeconfig files.

Owns files in the cluster's folder, readable by root alone. Never prints a token.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Sequence
from pathlib import Path

from enforcer.demo.certificates import Certificates

ADMIN = "admin"
_USERS = {
    ADMIN: ("admin", "system:masters"),
    "kube-controller-manager": ("system:kube-controller-manager", ""),
    "kube-scheduler": ("system:kube-scheduler", ""),
    "kube-proxy": ("system:kube-proxy", "system:node-proxier"),
}


class Credentials:
    """Everything secret of one cluster, made new; ``names`` are those of the API server."""

    def __init__(self, folder: Path, names: Sequence[str], nodes: Sequence[str] = ()) -> None:
        self.folder = folder
        self._certificates = Certificates(folder / "certificates", names)
        self._certificates.issue("accounts")
        users = dict(_USERS) | {name: (f"system:node:{name}", "system:nodes") for name in nodes}
        self._tokens = {user: secrets.token_urlsafe(24) for user in users}
        self.tokens_file = self._kept(
            "tokens.csv",
            "".join(
                f'{self._tokens[user]},{name},{user},"{groups}"\n' for user, (name, groups) in users.items()
            ),
        )

    @property
    def ca_file(self) -> Path:
        """The certificate of the authority that signed the API server's."""
        return self._certificates.ca_file

    @property
    def server_files(self) -> tuple[Path, Path]:
        """Certificate and key of the API server."""
        where = self._certificates.folder
        return where / "server.pem", where / "server.key"

    @property
    def client_files(self) -> tuple[Path, Path]:
        """Certificate and key with which the API server speaks to kubelets."""
        return self._certificates.cert_file, self._certificates.key_file

    @property
    def accounts_files(self) -> tuple[Path, Path]:
        """What verifies tokens of service accounts (a certificate), and the key that signs them."""
        where = self._certificates.folder
        return where / "accounts.pem", where / "accounts.key"

    def token_of(self, user: str) -> str:
        """Return the token of one of the fixed users."""
        return self._tokens[user]

    def kubeconfig(self, server: str, user: str) -> Path:
        """Write and return the kubeconfig file of a fixed user for the API server's URL."""
        token_file = self._kept(f"{user}.token", self._tokens[user])
        return self.kubeconfig_with(server, user, token_file)

    def kubeconfig_with(self, server: str, name: str, token_file: Path, namespace: str = "default") -> Path:
        """Write and return a kubeconfig file that reads its token from a file."""
        content = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "lab",
            "clusters": [
                {"name": "lab", "cluster": {"server": server, "certificate-authority": str(self.ca_file)}}
            ],
            "users": [{"name": name, "user": {"tokenFile": str(token_file)}}],
            "contexts": [
                {"name": "lab", "context": {"cluster": "lab", "user": name, "namespace": namespace}}
            ],
        }
        return self._kept(f"{name}.kubeconfig", json.dumps(content, indent=1))

    def _kept(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.touch(mode=0o600)
        path.write_text(text)
        return path
