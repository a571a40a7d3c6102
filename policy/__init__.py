"""What may be reached: names, rules, pods, and the one function that decides.

Owns the meaning of a policy. Pure: takes time as an argument, never reads a clock, opens a
socket or writes a log. The quarantined exception is ``policy.runtime`` (clock, settings, the
framing of the authority socket), which only the wiring of the two programs imports.
"""

from policy.build import path_of

__path__ = path_of(__name__, __path__)
