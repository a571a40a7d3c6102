"""``nameward explain``: may this pod reach that name, by which rule, or why not?

Asks the running node, or decides offline by the manifests that ``--manifests`` names: with the
same function, so the answer is the same.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import re
import sys
from typing import NamedTuple

import click
import yaml
from rich.text import Text

from enforcer.cli.asking import ask
from enforcer.cli.escaping import safe
from enforcer.cli.grants import pod_of, port_of
from enforcer.cli.manifests import governed, read
from enforcer.cli.options import (
    EXIT_FAILED,
    CommandFailure,
    UsageFailure,
    config_option,
    node_option,
    output_option,
    reader_settings,
)
from enforcer.cli.output import Row, console, span
from enforcer.worlds import world_of
from policy.addresses import to_packed
from policy.manifest import load_manifests
from policy.runtime.settings import Settings
from policy.snapshot import compile_snapshot


class Target(NamedTuple):
    """NAME[:PORT[/PROTO]]: a name or an address, and a port (None: some port)."""

    name: str
    address: str
    port: int | None
    protocol: str


def parse_target(text: str) -> Target:
    """Read what the user wrote; an IPv6 address with a port stands in brackets."""
    place, slash, protocol = text.partition("/")
    if slash and protocol not in {"tcp", "udp", "icmp"}:
        raise UsageFailure(f"{protocol} is not a protocol that policies know: tcp, udp, icmp")
    match = re.fullmatch(r"(?:\[([^\[\]]+)\]|([^:\[\]\s]+))(?::([0-9]{1,5}))?", place)
    host = (match[1] or match[2]) if match else place
    port = int(match[3]) if match and match[3] else None
    with contextlib.suppress(ValueError):
        return Target("", str(ipaddress.ip_address(host)), port, protocol or "tcp")
    if match is None or match[1] or (port or 0) > 65535:
        raise UsageFailure(f"{text} is not NAME, NAME:PORT or NAME:PORT/PROTO")
    return Target(host.rstrip(".").lower(), "", port, protocol or "tcp")


@click.command()
@click.argument("pod", metavar="NAMESPACE/POD")
@click.argument("name", metavar="NAME[:PORT[/PROTO]]")
@click.option("--manifests", metavar="DIR", multiple=True, help="Decide offline, by these manifests.")
@node_option
@output_option
@config_option
@click.pass_context
def explain(
    ctx: click.Context,
    *,
    pod: str,
    name: str,
    manifests: tuple[str, ...],
    node: str,
    output: str,
    config: str | None,
) -> None:
    """Say whether a pod may reach a name or address, by which policy and rule, or why not.

    Decided by the policies that this node knows, wherever the pod is; what is open now is shown of the
    pod's own node too, where its state is shared. Exit code 0 if it may, 1 if not.
    """
    settings = reader_settings(config)
    namespace, slash, pod_name = pod.partition("/")
    if not (namespace and slash and pod_name):
        raise UsageFailure(f"{pod} is not NAMESPACE/POD")
    target = parse_target(name)
    if manifests:
        row = _offline(settings, config, manifests, pod, target)
    else:
        asked = target._asdict() | {"namespace": namespace, "pod": pod_name, "node": node}
        rows = list(ask(settings.runtime_dir, "explain", **asked))
        if not rows:
            raise CommandFailure("the node gave no answer; see nameward status")
        row = rows[0]
    if output == "json":
        print(json.dumps(row))
    elif output == "yaml":
        sys.stdout.write(yaml.safe_dump(row, sort_keys=False))
    else:
        _show(row)
    if row["verdict"] != "permit":
        ctx.exit(EXIT_FAILED)


def _offline(settings: Settings, config: str | None, paths: tuple[str, ...], key: str, target: Target) -> Row:
    """Decide as a node with these manifests would."""
    loaded = load_manifests(read(paths), governed(settings, config))
    snapshot = compile_snapshot(world_of(loaded, settings, (), 1, complete=True))
    pod = snapshot.pod(key)
    if pod is None:
        raise CommandFailure(f"no Pod {key} is in these manifests; see nameward check")
    address = to_packed(target.address) if target.address else None
    decision = snapshot.decide(pod, target.name or None, address, target.protocol, target.port)
    return {
        "verdict": decision.verdict,
        "namespace": pod.namespace,
        "pod": pod.name,
        "node": pod.node,
        "name": target.name or target.address,
        "port": target.port,
        "protocol": target.protocol,
        "policy": decision.policy,
        "rule": decision.rule,
        "reason": decision.reason,
        "nearest": decision.nearest,
        "grants": [],
    }


def _show(row: Row) -> None:
    on = console()
    is_permitted = row["verdict"] == "permit"
    verdict = Text("permitted", "bold green") if is_permitted else Text("denied", "bold red")
    place = f"{row['name']} {port_of(row) if row['port'] is not None else ''}".rstrip()
    on.print(Text.assemble(f"{safe(pod_of({'podIP': '', **row}))} → {safe(place)}: ", verdict))
    by = "/".join(part for part in (row["policy"], row["rule"]) if part)
    for word, value in (
        ("node", row.get("node")),
        ("by", by),
        ("reason", row["reason"]),
        ("nearest pattern", row["nearest"]),
    ):
        if value:
            on.print(Text(f"  {word}: {safe(value)}"))
    for grant in row["grants"]:
        left = span(grant["remainingSeconds"])
        opened = "still recorded of a lost node" if grant.get("lost") else "open now"
        on.print(Text(f"  {opened}: {safe(grant['address'])} {safe(port_of(grant))}, {left} left"))
