"""The resolver as a process: settings, privileges, reactor, signals, exit code.

Owns the order of the start: everything that needs a privilege or the configuration file first, then
``drop``, then the first byte from outside. Invariant: a bug ends the process with a record of it
(its supervisor starts the next); bad input never does.
"""

from __future__ import annotations

import importlib
import os
import signal
import socket
import sys
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as distribution_version
from typing import Any, cast

import dns.rdata
import dns.rdataclass
import dns.rdatatype
from twisted.internet import ssl
from twisted.logger import ILogObserver, LogEvent, LogLevel, globalLogBeginner
from twisted.python.failure import Failure

from policy.build import COMPILED
from policy.names import registrable_domain
from policy.runtime import pauses
from policy.runtime.account import AccountError, resolver_account
from policy.runtime.clock import MonotonicReactor, install_reactor
from policy.runtime.sections import Settings
from policy.runtime.settings import SettingsError, load_settings, restart_needed
from resolver.core_settings import QUERY_TYPES
from resolver.log import Log, StderrLog
from resolver.privileges import PrivilegesKept, drop
from resolver.pulse import Pulse
from resolver.wiring import Resolver

EXIT_OK, EXIT_FAILED, EXIT_USAGE = 0, 1, 2


def preload() -> None:
    """Import and build what is otherwise imported at first use; installs no reactor."""
    for name in QUERY_TYPES:
        dns.rdata.get_rdata_class(dns.rdataclass.IN, dns.rdatatype.from_text(name))  # type: ignore[no-untyped-call]
    ssl.platformTrust()
    registrable_domain("www.example.com")
    try:
        importlib.import_module("seccomp")
    except ImportError:
        return


def run(config_path: str | None, inherited: Mapping[str, object] | None = None) -> int:
    """Run the resolver until SIGTERM; return the exit code (0, 1 a failure, 2 the configuration).

    ``inherited`` is what a supervisor passes to every kind of worker; of it the resolver wants the
    socket by which it is asked how it is, and its number among several (``dns.processes``). Its DNS sockets
    come from its authority.
    """
    try:
        settings = load_settings(config_path, os.environ)
        account = resolver_account(settings.dns.user)
    except (SettingsError, AccountError) as error:
        print(error, file=sys.stderr)
        return EXIT_USAGE
    log = StderrLog(settings.node, settings.log.level, settings.log.format)
    try:
        is_filtered = drop(account.uid, account.gid)
    except (PrivilegesKept, OSError) as error:
        log.tell("resolver.failed", "error", reason=f"privileges: {error}")
        return EXIT_FAILED
    pauses.begin()
    log.tell("resolver.started", seccomp=is_filtered, uid=os.getuid(), compiled=COMPILED is not None)
    number = (inherited or {}).get("number")
    which = number if isinstance(number, int) else 0
    process = _Process(install_reactor(), config_path, settings, log, which)
    asked = (inherited or {}).get("pulse")
    if isinstance(asked, socket.socket):
        process.answer(asked)
    return process.run()


class _Process:
    """The running process: what signals and bugs do to it."""

    def __init__(
        self, reactor: MonotonicReactor, config_path: str | None, settings: Settings, log: Log, number: int
    ) -> None:
        self._reactor = reactor
        self._config_path = config_path
        self._settings = settings
        self._log = log
        self._code = EXIT_OK
        self._ending = False
        globalLogBeginner.beginLoggingTo(
            [cast(ILogObserver, self._twisted_said)], discardBuffer=True, redirectStandardIO=False
        )
        self._resolver = Resolver(reactor, settings, _version(), log, self._broken, number=number)

    def answer(self, asked: socket.socket) -> None:
        """Tell the supervisor how this resolver is, whenever it asks."""
        self._reactor.addReader(Pulse(asked, self._resolver.why_not_ready))

    def run(self) -> int:
        """Return the exit code when all is over."""
        for number, act in (
            (signal.SIGTERM, self._end),
            (signal.SIGINT, self._end),
            (signal.SIGHUP, self._reload),
        ):
            signal.signal(number, _soon(self._reactor, act))
        self._resolver.start()
        self._reactor.run(installSignalHandlers=False)
        return self._code

    def _end(self) -> None:
        if not self._ending:
            self._ending = True
            self._log.tell("resolver.ending")
            self._resolver.drain(self._reactor.stop)

    def _reload(self) -> None:
        """Take the settings as they are now, or keep the old ones and say so."""
        try:
            settings = load_settings(self._config_path, os.environ)
        except SettingsError as error:
            self._resolver.settings_rejected()
            self._log.tell("settings.rejected", "error", reason=str(error))
            return
        later = restart_needed(self._settings, settings)
        self._settings = settings
        self._resolver.use(settings)
        self._log.tell("settings.loaded", restart_needed=later)

    def _broken(self, failure: Failure) -> None:
        """A bug of ours: leave at once, the supervisor starts another."""
        if self._code != EXIT_OK:
            return  # the reactor closes what was open, and says so
        self._log.tell("resolver.failed", "error", reason=failure.getTraceback())
        self._code = EXIT_FAILED
        if self._reactor.running:
            self._reactor.stop()

    def _twisted_said(self, event: LogEvent) -> None:
        """Twisted logs an exception that left one of our callbacks, and goes on; we do not."""
        if event.get("log_level") is LogLevel.critical:
            failure: Any = event.get("log_failure") or event.get("failure")
            self._broken(failure or Failure(RuntimeError(event.get("log_format", ""))))


def _soon(reactor: MonotonicReactor, act: Any) -> Any:
    """Return a signal handler that has the reactor do it."""
    return lambda _number, _frame: reactor.callFromThread(act)


def _version() -> str:
    try:
        return distribution_version("nameward")
    except PackageNotFoundError:
        return "unknown"
