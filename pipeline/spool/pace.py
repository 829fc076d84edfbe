"""Lets lanes that work stay near to what comes in."""

from __future__ import annotations

import asyncio

from pipeline.core.batch import LogId
from pipeline.core.spool import LanePort

AHEAD = 4 << 20
"""Bytes that a lane may have before it until appends wait a moment for it."""
STRIDE = 256 << 10
"""Bytes of appends for one such moment: at worst they come as fast as these in that time."""
MOMENT = 0.004
"""Seconds that an append waits at most."""
STALLED = 0.25
"""Seconds after which a lane that did not move is waited for no more: what it does not take is what the spool is for."""


class Pace:
    """Holds the appends of one log up for moments, so that sources that have much do not take all turns from the lanes.

    Without it a spool in memory fills up beside lanes that could follow, as one turn of the event loop reads more than they take in
    theirs. Behind a sink that is away it lets records come as fast as they do.
    """

    __slots__ = ("_log", "_seen", "_since", "_waiting")

    def __init__(self, log: LogId) -> None:
        self._log = log
        self._since = 0
        self._seen: dict[str, tuple[int, float]] = {}
        """Lane -> where it was seen, and when it came there."""
        self._waiting: list[tuple[int, asyncio.Future[None]]] = []
        """Where lanes must be, for each append that waits."""

    async def keep(self, lanes: list[LanePort], size: int, end: int, held: int, records: int) -> None:
        """Wait, after an append of ``size`` bytes, while a lane is too far from the log's ``end``, but not long.

        ``held`` are the bytes of the log's last ``records``.
        """
        self._since += size
        if self._since < STRIDE or held < AHEAD:
            return
        self._since = 0
        loop = asyncio.get_running_loop()
        now = loop.time()
        wanted = end - AHEAD * records // held
        for lane in lanes:
            cursor = lane.cursor(self._log)
            seen = self._seen.get(lane.id)
            if seen is None or seen[0] != cursor:
                seen = self._seen[lane.id] = (cursor, now)
            if cursor < wanted and now - seen[1] < STALLED:
                break
        else:
            return
        waiter = loop.create_future()
        timer = loop.call_later(MOMENT, _end, waiter)
        self._waiting.append((wanted, waiter))
        try:
            await waiter
        finally:
            timer.cancel()
            self._waiting = [entry for entry in self._waiting if entry[1] is not waiter]

    def reached(self, position: int) -> None:
        """A lane reads from here on."""
        for wanted, waiter in self._waiting:
            if position >= wanted:
                _end(waiter)


def _end(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
