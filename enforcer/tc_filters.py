"""What is on the way into this node from an interface, before netfilter: tc's filters, by their names.

Owns the dump of filters by rtnetlink. Never changes one. Best effort, to name a culprit: programs that
are attached otherwise (tcx, netkit, XDP) are not listed here.
"""

from __future__ import annotations

import struct

from enforcer.netlink import NetlinkRefused, NetlinkSocket, attributes

_GETTFILTER = 46
_PARENTS = (0xFFFFFFF2, 0xFFFF0000)
"""Ingress of a clsact qdisc, and of the older ingress qdisc."""
_TCA_KIND, _TCA_OPTIONS, _TCA_BPF_NAME = 1, 2, 7
_LONGEST = 64


def filters_at(rtnetlink: NetlinkSocket, index: int) -> tuple[str, ...]:
    """Return kind and name (``bpf cil_from_container``) of each filter of one interface, each once."""
    found: dict[str, None] = {}
    for parent in _PARENTS:
        header = struct.pack("=BxHiIII", 0, 0, index, 0, parent, 0)
        try:
            answers = rtnetlink.dump(_GETTFILTER, header)
        except NetlinkRefused:
            continue  # no such qdisc, no such interface
        for answer in answers:
            fields = dict(attributes(answer.payload, 20))
            options = dict(attributes(fields.get(_TCA_OPTIONS, b"")))
            kind = _text(fields.get(_TCA_KIND, b""))
            found[f"{kind} {_text(options.get(_TCA_BPF_NAME, b'')) if kind == 'bpf' else ''}".strip()] = None
    return tuple(name for name in found if name)


def _text(value: bytes) -> str:
    return value.rstrip(b"\0").decode("ascii", "replace")[:_LONGEST]
