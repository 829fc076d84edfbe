"""When the records of a log came, coarsely: enough to say from when to when those were received that are given up."""

from __future__ import annotations

from bisect import bisect_left, bisect_right

EVERY = 1.0
"""Seconds between two notes."""
MOST = 4096
"""Notes that are kept; beyond it every other one goes."""


class Arrivals:
    """Notes of one log."""

    def __init__(self) -> None:
        self._places: list[int] = []
        self._times: list[float] = []

    def note(self, first: int, when: float) -> None:
        """A record was received at Unix time ``when``; calls come in the order of the log."""
        if self._times and when - self._times[-1] < EVERY:
            return
        self._places.append(first)
        self._times.append(when)
        if len(self._places) > MOST:
            del self._places[1::2], self._times[1::2]

    def interval(self, start: int, end: int, now: float) -> tuple[float, float]:
        """An interval in which the records from ``start`` to before ``end`` came; it may be somewhat wider."""
        if not self._times:
            return now, now
        first = max(0, bisect_right(self._places, start) - 1)
        last = bisect_left(self._places, end)
        return self._times[first], self._times[last] if last < len(self._times) else now
