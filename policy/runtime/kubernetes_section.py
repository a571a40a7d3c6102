"""The settings of ``policy.kubernetes``: how the API server of a cluster is reached.

Owns names, bounds and defaults of this section; the rest of the tree is in ``policy.runtime.sections``.
Never reads a file or a variable.
"""

from __future__ import annotations

from typing import Annotated

from policy.runtime.kinds import Count, Text
from policy.runtime.reader import Key
from policy.runtime.state_section import ABSOLUTE, Section

NAMESPACE = Text("a namespace's name", r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?", 63)
_CONTEXT = Text("a context's name", r"[^\x00-\x1f\x7f]+", 253)


class KubernetesSettings(Section, frozen=True, kw_only=True):
    """How the API server of a cluster is reached, where policy.source is kubernetes."""

    kubeconfig: Annotated[str, Key(ABSOLUTE, default="the pod's service account")] = ""
    """A kubeconfig file with a token, a token file or a client certificate.

    For a node program outside a pod; inside one the service account is there already.
    """
    context: Annotated[str, Key(_CONTEXT, default="its current one")] = ""
    """The context of kubeconfig.

    A kubeconfig may know several clusters.
    """
    events_per_hour: Annotated[int, Key(Count(0, 3600), restart=True)] = 60
    """Events that a node writes at its pods in an hour, at most, where their traffic is refused; 0 for none.

    `kubectl describe pod` explains a failing server; a pod that tries for ever must not fill etcd.
    """
    pod_namespace: Annotated[str, Key(NAMESPACE, restart=True, default="the service account's")] = ""
    """The namespace that Nameward itself is installed in.

    Its annotations say when Nameward is to remove its rules.
    """
