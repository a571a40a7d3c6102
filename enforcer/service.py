"""The enforcer's process: from settings and inherited sockets to a running loop, and its end.

Owns the process: settings and their reload, signals, the exit code. Decides nothing. A bug anywhere
ends the process with a traceback: it is restarted and adopts what the kernel holds.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import cast

from twisted.logger import ILogObserver, LogEvent, LogLevel, globalLogBeginner
from twisted.python.failure import Failure

from enforcer.kernel import KernelRejected
from enforcer.kube.access import AccessError
from enforcer.records import LogRecords
from enforcer.removal import POD_UID, is_removed
from enforcer.removed import Removed
from enforcer.wiring import Wiring
from policy.runtime import pauses
from policy.runtime.account import AccountError, resolver_account
from policy.runtime.clock import MonotonicReactor, install_reactor
from policy.runtime.settings import Settings, SettingsError, load_settings, restart_needed

EXIT_OK, EXIT_FAILED, EXIT_USAGE = 0, 1, 2


def preload() -> None:
    """Everything heavy was imported with this module; no reactor is installed by it."""


def run(config_path: str, sockets: Mapping[str, socket.socket]) -> int:
    """Run until SIGTERM. Returns 0, 1 after a failure, 2 where settings or host do not allow a start."""
    path = config_path or None
    try:
        settings = load_settings(path, os.environ)
        account = resolver_account(settings.dns.user)
    except (SettingsError, AccountError) as error:
        print(error, file=sys.stderr)
        return EXIT_USAGE
    pauses.begin()
    records = LogRecords(settings.node, settings.log.level, settings.log.format)
    reactor = install_reactor()
    process = _Process(reactor, path, settings, records)
    try:
        if is_removed(Path(settings.runtime_dir), os.environ.get(POD_UID, "")):
            process.wiring = Removed(
                reactor=reactor, settings=settings, records=records, failed=process.failed
            )
        else:
            process.wiring = Wiring(
                reactor=reactor,
                settings=settings,
                records=records,
                resolver_uid=account.uid,
                sockets=sockets,
                failed=process.failed,
            )
        process.wiring.start()
    except AccessError as error:
        records.tell("enforcer.cannot_start", "error", reason=str(error))
        return EXIT_FAILED
    except (KernelRejected, OSError) as error:
        records.tell("enforcer.cannot_start", "error", reason=f"{error}; root and nf_tables are needed")
        return EXIT_FAILED
    return process.run()


class _Process:
    """Signals, reload and the end of one enforcer."""

    def __init__(
        self, reactor: MonotonicReactor, path: str | None, settings: Settings, records: LogRecords
    ) -> None:
        self._reactor = reactor
        self._path = path
        self._settings = settings
        self._records = records
        self._code = EXIT_OK
        self.wiring: Wiring | Removed | None = None

    def run(self) -> int:
        """Turn the loop until a signal or a failure; return the exit code."""
        globalLogBeginner.beginLoggingTo(
            [cast("ILogObserver", self._observe)], redirectStandardIO=False, discardBuffer=True
        )
        signal.signal(signal.SIGTERM, self._told_to_end)
        signal.signal(signal.SIGINT, self._told_to_end)
        signal.signal(signal.SIGHUP, self._told_to_reload)
        self._reactor.run(installSignalHandlers=False)
        if self.wiring is not None:
            self.wiring.close()
        return self._code

    def failed(self, failure: Failure) -> None:
        """End the process: something of ours is broken, and a fresh start is the repair."""
        failure.printTraceback(file=sys.stderr)
        self._code = EXIT_FAILED
        if self._reactor.running:
            self._reactor.stop()

    def _observe(self, event: LogEvent) -> None:
        """Twisted catches what its callbacks raise, and tells us here."""
        failure = event.get("log_failure")
        if failure is not None and event.get("log_level") == LogLevel.critical:
            self.failed(failure)

    def _told_to_end(self, _number: int, _frame: object) -> None:
        self._reactor.callFromThread(self._reactor.stop)

    def _told_to_reload(self, _number: int, _frame: object) -> None:
        self._reactor.callFromThread(self._reload)

    def _reload(self) -> None:
        """Read the settings again; bad ones are reported and the old ones stay."""
        wiring = self.wiring
        if wiring is None:
            return
        try:
            settings = load_settings(self._path, os.environ)
        except SettingsError as error:
            said = tuple(f"configuration not reloaded: {line}" for line in str(error).splitlines())
            wiring.node.configuration_problems = said
            self._records.tell("configuration.rejected", "error", reason="; ".join(said))
            wiring.source.look()
            return
        waiting = restart_needed(self._settings, settings)
        wiring.node.configuration_problems = tuple(f"{key} changes with a restart only" for key in waiting)
        self._records.at_level(settings.log.level)
        wiring.reload(settings)
