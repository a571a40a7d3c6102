"""Worlds in a line each: pods, policies and ranges for scenarios and fuzz tests.

Owns a short notation (README.md beside it) for ``policy.world.World``. Never decides anything.
"""

from __future__ import annotations

from policy.pods import Pod
from policy.rules import Destination, Policy, PortRange, Rule
from policy.world import World


def read_world(lines: list[str], generation: int) -> World:
    """Build the world that the lines describe; ``ValueError`` for a line that says nothing known."""
    pods: list[Pod] = []
    rules: dict[str, list[Rule]] = {}
    fields: dict[str, object] = {}
    ranges: dict[str, list[str]] = {"cluster": [], "node": [], "private": [], "dns": []}
    for line in lines:
        word, *rest = line.split()
        if word == "pod":
            pods.append(_pod(rest))
        elif word in ("permit", "deny", "watch"):
            policy, rule = _rule(word, rest)
            rules.setdefault(policy, []).append(rule)
        elif word in ranges:
            ranges[word] += rest
        elif word == "govern":
            fields["cluster_traffic"] = "govern"
        elif word == "unloaded":
            fields["loaded"] = False
        else:
            raise ValueError(f"unknown in a world: {line}")
    policies = []
    for key, found in rules.items():
        namespace, name = key.split("/")
        policies.append(
            Policy(namespace=namespace, name=name, kind="FirewallPolicy", rules=tuple(found), source="")
        )
    return World(
        generation=generation,
        pods=tuple(pods),
        policies=tuple(policies),
        cluster_cidrs=tuple(ranges["cluster"]),
        node_addresses=tuple(ranges["node"]),
        private_zones=tuple(ranges["private"]),
        dns_addresses=tuple(ranges["dns"]),
        **fields,
    )


def _pod(words: list[str]) -> Pod:
    """``NS/NAME ADDRESS… [uid=UID] [ungoverned] [host]``."""
    namespace, name = words[0].split("/")
    uid = next((word[4:] for word in words if word.startswith("uid=")), f"uid-{name}")
    return Pod(
        namespace=namespace,
        name=name,
        uid=uid,
        addresses=tuple(word for word in words[1:] if word[0] in "0123456789abcdef" and word not in _FLAGS),
        governed="ungoverned" not in words,
        host_network="host" in words,
    )


_FLAGS = frozenset({"ungoverned", "host"})


def _rule(word: str, words: list[str]) -> tuple[str, Rule]:
    """``NS/POLICY/RULE [NAMES,…|-] [PROTOCOL/PORT[-LAST]] [public|anywhere|CIDR]…``."""
    namespace, policy, name = words[0].split("/")
    names: tuple[str, ...] | None = None
    protocol, ports = "any", None
    destinations: list[Destination] = []
    for item in words[1:]:
        head, slash, tail = item.partition("/")
        if item in ("public", "anywhere"):
            destinations.append(Destination(kind=item))
        elif slash and head in ("tcp", "udp"):
            first, _, last = tail.partition("-")
            protocol, ports = head, PortRange(int(first), int(last or first))
        elif slash:
            destinations.append(Destination(kind="cidr", cidr=item))
        else:
            names = tuple(item.split(","))
    rule = Rule(
        name=name,
        action="deny" if word == "deny" else "permit",
        destinations=tuple(destinations) or (Destination(kind="public"),),
        web_groups=names,
        protocol=protocol,
        ports=ports if ports or names is None or word == "deny" else PortRange(443, 443),
        watch=word == "watch",
    )
    if rule.ports and protocol == "any":
        rule = Rule(**{field: getattr(rule, field) for field in rule.__struct_fields__} | {"protocol": "tcp"})
    return f"{namespace}/{policy}", rule
