"""kubectl and Helm, as a person at a cluster would use them.

Owns their environment: no file of the user's is read or written. Whoever needs watches takes the
enforcer's own door to the API.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from enforcer.demo.failure import LabFailureError
from enforcer.demo.kube import binaries
from enforcer.demo.kube.control import ControlPlane

Json = dict[str, Any]
"""An object of the API."""


class RefusedError(LabFailureError):
    """kubectl or helm ended with an error; the text is theirs."""


class Client:
    """Asks one API server, as its administrator or by another kubeconfig file."""

    def __init__(self, control: ControlPlane) -> None:
        self.control = control
        self._home = control.folder / "home"
        self._count = itertools.count(1)
        self._accounts: dict[tuple[str, str, str], Path] = {}

    # --- who asks --------------------------------------------------------------------------------

    @property
    def server(self) -> str:
        """The API server's URL."""
        return self.control.server

    @property
    def kubeconfig(self) -> Path:
        """The kubeconfig file of an administrator (system:masters)."""
        return self.control.admin

    def kubeconfig_as(self, namespace: str, name: str, *, pod: str = "") -> Path:
        """Return the kubeconfig file of a service account, which must exist; its token lasts two hours.

        ``pod`` binds the token to a pod, as kubelet does it: its node's name is then in the token.
        """
        key = (namespace, name, pod)
        if key not in self._accounts:
            bound = ("--bound-object-kind=Pod", f"--bound-object-name={pod}") if pod else ()
            token = self.kubectl("create", "token", name, "-n", namespace, "--duration=2h", *bound)
            stem = f"{namespace}.{name}.{next(self._count)}"
            token_file = self.control.folder / f"{stem}.token"
            token_file.touch(mode=0o600)
            token_file.write_text(token.strip())
            self._accounts[key] = self.control.credentials.kubeconfig_with(
                self.server, stem, token_file, namespace
            )
        return self._accounts[key]

    def token_file_of(self, namespace: str, name: str, *, pod: str = "") -> Path:
        """Return the file from which an account's token is read: rewrite it to rotate or to break it."""
        return self.kubeconfig_as(namespace, name, pod=pod).with_suffix(".token")

    # --- asking ----------------------------------------------------------------------------------

    def run(
        self,
        program: str,
        *arguments: str,
        kubeconfig: Path | None = None,
        text: str = "",
        timeout_s: float = 120.0,
    ) -> subprocess.CompletedProcess[str]:
        """Run ``kubectl`` or ``helm`` to its end; never raises for its exit code."""
        where = self.control.programs / program if program in binaries.LINKED else binaries.path_of(program)
        env = dict(os.environ) | {
            "KUBECONFIG": str(kubeconfig or self.kubeconfig),
            "HOME": str(self._home),
            "HELM_CACHE_HOME": str(self._home / "helm"),
            "HELM_CONFIG_HOME": str(self._home / "helm"),
            "HELM_DATA_HOME": str(self._home / "helm"),
        }
        with self.control.space.entered() if self.control.space else contextlib.nullcontext():
            return subprocess.run(  # noqa: S603 (arguments are the lab's own)
                [str(where), *arguments],
                input=text,
                capture_output=True,
                text=True,
                timeout=timeout_s,
                check=False,
                env=env,
            )

    def kubectl(self, *arguments: str, kubeconfig: Path | None = None, text: str = "") -> str:
        """Return what kubectl printed. Raises RefusedError with its words if it failed."""
        done = self.run("kubectl", *arguments, kubeconfig=kubeconfig, text=text)
        return _succeeded("kubectl", arguments, done)

    def helm(
        self, *arguments: str, kubeconfig: Path | None = None, text: str = "", timeout_s: float = 300.0
    ) -> str:
        """Return what Helm v3 printed. Raises RefusedError with its words if it failed."""
        done = self.run("helm", *arguments, kubeconfig=kubeconfig, text=text, timeout_s=timeout_s)
        return _succeeded("helm", arguments, done)

    def get(self, *arguments: str, kubeconfig: Path | None = None) -> Json:
        """Return what ``kubectl get … -o json`` printed. Raises RefusedError."""
        found: Json = json.loads(self.kubectl("get", *arguments, "-o", "json", kubeconfig=kubeconfig))
        return found

    def apply(self, *objects: Json | str, kubeconfig: Path | None = None) -> str:
        """Apply objects (or YAML text), strictly validated. Raises RefusedError; see ``apply_laxly``."""
        return self.kubectl(
            "apply", "--validate=strict", "-f", "-", kubeconfig=kubeconfig, text=_text(objects)
        )

    def apply_laxly(self, *objects: Json | str, kubeconfig: Path | None = None) -> str:
        """Apply objects as a writer does that asks for no validation of fields. Raises RefusedError."""
        return self.kubectl(
            "apply", "--validate=ignore", "-f", "-", kubeconfig=kubeconfig, text=_text(objects)
        )

    def audit(self, user: str = "") -> list[Json]:
        """Return every request answered so far (audit.k8s.io/v1, Metadata), of one user if named.

        A service account's user is ``system:serviceaccount:NAMESPACE:NAME``.
        """
        lines = self.control.audit_log.read_text().splitlines()
        events: list[Json] = [json.loads(line) for line in lines if line.endswith("}")]
        return [event for event in events if user in {"", event["user"]["username"]}]


def _text(objects: Sequence[Json | str]) -> str:
    return "\n---\n".join(each if isinstance(each, str) else json.dumps(each) for each in objects)


def _succeeded(program: str, arguments: Sequence[str], done: subprocess.CompletedProcess[str]) -> str:
    if done.returncode != 0:
        raise RefusedError(f"{program} {' '.join(arguments)}: {(done.stderr or done.stdout).strip()}")
    return done.stdout
