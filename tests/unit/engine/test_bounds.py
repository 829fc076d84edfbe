"""The bounds of what a history may give."""

import asyncio

import pytest

from pipeline.core.errors import UnavailableError
from pipeline.core.source import Past
from pipeline.engine import bounds


async def test_a_history_that_says_nothing_is_not_waited_for_for_ever(monkeypatch):
    """Only the time counts in which it is waited for, not what the taker needs; when that is over, it says so."""
    monkeypatch.setattr(bounds, "PATIENCE", 0.3)

    async def history():
        for number in range(3):
            yield Past([b"%d" % number], "")
        await asyncio.Event().wait()

    taken = []

    async def take():
        async for piece in bounds.bounded(history(), 0.0):
            taken.extend(piece.records)
            await asyncio.sleep(0.15)

    with pytest.raises(
        UnavailableError, match="gave 3 records with 0 MiB in 0 s of waiting and did not come to an end"
    ):
        await asyncio.wait_for(take(), 5)
    assert taken == [b"0", b"1", b"2"]
