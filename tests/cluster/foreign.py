"""Another product's definitions of FirewallPolicy and WebgroupPolicy: their fields, written down anew.

As generated from Go types: structural, so that unknown fields are pruned; optional nearly everywhere; a
status without conditions; no columns.
"""

from __future__ import annotations

import json
from typing import Any

Json = dict[str, Any]

TEXT: Json = {"type": "string"}
TEXTS: Json = {"type": "array", "items": TEXT}
FOREIGN = ("accountId", "accountName", "region", "zone", "s2c", "external")
KUBERNETES = ("k8sClusterId", "k8sNamespace", "k8sPodName", "k8sService")
MAP: Json = {"type": "object", "additionalProperties": TEXT}
ONE_OF_TWO = "has(self.name) != has(self.uuid)"
REFERENCES: Json = {
    "type": "array",
    "items": {
        "type": "object",
        "properties": {"name": TEXT, "uuid": TEXT},
        "x-kubernetes-validations": [{"rule": ONE_OF_TWO, "message": "exactly one of name and uuid"}],
    },
}
ASSIGNED: Json = {
    "type": "array",
    "items": {"type": "object", "required": ["name"], "properties": {"name": TEXT, "uuid": TEXT}},
}
SELECTOR: Json = {"type": "object", "properties": {"matchLabels": MAP, "service": TEXT}}
RULE: Json = {
    "type": "object",
    "required": ["name", "destinationSmartGroups"],
    "properties": {
        "name": {"type": "string", "minLength": 1},
        "action": {"type": "string", "enum": ["permit", "deny", "intrusion_detection_permit"]},
        "selector": SELECTOR,
        "destinationSmartGroups": REFERENCES | {"minItems": 1},
        "webGroups": REFERENCES,
        "protocol": {"type": "string", "enum": ["tcp", "udp", "icmp", "any"]},
        "port": {"type": "integer"},
        "endPort": {"type": "integer"},
        "logging": {"type": "boolean"},
        "logProfile": TEXT,
        "watch": {"type": "boolean"},
        "flowAppRequirement": {"type": "string", "enum": ["tlsRequired", "tlsNotRequired"]},
        "decryptPolicy": {"type": "string", "enum": ["decryptAllowed", "decryptNotAllowed"]},
        "tlsProfile": TEXT,
    },
}
SMART_GROUP: Json = {
    "type": "object",
    "required": ["name"],
    "properties": {
        "name": TEXT,
        "selectors": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    **dict.fromkeys(("cidr", "type", "name", *KUBERNETES, *FOREIGN), TEXT),
                    "tags": MAP,
                    "extArgs": MAP,
                },
            },
        },
    },
}
WEB_GROUP: Json = {"type": "object", "required": ["name"], "properties": {"name": TEXT, "domains": TEXTS}}
FIREWALL_SPEC: Json = {
    "type": "object",
    "properties": {
        "rules": {"type": "array", "minItems": 1, "items": RULE},
        "smartGroups": {"type": "array", "items": SMART_GROUP},
        "webGroups": {"type": "array", "items": WEB_GROUP},
    },
}
FIREWALL_STATUS: Json = {
    "type": "object",
    "properties": {
        "attachmentPoint": TEXT,
        "ruleset": TEXT,
        "lastReconciledGeneration": {"type": "integer", "format": "int64"},
        "smartGroups": ASSIGNED,
        "webGroups": ASSIGNED,
    },
}
WEB_SPEC: Json = {
    "type": "object",
    "required": ["allowedDomains"],
    "properties": {"allowedDomains": TEXTS, "selector": SELECTOR},
}
WEB_STATUS: Json = {
    "type": "object",
    "properties": {
        "appDomainUuid": TEXT,
        "policyUuid": TEXT,
        "smartGroupUUID": TEXT,
        "lastReconciledGeneration": {"type": "integer", "format": "int64"},
    },
}


def foreign_kinds() -> str:
    """Both definitions, as a list in JSON."""
    kinds = [
        definition("FirewallPolicy", "firewallpolicies", FIREWALL_SPEC, FIREWALL_STATUS),
        definition("WebgroupPolicy", "webgrouppolicies", WEB_SPEC, WEB_STATUS),
    ]
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": kinds})


def definition(kind: str, plural: str, spec: Json, status: Json) -> Json:
    """One definition."""
    group = "networking.aviatrix.com"
    schema = {
        "type": "object",
        "required": ["spec"],
        "properties": {
            "apiVersion": TEXT,
            "kind": TEXT,
            "metadata": {"type": "object"},
            "spec": spec,
            "status": status,
        },
    }
    version = {
        "name": "v1alpha1",
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": schema},
        "subresources": {"status": {}},
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{group}"},
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": {
                "kind": kind,
                "listKind": f"{kind}List",
                "plural": plural,
                "singular": kind.lower(),
            },
            "versions": [version],
        },
    }
