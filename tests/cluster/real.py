"""A real kube-apiserver for tests: RBAC is on, and one may act as any service account.

One serves a whole session (the fixture ``api``); tests make namespaces of their own in it. No
controller runs: nothing makes pods of a Deployment, removes a namespace or collects garbage.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from enforcer.demo import folders
from enforcer.demo.kube import binaries
from enforcer.demo.kube.client import Client, Json, RefusedError
from enforcer.demo.kube.control import ControlPlane
from enforcer.demo.stores import free_ports

if TYPE_CHECKING:
    from enforcer.kube.access import Access
    from enforcer.kube.client import Api

__all__ = ["Json", "RealApi", "RefusedError", "account"]


class RealApi(Client):
    """The API server, and the ways to ask it."""

    def __init__(self, *, more_flags: Sequence[str] = ()) -> None:
        binaries.require(("kube",), ("etcd", "setpriv"))
        self.folder = folders.made(in_memory=True)
        flags = ("--disable-admission-plugins=ServiceAccount", *more_flags)
        first, second, third = free_ports(3)
        super().__init__(ControlPlane(self.folder, (first, second, third), more_flags=flags))

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

    @property
    def admin_access(self) -> Access:
        """``Access`` of the administrator."""
        from enforcer.kube.access import from_kubeconfig

        return from_kubeconfig(str(self.kubeconfig), "")

    @property
    def admin(self) -> Api:
        """A new door (``Api``) for the administrator."""
        from enforcer.kube.client import Api

        return Api(self.admin_access)

    def as_account(self, namespace: str, name: str, *, pod: str = "") -> Access:
        """``Access`` of a service account (see ``kubeconfig_as``)."""
        from enforcer.kube.access import from_kubeconfig

        return from_kubeconfig(str(self.kubeconfig_as(namespace, name, pod=pod)), "")

    def refusal(self, *arguments: str, kubeconfig: Path | None = None, text: str = "") -> str:
        """The words with which kubectl failed. Raises AssertionError if it did not fail."""
        done = self.run("kubectl", *arguments, kubeconfig=kubeconfig, text=text)
        assert done.returncode != 0, f"kubectl {' '.join(arguments)} was allowed: {done.stdout}"
        return done.stderr.strip()

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


def account(namespace: str, name: str) -> Json:
    """A service account."""
    return {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": {"name": name, "namespace": namespace},
    }
