"""Ask the running node, over the inspection socket of its ``runtimeDir``.

Owns the connection: one JSON line out, JSON lines back; warnings among them go to standard error. Never
changes anything on the node; needs no privilege but to open that socket.
"""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Iterator
from typing import Any

from enforcer.cli.escaping import safe
from enforcer.cli.options import CommandFailure
from enforcer.cli.output import Row

ANSWER_WITHIN_S = 10.0


class NotRunning(CommandFailure):
    """Nobody answers at the socket."""


def ask(runtime_dir: str, command: str, **arguments: Any) -> Iterator[Row]:
    """Yield the rows of the answer as they come; with ``follow=True`` until the node ends.

    Raises ``NotRunning`` if nobody is there, ``CommandFailure`` if the node says no.
    """
    path = f"{runtime_dir}/inspect.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as peer:
        peer.settimeout(ANSWER_WITHIN_S)
        try:
            peer.connect(path)
            peer.sendall(json.dumps({"command": command, **arguments}).encode() + b"\n")
            if arguments.get("follow"):
                peer.settimeout(None)
            with peer.makefile("rb") as lines:
                yield from _rows(lines)
        except PermissionError:
            raise CommandFailure(f"{path} may not be opened; run this as a user who may") from None
        except TimeoutError:
            message = f"the node does not answer at {path}; see its log (journalctl -u nameward)"
            raise CommandFailure(message) from None
        except OSError as error:
            message = f"no Nameward answers at {path} ({error.strerror}); start it, or name its --config"
            raise NotRunning(message) from None


def _rows(lines: Any) -> Iterator[Row]:
    for line in lines:
        said = json.loads(line)
        if "row" in said:
            yield said["row"]
        elif "error" in said:
            raise CommandFailure(str(said["error"]))
        elif "warning" in said:
            print(f"nameward: warning: {safe(str(said['warning']))}", file=sys.stderr)
        elif "end" in said:
            return
    raise CommandFailure("the node ended before its answer did; ask again")
