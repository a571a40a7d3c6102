"""``nameward blocked``: lookups that were refused and packets that were dropped, and why."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, datetime

import click

from enforcer.cli.asking import ask
from enforcer.cli.grants import pod_of, port_of, rule_of
from enforcer.cli.options import (
    DurationParameter,
    config_option,
    node_option,
    output_option,
    reader_settings,
)
from enforcer.cli.output import NODE, Column, Lines, Row, age, show

_SAME = ("kind", "namespace", "pod", "node", "name", "address", "protocol", "port", "policy", "rule")


def _what(row: Row) -> str:
    """Return the name of a lookup, the destination of a packet."""
    if not row["address"]:
        return str(row["name"])
    place = f"{row['address']} {port_of(row)}".rstrip()
    return f"{place} ({row['name']})" if row["name"] else place


def _color(row: Row) -> str:
    return "red" if row["kind"] == "packet" else "yellow"


def columns(now: datetime) -> tuple[Column, ...]:
    """Return the columns, with ages counted from ``now``."""
    return (
        Column("POD", pod_of),
        Column("KIND", lambda row: row["kind"], wide=True),
        Column("NAME OR ADDRESS", _what, style=_color),
        Column("TYPE", lambda row: row["qtype"], wide=True),
        Column("COUNT", lambda row: str(row["count"]), right=True),
        Column("LAST SEEN", lambda row: age(row["lastSeen"], now), right=True),
        Column("REASON", lambda row: row["reason"]),
        Column("RULE", rule_of, wide=True),
        Column("FIRST SEEN", lambda row: age(row["firstSeen"], now), wide=True, right=True),
        Column("POD IP", lambda row: row["podIP"], wide=True),
        NODE,
    )


def followed(*, with_node: bool) -> tuple[Column, ...]:
    """Return the columns of a listing that goes on."""
    listed = (column for column in columns(datetime.now(UTC)) if "SEEN" not in column.title)
    moment = Column("SEEN", lambda row: row["lastSeen"])
    return (
        moment,
        *(column._replace(wide=False) if with_node and column is NODE else column for column in listed),
    )


def grouped(rows: Iterable[Row]) -> list[Row]:
    """Put the types of one name (A and AAAA), and a pod's addresses, into one row; latest last."""
    groups: dict[tuple[object, ...], Row] = {}
    for row in rows:
        key = (*(row[field] for field in _SAME), "" if row["pod"] else row["podIP"])
        known = groups.get(key)
        if known is None:
            groups[key] = dict(row)
            continue
        types = dict.fromkeys([*known["qtype"].split(","), row["qtype"]])
        latest = max(known, row, key=lambda each: each["lastSeen"])
        known.update(
            qtype=",".join(types),
            count=known["count"] + row["count"],
            firstSeen=min(known["firstSeen"], row["firstSeen"]),
            podIP=latest["podIP"],
            reason=latest["reason"],
            lastSeen=latest["lastSeen"],
        )
    return sorted(groups.values(), key=lambda row: row["lastSeen"])


def _is_shared(runtime_dir: str) -> bool:
    """Say whether rows of other nodes may come."""
    return any(row.get("redis", "off") != "off" for row in ask(runtime_dir, "status", local=True))


@click.command()
@click.option("--since", type=DurationParameter(), help="Only what was seen in this time, such as 1h.")
@click.option("-n", "--namespace", default="", help="Only pods of this namespace.")
@click.option("--pod", default="", help="Only the pod of this name.")
@click.option("--raw", is_flag=True, help="Each by itself, not grouped.")
@click.option("-f", "--follow", is_flag=True, help="Go on, one line for each as it happens.")
@node_option
@output_option
@config_option
def blocked(
    *,
    since: float | None,
    namespace: str,
    pod: str,
    node: str,
    raw: bool,
    follow: bool,
    output: str,
    config: str | None,
) -> None:
    """List blocked lookups and denied packets, with the pod and the reason; the latest last.

    Where nodes share their state, those of all nodes.
    """
    settings = reader_settings(config)
    asked = {
        "namespace": namespace,
        "pod": pod,
        "node": node,
        "sinceSeconds": since or 0.0,
        "raw": raw or follow,
        "follow": follow,
    }
    rows = ask(settings.runtime_dir, "blocked", **asked)
    if follow:
        with suppress(KeyboardInterrupt):
            with_node = output == "table" and not node and _is_shared(settings.runtime_dir)
            lines = Lines(followed(with_node=with_node), output)
            for row in rows:
                lines.row(row)
        return
    found = sorted(rows, key=lambda row: str(row["lastSeen"])) if raw else grouped(rows)
    show(found, columns(datetime.now(UTC)), output, "Nothing was blocked.")
