"""What this node writes: its grants, pods, refusals and heartbeat, kept equal to what it holds. Pure."""

from policy.build import path_of

__path__ = path_of(__name__, __path__)
