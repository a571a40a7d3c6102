"""What one pod may cost the others: rate, questions in flight, distinct names.

Owns one Meter per pod. Never answers. Invariant: memory per pod is bounded, whatever it asks.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import lru_cache
from typing import Final

from policy.names import public_suffix, registrable_domain
from resolver.core_settings import CoreSettings

MAX_DOMAINS: Final = 1024
MAX_NAMES: Final = 32768
"""Registrable domains and names counted per pod; beyond, the half with the fewest names is forgotten:
a pod cannot have a domain forgotten whose count is high without spending as many names on others."""
UNLIMITED: Final = 1 << 40
MAX_METERS: Final = 65536
"""Clients that are counted; beyond, those with nothing in flight are forgotten."""


class _Domain:
    """The names of one registrable domain, the oldest first, each with the instant it was counted."""

    __slots__ = ("names", "oldest_at")

    def __init__(self, now: float) -> None:
        self.names: dict[int, float] = {}
        self.oldest_at = now

    def forget(self, horizon: float, now: float) -> int:
        """Forget what was counted by the horizon; return how many those were."""
        gone = []
        self.oldest_at = now
        for known, at in self.names.items():
            if at > horizon:
                self.oldest_at = at
                break
            gone.append(known)
        for known in gone:
            del self.names[known]
        return len(gone)


class Meter:
    """One pod's counts. The hot path reads ``left`` and ``window_end`` itself."""

    __slots__ = ("_domains", "_names", "in_flight", "left", "limited", "refused_at", "window_end")

    def __init__(self, *, limited: bool = True) -> None:
        self.limited = limited
        self.left = 0
        self.window_end = 0.0
        self.in_flight = 0
        self.refused_at = float("-inf")
        self._domains: dict[str, _Domain] = {}
        self._names = 0

    def take(self, now: float, per_second: int) -> bool:
        """Count one query; False if this second's are used up."""
        if now >= self.window_end:
            self.window_end = now + 1.0
            self.left = per_second if self.limited else UNLIMITED
        self.left -= 1
        return self.left >= 0

    @property
    def domains(self) -> int:
        """Registrable domains that are counted."""
        return len(self._domains)

    @property
    def names(self) -> int:
        """Distinct names that are counted."""
        return self._names

    def tells(self, now: float) -> bool:
        """Say whether a refusal is to be recorded: the first of a second."""
        if now < self.refused_at + 1.0:
            return False
        self.refused_at = now
        return True

    def count_name(self, name: str, now: float, settings: CoreSettings) -> str:
        """Count a distinct name; return its registrable domain if that has had too many, else ""."""
        domain = _domain_below(name[name.find(".") + 1 :] if "." in name else "") or registrable_domain(name)
        counted = self._domains.get(domain)
        if counted is None:
            if len(self._domains) >= MAX_DOMAINS or self._names >= MAX_NAMES:
                self._forget_half()
            counted = self._domains[domain] = _Domain(now)
        names = counted.names
        known = hash(name)  # keyed by this process's secret, and a tenth of the memory
        if known in names:
            return ""
        horizon = now - settings.distinct_names_period_s
        if counted.oldest_at <= horizon:
            self._names -= counted.forget(horizon, now)
        if len(names) >= settings.distinct_names:
            return domain
        names[known] = now
        self._names += 1
        return ""

    def _forget_half(self) -> None:
        domains = self._domains
        fewest = sorted(domains, key=lambda domain: len(domains[domain].names))[: (len(domains) + 1) // 2]
        for domain in fewest:
            self._names -= len(domains.pop(domain).names)


@lru_cache(maxsize=16384)
def _domain_below(parent: str) -> str:
    """Registrable domain of the names right below ``parent``; "" where each is one of its own."""
    return "" if public_suffix(parent) == parent else registrable_domain(parent)


class Meters:
    """Meters by pod uid, or by source for clients that are no pods."""

    def __init__(self) -> None:
        self._meters: dict[str | bytes, Meter] = {}

    def __len__(self) -> int:
        return len(self._meters)

    def of(self, asker: str | bytes, *, limited: bool = True) -> Meter:
        """Return the asker's meter; the node itself is not ``limited``."""
        meter = self._meters.get(asker)
        if meter is None:
            if len(self._meters) >= MAX_METERS:
                self.keep(())
            meter = self._meters[asker] = Meter(limited=limited)
        return meter

    def in_flight(self, asker: str | bytes) -> int:
        """How many of the asker's questions are under way."""
        meter = self._meters.get(asker)
        return meter.in_flight if meter is not None else 0

    def keep(self, uids: Collection[str]) -> None:
        """Forget pods that are gone, and other clients with nothing in flight."""
        self._meters = {
            asker: meter for asker, meter in self._meters.items() if asker in uids or meter.in_flight
        }
