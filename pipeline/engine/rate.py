"""Records a second at most, for what people feed back in."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import TypeVar

from pipeline.core.batch import MAX_RECORDS

_T = TypeVar("_T")


class Rate:
    """Keeps to a rate; None is no limit."""

    def __init__(self, rate: float | None) -> None:
        self._rate = rate
        self._next = time.monotonic()

    def runs(self, items: Sequence[_T]) -> list[Sequence[_T]]:
        """Items that may go together: about a quarter of a second's."""
        step = MAX_RECORDS if self._rate is None else max(1, min(MAX_RECORDS, int(self._rate / 4)))
        return [items[start : start + step] for start in range(0, len(items), step)]

    async def wait(self, count: int) -> None:
        """Return when so many more may go."""
        if self._rate is None:
            return
        now = time.monotonic()
        if self._next > now:
            await asyncio.sleep(self._next - now)
        self._next = max(self._next, now) + count / self._rate
