"""The process that meets hostile bytes: DNS from pods and from upstreams.

Holds no capability, no token and no password. Decides with its own copy of the snapshot, asks
the enforcer for grants, and never answers with an address the kernel has not acknowledged.
"""

from policy.build import path_of

__path__ = path_of(__name__, __path__)
