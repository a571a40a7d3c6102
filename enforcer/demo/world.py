"""The outside world: a real authoritative name server, sites, an attacker, and proof by counting.

Owns the world's namespace. The proof that nothing reached the attacker is the kernel's own packet
counter in the world's first hook, before any program could miss a packet.
"""

from __future__ import annotations

import json
import socket
import subprocess
from pathlib import Path

from enforcer.demo import places, zones
from enforcer.demo.failure import LabFailureError
from enforcer.demo.processes import LONG_S, output_of, start, stop, wait_until
from enforcer.demo.servers import Arrival, Servers
from enforcer.demo.spaces import Space

_COUNTERS = f"""
table inet watch {{
  counter attacker {{ }}
  counter metadata {{ }}
  counter upstream {{ }}
  chain arrivals {{
    type filter hook prerouting priority -300; policy accept;
    ip daddr {places.ATTACKER_NET4} counter name attacker
    ip6 daddr {places.ATTACKER_NET6} counter name attacker
    ip daddr {places.METADATA} counter name metadata
    ip daddr {places.UPSTREAM4} meta l4proto {{ tcp, udp }} th dport 53 counter name upstream
    ip6 daddr {places.UPSTREAM6} meta l4proto {{ tcp, udp }} th dport 53 counter name upstream
  }}
}}
"""


class World:
    """Everything outside the node. Start it after its namespace has its addresses."""

    def __init__(self, folder: Path) -> None:
        self.space = Space("world")
        self._folder = folder
        self._servers = Servers(self.space)
        self._nsd: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start counting, serving and answering; returns when the name server answers."""
        self._folder.mkdir()
        for origin in zones.ORIGINS:
            (self._folder / f"{origin}.zone").write_text(zones.zone(origin))
        configuration = self._folder / "nsd.conf"
        configuration.write_text(zones.configuration(self._folder))
        output_of(self.space, ["nft", "-f", "-"], _COUNTERS)
        self._servers.start()
        log = self._folder / "nsd.out"
        self._nsd = start(self.space, ["nsd", "-d", "-c", str(configuration)], log)
        if not wait_until(self._answers, LONG_S):
            said = "".join(path.read_text() for path in (log, self._folder / "nsd.log") if path.exists())
            raise LabFailureError(f"nsd did not start: {said[-400:].strip()}")

    def _answers(self) -> bool:
        with self.space.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.settimeout(1)
            return probe.connect_ex((places.UPSTREAM4, 53)) == 0

    def counted(self, counter: str) -> int:
        """Return the packets seen so far: ``attacker``, ``metadata`` or ``upstream`` (to nsd)."""
        text = output_of(self.space, ["nft", "-j", "list", "counter", "inet", "watch", counter])
        return next(
            int(row["counter"]["packets"]) for row in json.loads(text)["nftables"] if "counter" in row
        )

    def attacker_heard(self) -> list[Arrival]:
        """Return what the attacker's programs were told since the last ``forget``."""
        return [
            arrival
            for arrival in list(self._servers.arrivals)
            if arrival.local.startswith(("44.66.", "2a10:6600:"))
        ]

    def told(self, text: str) -> int:
        """Return how many datagrams and requests with exactly this text have arrived."""
        return sum(arrival.text == text for arrival in list(self._servers.arrivals))

    def uploaded(self, transfer: str) -> int:
        """Return how many octets have arrived of a transfer, by the name its client gave it."""
        return self._servers.uploaded.get(transfer, 0)

    def forget(self) -> None:
        """Set every counter and record to zero."""
        self._servers.arrivals.clear()
        output_of(self.space, ["nft", "reset", "counters", "table", "inet", "watch"])

    def stop(self) -> None:
        """End the programs and let the namespace go."""
        if self._nsd is not None:
            stop(self._nsd)
        self._servers.stop()
        self.space.close()
