"""What can go wrong with the lab itself, as two exceptions a person can act on.

Owns the words; raises nothing. A failure of Nameward is a failed step, never one of these.
"""

from __future__ import annotations


class LabFailureError(Exception):
    """Something of the lab (not of Nameward) did not do its part; the text says what."""


class CannotRunHereError(Exception):
    """This machine lacks something the demo needs; the text says what it is and what to do."""
