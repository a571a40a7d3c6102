"""``nameward demo``: a poisoned MCP server on this machine, contained by the real kernel.

Owns the lab (network namespaces, an outside world with a real name server, pods, the daemon) and
the scenes that are played in it. Plays pods and strangers, so it opens sockets of its own; nothing
of Nameward imports it but the command line. Leaves nothing behind.
"""

from enforcer.demo.run import run

__all__ = ["run"]
