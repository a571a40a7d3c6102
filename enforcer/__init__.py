"""The authority of its node: policy sources, grants, the kernel's ruleset, inspection.

Checks every grant request against its own snapshot before it touches the kernel. Never parses
a DNS message.
"""

from policy.build import path_of

__path__ = path_of(__name__, __path__)
