"""Load for the scenes in which something is killed: lookups without pause, and a siege.

Owns two threads' worth of work and their counts. Judges nothing.
"""

from __future__ import annotations

import itertools
import threading
import time

from enforcer.demo import places
from enforcer.demo.pods import Pod
from enforcer.demo.processes import LONG_S

_PATIENCE_S = 3.0
"""Room for the kernel to repeat a SYN (after 1 s) that was dropped while the rules were away."""


class Lookups:
    """A pod that resolves names and connects to the answers, without a pause, until stopped."""

    def __init__(self, pod: Pod) -> None:
        self._pod = pod
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.asked = self.lost = self.repeated = self.unreached = 0
        self.failures: set[str] = set()
        """How the lost ones ended: response codes, or TIMEOUT."""

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def _run(self) -> None:
        for name in itertools.cycle(places.BULK_NAMES):
            if self._stopping.is_set():
                return
            v4, v6 = self._pod.stub.pair(name)
            self.asked += 2
            self.lost += (not v4.addresses) + (not v6.addresses)
            self.repeated += (v4.tries > 1) + (v6.tries > 1)
            self.failures |= {answer.rcode for answer in (v4, v6) if not answer.addresses}
            for address in v4.addresses + v6.addresses:
                self.unreached += not self._pod.connect(address, wait_s=_PATIENCE_S).ok

    def stop(self) -> None:
        """End after the lookup in hand."""
        self._stopping.set()
        self._thread.join(LONG_S)


class Siege:
    """A pod that tries the attacker's address and name all the time; counts what got through."""

    def __init__(self, pod: Pod) -> None:
        self._pod = pod
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.tried = self.opened = self.answered = 0

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def _run(self) -> None:
        while not self._stopping.is_set():
            self.tried += 1
            self.opened += self._pod.connect(places.ATTACKER4, wait_s=0.2).ok
            self.opened += self._pod.connect(places.ATTACKER6, wait_s=0.2).ok
            self.answered += bool(self._pod.stub.ask(places.DROP).addresses)
            time.sleep(0.005)

    def stop(self) -> None:
        """End after the try in hand."""
        self._stopping.set()
        self._thread.join(LONG_S)
