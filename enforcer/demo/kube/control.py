"""The control plane of a cluster: etcd and the API server, and the two controllers where they are wanted.

Owns their command lines, their start and their end. The API server asks RBAC for everything, so that
a missing permission shows. Invariant: everything it keeps is in ``folder``.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import ssl
from pathlib import Path

from enforcer.demo.kube import binaries
from enforcer.demo.kube.credentials import ADMIN, Credentials
from enforcer.demo.kube.program import Program
from enforcer.demo.spaces import Space

SERVICE_RANGE = "10.96.0.0/16"
FIRST_SERVICE = "10.96.0.1"
ISSUER = "https://kubernetes.default.svc.cluster.local"
_NAMES = (
    "127.0.0.1",
    "localhost",
    FIRST_SERVICE,
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
    "kubernetes.default.svc.cluster.local",
)
_AUDIT = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived", "ResponseStarted"],
    "rules": [{"level": "None", "nonResourceURLs": ["/readyz*", "/livez*"]}, {"level": "Metadata"}],
}


class ControlPlane:
    """etcd and a kube-apiserver on ``address``, in ``space`` (None: where we are).

    ``more_flags`` go to the API server. Without a controller manager nothing makes service accounts,
    removes namespaces, or collects what has lost its owner.
    """

    def __init__(
        self,
        folder: Path,
        ports: tuple[int, int, int],
        *,
        address: str = "127.0.0.1",
        space: Space | None = None,
        nodes: tuple[str, ...] = (),
        more_flags: tuple[str, ...] = (),
    ) -> None:
        self.folder = folder
        self.address = address
        self.space = space
        self.port, self._etcd_port, self._peer_port = ports
        self.server = f"https://{address}:{self.port}"
        self.credentials = Credentials(folder, (*_NAMES, address), nodes)
        self.programs = binaries.link(folder / "bin")
        self.admin = self.credentials.kubeconfig(self.server, ADMIN)
        self.audit_log = folder / "audit.log"
        self.etcd = Program("etcd", self._etcd_flags(), folder / "etcd.log", space=space)
        flags = [*self._server_flags(), *more_flags]
        self.apiserver = Program("kube-apiserver", flags, folder / "kube-apiserver.log", space=space)

    def start(self) -> None:
        """Start both and wait until the API server is ready. Raises LabFailureError."""
        self.etcd.start()
        self.start_apiserver()

    def start_apiserver(self) -> None:
        """Start the API server (again) and wait until it is ready. Raises LabFailureError."""
        self.apiserver.start()
        self.apiserver.await_ready(self.is_ready)

    def stop(self) -> None:
        """End both at once: nothing of theirs is worth keeping."""
        self.apiserver.stop(grace_s=0)
        self.etcd.stop(grace_s=0)

    def is_ready(self) -> bool:
        """Say whether the API server answers its own check with yes."""
        context = ssl.create_default_context(cafile=str(self.credentials.ca_file))
        asked = http.client.HTTPSConnection(self.address, self.port, timeout=5.0, context=context)
        try:
            with self.space.entered() if self.space else contextlib.nullcontext():
                asked.request("GET", "/readyz", headers={"Authorization": self._bearer()})
                return asked.getresponse().status == http.client.OK
        except (OSError, http.client.HTTPException):
            return False
        finally:
            asked.close()

    def _bearer(self) -> str:
        return f"Bearer {self.credentials.token_of(ADMIN)}"

    def _etcd_flags(self) -> list[str]:
        client = f"http://127.0.0.1:{self._etcd_port}"
        peer = f"http://127.0.0.1:{self._peer_port}"
        return [
            "etcd",
            f"--data-dir={self.folder}/etcd",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=default={peer}",
            "--log-level=warn",
        ]

    def _server_flags(self) -> list[str]:
        certificate, key = self.credentials.server_files
        client_certificate, client_key = self.credentials.client_files
        verifying, signing = self.credentials.accounts_files
        policy = self.folder / "audit.json"
        policy.write_text(json.dumps(_AUDIT))
        return [
            str(self.programs / "kube-apiserver"),
            f"--etcd-servers=http://127.0.0.1:{self._etcd_port}",
            f"--bind-address={self.address}",
            f"--secure-port={self.port}",
            f"--cert-dir={self.folder}/apiserver",
            f"--tls-cert-file={certificate}",
            f"--tls-private-key-file={key}",
            f"--kubelet-client-certificate={client_certificate}",
            f"--kubelet-client-key={client_key}",
            f"--client-ca-file={self.credentials.ca_file}",
            f"--token-auth-file={self.credentials.tokens_file}",
            f"--service-account-issuer={ISSUER}",
            f"--service-account-key-file={verifying}",
            f"--service-account-signing-key-file={signing}",
            f"--service-cluster-ip-range={SERVICE_RANGE}",
            "--authorization-mode=Node,RBAC",
            "--allow-privileged=true",
            "--feature-gates=MutatingAdmissionPolicy=true",
            "--runtime-config=admissionregistration.k8s.io/v1beta1=true",
            f"--audit-policy-file={policy}",
            f"--audit-log-path={self.audit_log}",
        ]
