"""The controller's process: wait for the Lease, lead while it is held, wait again.

Owns the process: signals, the exit code, the terms. Decides nothing. A bug anywhere ends the process; the
other replica leads then, and nothing on any node changes.
"""

from __future__ import annotations

import os
import secrets
import signal
import sys
import threading
from importlib.metadata import PackageNotFoundError, version

from enforcer.controller.election import Election
from enforcer.controller.leading import Term
from enforcer.controller.vital import Vital
from enforcer.kube.access import AccessError
from enforcer.kube.client import Api
from enforcer.records import LogRecords
from enforcer.sources.kubernetes.opening import access_of
from policy.runtime.clock import now
from policy.runtime.settings import Settings, SettingsError, load_settings

EXIT_OK, EXIT_FAILED, EXIT_USAGE = 0, 1, 2


def run(config_path: str, lease: str, health: str) -> int:
    """Run until SIGTERM; tell how it is at the path ``health``, if any.

    Returns 0, 1 after a failure, 2 where settings do not allow a start.
    """
    try:
        settings = load_settings(config_path or None, os.environ)
        access = access_of(settings)
        vital = Vital(health) if health else None
    except (SettingsError, AccessError) as error:
        print(f"nameward: {error}", file=sys.stderr)
        return EXIT_USAGE
    except OSError as error:
        print(f"nameward: no socket can be made at {health}: {error.strerror}", file=sys.stderr)
        return EXIT_USAGE
    process = _Process(settings, Api(access, user_agent=f"nameward-controller/{_version()}"), vital)
    namespace = settings.policy.kubernetes.pod_namespace or access.namespace
    return process.run(namespace, lease)


def _version() -> str:
    try:
        return version("nameward")
    except PackageNotFoundError:
        return "unknown"


class _Process:
    def __init__(self, settings: Settings, api: Api, vital: Vital | None) -> None:
        self._settings = settings
        self._vital = vital
        self._api = api
        self._records = LogRecords(settings.node, settings.log.level, settings.log.format)
        self._ended = threading.Event()
        self._code = EXIT_OK
        self._told = ""

    def run(self, namespace: str, lease: str) -> int:
        """Take part until a signal comes or something of ours is broken."""
        signal.signal(signal.SIGTERM, self._told_to_end)
        signal.signal(signal.SIGINT, self._told_to_end)
        identity = f"{self._settings.node}_{secrets.token_hex(4)}"
        election = Election(self._api, namespace, lease, identity)
        self._records.tell(
            "controller.started", fields={"lease": f"{namespace}/{lease}", "identity": identity}
        )
        if self._vital is not None:
            self._vital.start()
        while not self._ended.is_set():
            election.step()
            self._turned(election)
            if election.watcher.is_leading:
                self._lead(election)
            else:
                self._ended.wait(max(0.0, election.watcher.look_at(now()) - now()))
        return self._code

    def _lead(self, election: Election) -> None:
        """Serve one term."""
        watcher = election.watcher
        self._records.tell("controller.leading")
        term = Term(self._api, self._settings.policy.governed_namespaces, self._records, self._died)
        term.start()
        try:
            while watcher.is_leading and not self._ended.is_set():
                if now() >= watcher.look_at(now()):
                    election.step()
                self._turned(election)
                term.turn(watcher.look_at(now()), lambda: self._may_write(election))
        finally:
            if self._ended.is_set():
                election.release()
            term.stop()
        self._records.tell("controller.standby", fields={"written": term.written})

    def _may_write(self, election: Election) -> bool:
        return election.watcher.may_write(now()) and not self._ended.is_set()

    def _turned(self, election: Election) -> None:
        """Say how it is: to whoever asks, and in a record where that is trouble not told yet."""
        sentence = election.trouble
        if sentence and sentence != self._told:
            self._records.tell("controller.trouble", "warning", reason=sentence)
        self._told = sentence
        if self._vital is not None:
            state = "leading" if election.watcher.is_leading else "another replica leads"
            self._vital.turned(sentence or state, is_ready=not sentence)

    def _told_to_end(self, _number: int, _frame: object) -> None:
        self._ended.set()

    def _died(self) -> None:
        """A thread ended by a mistake of ours: end the process, and let it be started again."""
        self._code = EXIT_FAILED
        self._ended.set()
