"""What several nodes share through Redis: grants, records, health, and answers for each other's pods.

Nothing here is an authority: Redis may be lost, lie, or be empty, and this node enforces as if it were
alone. The rest of the enforcer does not know this package; ``enforcer.wiring`` joins them.
"""

from policy.build import path_of

__path__ = path_of(__name__, __path__)
