"""The one impure floor that both programs share: clock, settings, framing.

Only the wiring of the two programs imports it; nothing in ``policy`` outside this package does.
"""

from policy.build import path_of

__path__ = path_of(__name__, __path__)
