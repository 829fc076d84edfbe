"""Staying inside of LimaCharlie's rate limit, as its answers tell it."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping

from pipeline.core.clock import Clock
from pipeline.kit.backoff import Backoff

MAX_PAUSE = 3600.0
"""No demand of the other side keeps us away longer than this many seconds."""
_PERIOD = 60.0
"""LimaCharlie's window in seconds, where an answer names a quota only."""
_MEMORY = 10_000
"""Quotas above this are not counted for: nothing here sends as fast."""


def _number(headers: Mapping[str, str], name: str) -> int | None:
    text = headers.get(name, "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 12 else None


def period(headers: Mapping[str, str]) -> float | None:
    """Seconds of the window that ``X-RateLimit-Period`` names."""
    found = _number(headers, "X-RateLimit-Period")
    return None if found is None else min(float(found), MAX_PAUSE)


class Throttle:
    """When the next request to one service may leave: after a pause that was asked for, and as the quota allows.

    ``X-RateLimit-Quota`` requests may leave in any window; those of other programs with the same key are not seen, which is what
    the pause is for.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._not_before = -math.inf
        self._left: deque[float] = deque(maxlen=_MEMORY)
        """When the last requests left, or will; as many as the quota, once it is known."""
        self._period = 0.0
        self._pause = Backoff(base=5.0, cap=60.0)

    def learn(self, headers: Mapping[str, str]) -> None:
        """Take the quota from an answer that names one."""
        quota = _number(headers, "X-RateLimit-Quota")
        if quota is None or not 0 < quota <= _MEMORY:
            return
        self._period = period(headers) or _PERIOD
        if quota != self._left.maxlen:
            self._left = deque(self._left, maxlen=quota)

    def pause(self, seconds: float | None) -> None:
        """Let nothing leave for so long; None or 0 where the other side did not say for how long."""
        self._not_before = self._clock.monotonic() + (seconds or self._pause.next())

    def wait(self) -> float:
        """Seconds until the next request may leave; 0 or less for now."""
        now = self._clock.monotonic()
        wait = self._not_before - now
        if self._period and len(self._left) == self._left.maxlen:
            wait = max(wait, self._left[0] + self._period - now)
        return wait

    def leave(self, wait: float) -> None:
        """Count a request that leaves in ``wait`` seconds."""
        self._left.append(self._clock.monotonic() + max(0.0, wait))

    def answered(self) -> None:
        """Note a request that was not refused for coming too often."""
        self._pause.reset()
