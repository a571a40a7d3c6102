"""The bridge's process: from options to running threads, and its end.

Owns the process: threads, signals, the pages of health and metrics, the exit code. Decides nothing. It is
alive and ready as soon as it runs: Obot starts only when this does, and its storage answers only when Obot
has started. A bug anywhere ends the process with a traceback.
"""

from __future__ import annotations

import errno
import signal
import socket
from typing import Final, NamedTuple

from twisted.internet.error import CannotListenError

from enforcer import web
from enforcer.kube.access import Access, from_kubeconfig, in_cluster
from enforcer.obot.bridge import Bridge
from enforcer.obot.joining import join
from enforcer.obot.numbers import BridgeMetrics
from enforcer.obot.translation import Shape
from enforcer.records import LogRecords
from policy.runtime.clock import MonotonicReactor, install_reactor, now

EXIT_OK, EXIT_FAILED = 0, 1
_STOP_S: Final = 3.0
_NO_IPV6: Final = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL)


class Options(NamedTuple):
    """What ``nameward bridge`` was told."""

    storage: Access
    storage_namespace: str
    kubeconfig: str
    context: str
    shape: Shape
    succeeded: tuple[str, ...]
    listen: tuple[str, int] | None
    log_level: str
    log_form: str


def cluster_access(options: Options) -> Access:
    """Return how the cluster is reached. Raises ``AccessError``."""
    if options.kubeconfig:
        return from_kubeconfig(options.kubeconfig, options.context)
    return in_cluster()


def run(options: Options, cluster: Access) -> int:
    """Run until SIGTERM. Returns 0, or 1 after a failure."""
    records = LogRecords(socket.gethostname(), options.log_level, options.log_form)
    reactor = install_reactor()
    process = _Process(reactor, options, cluster, records)
    try:
        _listen(reactor, process.bridge, options.listen)
    except CannotListenError as error:
        reason = f"{error.interface} port {error.port} cannot be listened on: {error.socketError}"
        records.tell("bridge.cannot_start", "error", reason=reason)
        return EXIT_FAILED
    return process.run()


def _listen(reactor: MonotonicReactor, bridge: Bridge, where: tuple[str, int] | None) -> None:
    """Serve the pages; on IPv4 alone where this host has no IPv6. Raises ``CannotListenError``."""
    if where is None:
        return
    address, port = where
    pages = web.site(BridgeMetrics(bridge.numbers).registry, lambda: ())
    try:
        reactor.listenTCP(port, pages, interface=address)
    except CannotListenError as error:
        if address != "::" or getattr(error.socketError, "errno", None) not in _NO_IPV6:
            raise
        reactor.listenTCP(port, pages, interface="0.0.0.0")


class _Process:
    """The loop waits and serves; what is joined works in its threads."""

    def __init__(
        self, reactor: MonotonicReactor, options: Options, cluster: Access, records: LogRecords
    ) -> None:
        self._reactor = reactor
        self._records = records
        self._options = options
        self._code = EXIT_OK
        self._joined = join(
            storage=options.storage,
            storage_namespace=options.storage_namespace,
            cluster=cluster,
            shape=options.shape,
            succeeded=options.succeeded,
            records=records,
            now=now,
            died=self._died,
        )
        self.bridge = self._joined.bridge

    def run(self) -> int:
        """Turn the loop until a signal or a failure; return the exit code."""
        signal.signal(signal.SIGTERM, self._told_to_end)
        signal.signal(signal.SIGINT, self._told_to_end)
        told = {"storage": self._options.storage.server, "namespace": self._options.shape.namespace}
        self._records.tell("bridge.started", fields=told)
        self._joined.start()
        self._reactor.run(installSignalHandlers=False)
        self._joined.stop(_STOP_S)
        return self._code

    def _died(self) -> None:
        """End the process: a thread of ours ended by a mistake, and its traceback has been printed."""
        self._code = EXIT_FAILED
        self._reactor.callFromThread(self._reactor.stop)

    def _told_to_end(self, _number: int, _frame: object) -> None:
        self._reactor.callFromThread(self._reactor.stop)
