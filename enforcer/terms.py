"""Why and until when something is open, as a value that many grants share.

Pure. Owns how a further reason joins those that are there. Never knows whose grant it is, nor of what.
Invariant: what an account holds of it never changes; what is prolonged or revised gets another.
"""

from __future__ import annotations

from enforcer.ways import Permitted, Rule, Way, permitted_by
from policy.grants import Reason, Reasons

NEVER = float("-inf")
MAX_REASONS = 64
"""Reasons one element keeps; beyond it the one that ends first makes room."""
_NOBODY: Rule = ("", "")


class Term:
    """Why and until when something is open in one way: shared by all destinations that one answer opened.

    ``until`` is the monotonic instant at which the kernel stops new connections, ``NEVER`` once it has
    been told to; ``because`` that until which the one reason holds, ``NEVER`` if there is none;
    ``realized_at`` that of the kernel's first ACK. Nearly all have one reason; only several are in ``more``.
    """

    __slots__ = ("because", "by", "more", "name", "realized_at", "until")

    def __init__(self, by: Permitted, name: str, until: float) -> None:
        self.by = by
        self.name = name
        self.until = until
        self.because = until
        self.realized_at = 0.0
        self.more: dict[Reason, float] | None = None

    @property
    def reasons(self) -> Reasons:
        """Why it is open, each reason with the instant until which it holds."""
        if self.more is not None:
            return self.more
        if self.because == NEVER:
            return {}
        return {Reason(self.name, *self.by.rule): self.because}

    @property
    def only(self) -> Reason | None:
        """Its reason, if it has just one."""
        if self.more is not None or self.because == NEVER:
            return None
        return Reason(self.name, *self.by.rule)

    @property
    def said(self) -> tuple[object, ...]:
        """All that it says; equal terms say the same."""
        more = tuple(self.more.items()) if self.more is not None else ()
        return self.by, self.name, self.until, self.because, self.realized_at, more

    def joined(self, further: Term, now: float) -> Term:
        """Return the term of what is open already and is opened again: the later instants, both reasons."""
        both = Term(self.by, self.name, self.until)
        both.because, both.realized_at, both.more = self.because, self.realized_at, self.more
        if further.until > self.until:
            both.until = further.until
            if self.until <= now:
                both.realized_at = now
        if self.more is None and self.because == NEVER:
            both.by, both.name, both.because = further.by, further.name, further.because
        elif self.more is None and self.name == further.name and self.by.rule == further.by.rule:
            both.because = max(self.because, further.because)
        else:
            both.more = _with(self.reasons, Reason(further.name, *further.by.rule), further.because)
        return both


def _with(reasons: Reasons, reason: Reason, until: float) -> dict[Reason, float]:
    """Return the reasons and a further one, or the later instant of one that is there; bounded."""
    both = dict(reasons)
    both[reason] = max(until, both.get(reason, NEVER))
    if len(both) > MAX_REASONS:
        del both[min(both, key=both.__getitem__)]
    return both


def term_of(way: Way, reasons: Reasons, until: float, realized_at: float) -> Term:
    """Return the term of what these reasons open."""
    term = Term(permitted_by(way, _NOBODY), "", NEVER)
    if len(reasons) == 1:
        for (name, policy, rule), because in reasons.items():
            term = Term(permitted_by(way, (policy, rule)), name, because)
    elif reasons:
        term.more = dict(reasons)
    term.until, term.realized_at = until, realized_at
    return term
