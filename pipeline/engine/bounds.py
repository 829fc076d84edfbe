"""How much a history may give for an interval, and how long it may take: what goes beyond has no end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from pipeline.core.errors import UnavailableError
from pipeline.core.source import Past

RATE = 32 << 20
"""Bytes for each second of the interval at most; more than any stream brings for long."""
LEAST = 256 << 20
"""Bytes that may always come."""
PATIENCE = 3600.0
"""Seconds that may always pass while it is waited for; in more than twice the interval's length, it could never be caught up with."""


async def bounded(pieces: AsyncIterator[Past], seconds: float) -> AsyncIterator[Past]:
    """Yield what a history gives for an interval of so many seconds; the time between two pieces that the taker needs does not count.

    Raises `UnavailableError` where it does not come to an end.
    """
    most, left = LEAST + int(RATE * seconds), max(PATIENCE, 2 * seconds)
    allowed = left
    size = records = 0
    clock = asyncio.get_running_loop().time
    while True:
        began = clock()
        try:
            async with asyncio.timeout(left):
                piece = await anext(pieces, None)
        except TimeoutError as error:
            raise _endless(records, size, f"in {allowed:.0f} s of waiting") from error
        left -= clock() - began
        if piece is None:
            return
        records += len(piece.records)
        size += sum(map(len, piece.records))
        if size > most:
            raise _endless(records, size, f"for {seconds:.0f} s")
        yield piece


def _endless(records: int, size: int, how: str) -> UnavailableError:
    return UnavailableError(
        f"the history gave {records} records with {size >> 20} MiB {how} and did not come to an end",
        fix="Where so much was really sent, a smaller `margin` asks for less.",
    )
