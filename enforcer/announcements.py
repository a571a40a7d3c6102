"""What a change has done, told as log records.

Owns the records of pods and revocations. Never in the way of the change itself: it is called after
the snapshot was published. Invariant: one change tells of at most ``MOST`` revocations one by one.
"""

from __future__ import annotations

from collections.abc import Sequence

from enforcer.identity import Identity
from enforcer.inspection import port_text
from enforcer.records import Records
from enforcer.revision import Revision, Revoked
from policy.addresses import from_packed

MOST = 200


def pod(records: Records, event: str, identity: Identity) -> None:
    """Tell that a pod's address came (``pod.seen``) or went (``pod.gone``)."""
    records.tell(event, fields={**_who(identity), "interface": identity.interface})


def revocations(records: Records, revisions: Sequence[Revision], generation: int) -> None:
    """Tell of every revocation of a change, or of the first ones and how many more there were."""
    told = 0
    for revision in revisions:
        for revoked in revision.revoked:
            told += 1
            if told <= MOST:
                _revoked(records, revision.account.identity, revoked, generation)
    if told > MOST:
        records.tell(
            "grant.revoked",
            fields={"count": told - MOST, "generation": generation, "reason": "as those before it"},
        )


def _revoked(records: Records, identity: Identity, revoked: Revoked, generation: int) -> None:
    holding, reasons, cut = revoked
    first, opens = min(reasons), holding.opens
    fields = {
        **_who(identity),
        "name": first.name,
        "address": from_packed(opens.destination),
        "protocol": opens.protocol,
        "port": port_text(opens.protocol, opens.first, opens.last),
        "policy": first.policy,
        "rule": first.rule,
        "reason": "no longer permitted" + ("" if cut else "; established connections may finish"),
        "generation": generation,
    }
    records.tell("grant.revoked", fields=fields)


def _who(identity: Identity) -> dict[str, object]:
    return {
        "namespace": identity.namespace,
        "pod": identity.pod,
        "uid": identity.uid,
        "podIP": from_packed(identity.source),
    }
