"""A real kube-apiserver for tests: RBAC is on, and one may act as any service account.

One serves a whole session (the fixture ``api``); tests make namespaces of their own in it. No
controller runs: nothing makes pods of a Deployment, removes a namespace or collects garbage.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from enforcer.demo import folders
from enforcer.demo.kube import binaries
from enforcer.demo.kube.control import ControlPlane
from enforcer.demo.stores import free_ports

Json = dict[str, Any]


class RefusedError(AssertionError):
    """kubectl or helm ended with an error; the text is theirs."""


class RealApi:
    """The API server, and the ways to ask it."""

    def __init__(self, *, more_flags: Sequence[str] = ()) -> None:
        binaries.require(("kube",), ("etcd", "setpriv"))
        self.folder = folders.made(in_memory=True)
        flags = ("--disable-admission-plugins=ServiceAccount", *more_flags)
        first, second, third = free_ports(3)
        self.control = ControlPlane(self.folder, (first, second, third), more_flags=flags)
        self._count = itertools.count(1)
        self.accounts: dict[tuple[str, str, str], Path] = {}

    # --- life ------------------------------------------------------------------------------------

    def start(self) -> RealApi:
        """Start it; about four seconds."""
        try:
            self.control.start()
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """End it and remove all of it."""
        self.control.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    # --- who asks --------------------------------------------------------------------------------

    @property
    def server(self) -> str:
        """Its URL."""
        return self.control.server

    @property
    def kubeconfig(self) -> Path:
        """The kubeconfig file of an administrator (system:masters)."""
        return self.control.admin

    @property
    def admin_access(self) -> Any:
        """``Access`` of the administrator."""
        from enforcer.kube.access import from_kubeconfig

        return from_kubeconfig(self.kubeconfig, "")

    @property
    def admin(self) -> Any:
        """A new door (``Api``) for the administrator."""
        from enforcer.kube.client import Api

        return Api(self.admin_access)

    def kubeconfig_as(self, namespace: str, name: str, *, pod: str = "") -> Path:
        """The kubeconfig file of a service account, which must exist; its token lasts two hours.

        ``pod`` binds the token to a pod, as kubelet does it: its node's name is then in the token.
        """
        key = (namespace, name, pod)
        if key not in self.accounts:
            bound = ("--bound-object-kind=Pod", f"--bound-object-name={pod}") if pod else ()
            token = self.kubectl("create", "token", name, "-n", namespace, "--duration=2h", *bound)
            stem = f"{namespace}.{name}.{next(self._count)}"
            token_file = self.folder / f"{stem}.token"
            token_file.touch(mode=0o600)
            token_file.write_text(token.strip())
            self.accounts[key] = self.control.credentials.kubeconfig_with(
                self.server, stem, token_file, namespace
            )
        return self.accounts[key]

    def as_account(self, namespace: str, name: str, *, pod: str = "") -> Any:
        """``Access`` of a service account (see ``kubeconfig_as``)."""
        from enforcer.kube.access import from_kubeconfig

        return from_kubeconfig(self.kubeconfig_as(namespace, name, pod=pod), "")

    def token_file_of(self, namespace: str, name: str, *, pod: str = "") -> Path:
        """The file from which an account's token is read: rewrite it to rotate or to break it."""
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
        home = self.folder / "home"
        env = dict(os.environ) | {
            "KUBECONFIG": str(kubeconfig or self.kubeconfig),
            "HOME": str(home),
            "HELM_CACHE_HOME": str(home / "helm"),
            "HELM_CONFIG_HOME": str(home / "helm"),
            "HELM_DATA_HOME": str(home / "helm"),
        }
        return subprocess.run(
            [str(where), *arguments],
            input=text,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
            env=env,
        )

    def kubectl(self, *arguments: str, kubeconfig: Path | None = None, text: str = "") -> str:
        """What kubectl printed. Raises RefusedError with its words if it failed."""
        return _succeeded(
            "kubectl", arguments, self.run("kubectl", *arguments, kubeconfig=kubeconfig, text=text)
        )

    def helm(self, *arguments: str, kubeconfig: Path | None = None, text: str = "") -> str:
        """What Helm v3 printed. Raises RefusedError with its words if it failed."""
        return _succeeded("helm", arguments, self.run("helm", *arguments, kubeconfig=kubeconfig, text=text))

    def refusal(self, *arguments: str, kubeconfig: Path | None = None, text: str = "") -> str:
        """The words with which kubectl failed. Raises AssertionError if it did not fail."""
        done = self.run("kubectl", *arguments, kubeconfig=kubeconfig, text=text)
        assert done.returncode != 0, f"kubectl {' '.join(arguments)} was allowed: {done.stdout}"
        return done.stderr.strip()

    def get(self, *arguments: str, kubeconfig: Path | None = None) -> Json:
        """``kubectl get … -o json``, parsed."""
        found: Json = json.loads(self.kubectl("get", *arguments, "-o", "json", kubeconfig=kubeconfig))
        return found

    def apply(self, *objects: Json | str, kubeconfig: Path | None = None) -> str:
        """Apply objects (dicts, or YAML text), strictly validated; see ``apply_laxly``."""
        return self.kubectl(
            "apply", "--validate=strict", "-f", "-", kubeconfig=kubeconfig, text=_text(objects)
        )

    def apply_laxly(self, *objects: Json | str, kubeconfig: Path | None = None) -> str:
        """Apply objects as a writer does that asks for no validation of fields."""
        return self.kubectl(
            "apply", "--validate=ignore", "-f", "-", kubeconfig=kubeconfig, text=_text(objects)
        )

    # --- things ----------------------------------------------------------------------------------

    def namespace(
        self,
        prefix: str = "t",
        *,
        labels: Mapping[str, str] | None = None,
        annotations: Mapping[str, str] | None = None,
    ) -> str:
        """Make a namespace nobody else uses, with its ``default`` service account; returns its name."""
        name = f"{prefix}-{next(self._count)}"
        marks = {"labels": dict(labels or {}), "annotations": dict(annotations or {})}
        space = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, **marks}}
        self.apply(space, account(name, "default"))
        return name

    def audit(self, user: str = "") -> list[Json]:
        """Every request answered so far (audit.k8s.io/v1, Metadata), of one user if named.

        A service account's user is ``system:serviceaccount:NAMESPACE:NAME``.
        """
        lines = self.control.audit_log.read_text().splitlines()
        events: list[Json] = [json.loads(line) for line in lines if line.endswith("}")]
        return [event for event in events if user in ("", event["user"]["username"])]


def account(namespace: str, name: str) -> Json:
    """A service account."""
    return {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": {"name": name, "namespace": namespace},
    }


def _text(objects: Sequence[Json | str]) -> str:
    return "\n---\n".join(each if isinstance(each, str) else json.dumps(each) for each in objects)


def _succeeded(program: str, arguments: Sequence[str], done: subprocess.CompletedProcess[str]) -> str:
    if done.returncode != 0:
        raise RefusedError(f"{program} {' '.join(arguments)}: {(done.stderr or done.stdout).strip()}")
    return done.stdout
