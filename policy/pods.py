"""Who asks: pods, the labels they carry and the Services in front of them.

Values only. A pod's identity is its uid; its addresses are what the kernel sees.
"""

from __future__ import annotations

import msgspec

Labels = dict[str, str]


class Pod(msgspec.Struct, frozen=True, kw_only=True):
    """One pod as its manifest declares it.

    ``addresses`` are textual, canonical (``ipaddress`` form), IPv4 and IPv6 mixed. ``governed``
    says whether Nameward governs the pod's namespace (default deny applies, policy or none).
    """

    namespace: str
    name: str
    uid: str
    addresses: tuple[str, ...]
    labels: Labels = {}
    node: str = ""
    governed: bool = True
    host_network: bool = False
    powers: tuple[str, ...] = ()
    """What its containers may do beyond a pod's own network: privileged, capabilities. Decides nothing."""

    @property
    def key(self) -> str:
        """``namespace/name``, as every table and record prints it."""
        return f"{self.namespace}/{self.name}"


class Service(msgspec.Struct, frozen=True, kw_only=True):
    """A Service: either a label selector or, without one, the addresses behind it."""

    namespace: str
    name: str
    selector: Labels | None = None
    addresses: tuple[str, ...] = ()
    """Pod addresses from EndpointSlices; with a selector they say nothing about which pods are behind it."""
    cluster_ips: tuple[str, ...] = ()


def labels_match(wanted: Labels, labels: Labels) -> bool:
    """Say whether every wanted label is present with that value (Kubernetes matchLabels)."""
    return all(labels.get(key) == value for key, value in wanted.items())
