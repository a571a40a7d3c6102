"""What is deployed into the cluster beside Nameward: cluster DNS, as installers deploy it.

Pure: objects as dicts.
"""

from __future__ import annotations

from typing import Any

from enforcer.demo import places

Json = dict[str, Any]

_COREFILE = """.:53 {{
    errors
    health
    ready
    kubernetes cluster.local in-addr.arpa ip6.arpa {{
       pods insecure
       fallthrough in-addr.arpa ip6.arpa
    }}
    forward . {upstream}
    cache 30
    reload
}}
"""


def cluster_dns(image: str, upstream: str) -> list[Json]:
    """CoreDNS behind the address that pods have as nameserver; it asks ``upstream`` for the rest."""
    namespace = "kube-system"
    labels = {"k8s-app": "kube-dns"}
    return [
        *_cluster_dns_account(namespace),
        _object(
            "v1", "ConfigMap", "coredns", namespace, data={"Corefile": _COREFILE.format(upstream=upstream)}
        ),
        _object("apps/v1", "Deployment", "coredns", namespace, spec=_deployment(image, labels)),
        _object(
            "v1",
            "Service",
            "kube-dns",
            namespace,
            spec={
                "selector": labels,
                "clusterIP": places.CLUSTER_DNS,
                "ports": [
                    {"name": "dns", "port": 53, "protocol": "UDP", "targetPort": 53},
                    {"name": "dns-tcp", "port": 53, "protocol": "TCP", "targetPort": 53},
                ],
            },
        ),
    ]


def _cluster_dns_account(namespace: str) -> list[Json]:
    name, group = "system:coredns", "rbac.authorization.k8s.io"
    reads = [
        {"apiGroups": [""], "resources": ["services", "pods", "namespaces"], "verbs": ["list", "watch"]},
        {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"]},
    ]
    account = {"kind": "ServiceAccount", "name": "coredns", "namespace": namespace}
    role = {"apiGroup": group, "kind": "ClusterRole", "name": name}
    return [
        _object("v1", "ServiceAccount", "coredns", namespace),
        _object(f"{group}/v1", "ClusterRole", name, rules=reads),
        _object(f"{group}/v1", "ClusterRoleBinding", name, roleRef=role, subjects=[account]),
    ]


def _deployment(image: str, labels: dict[str, str]) -> Json:
    return {
        "replicas": 1,
        "selector": {"matchLabels": labels},
        "template": {
            "metadata": {"labels": labels},
            "spec": {
                "serviceAccountName": "coredns",
                "dnsPolicy": "Default",
                "containers": [
                    {
                        "name": "coredns",
                        "image": image,
                        "imagePullPolicy": "Never",
                        "args": ["-conf", "/etc/coredns/Corefile"],
                        "readinessProbe": {"httpGet": {"path": "/ready", "port": 8181}, "periodSeconds": 1},
                        "volumeMounts": [{"name": "config", "mountPath": "/etc/coredns", "readOnly": True}],
                    }
                ],
                "volumes": [{"name": "config", "configMap": {"name": "coredns"}}],
            },
        },
    }


def _object(version: str, kind: str, name: str, namespace: str = "", **content: Any) -> Json:
    place = {"name": name, **({"namespace": namespace} if namespace else {})}
    return {"apiVersion": version, "kind": kind, "metadata": place, **content}
