"""Exponential back-off with full jitter and a cap."""

from __future__ import annotations

import random


class Backoff:
    """Waits between tries: uniform between 0 and ``base * 2**tries``, never over ``cap`` (all in seconds).

    The first wait has a floor of a tenth of ``base``, so that a peer which ends at once cannot make a busy loop.
    """

    def __init__(self, base: float = 0.5, cap: float = 60.0, *, rng: random.Random | None = None) -> None:
        self.base = base
        self.cap = cap
        self.tries = 0
        self._rng = rng or random.Random()

    def next(self) -> float:
        """Seconds to wait before the next try."""
        limit = min(self.cap, self.base * 2.0 ** min(self.tries, 40))
        self.tries += 1
        return max(self._rng.uniform(0.0, limit), self.base * 0.1)

    def reset(self) -> None:
        """Start over after a success."""
        self.tries = 0
