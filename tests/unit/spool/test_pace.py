"""Appends wait for lanes that work, for moments."""

from __future__ import annotations

import asyncio

import pytest

from pipeline.core.batch import Batch, LogId
from pipeline.spool import pace
from pipeline.spool.memory import MemorySpool, MemorySpoolConfig

LOG = LogId("tap")
FULL = b"{%s}" % (b"x" * (pace.STRIDE + 1))


class Port:
    """A lane that reads when told."""

    id, logs, on_full = "lane", [LOG], "block"
    at = 0

    def wake(self) -> None: ...
    def hurry(self) -> None: ...

    def cursor(self, log: LogId) -> int:
        return self.at

    async def take(self, spool: MemorySpool) -> None:
        batch = await spool.read(LOG, self.at)
        assert batch is not None
        self.at = batch.end
        await spool.read(LOG, self.at)


@pytest.fixture
async def port() -> Port:
    return Port()


@pytest.fixture
async def spool(port: Port) -> MemorySpool:
    made = MemorySpool(MemorySpoolConfig())
    await made.open([LOG])
    made.attach([port])
    return made


def append(spool: MemorySpool, raw: bytes = FULL) -> asyncio.Task[None]:
    return asyncio.ensure_future(spool.append(Batch([raw], LOG, "event", 0.0)))


async def far_ahead(spool: MemorySpool) -> asyncio.Task[None]:
    """Append until an append waits, and return it."""
    for _ in range(pace.AHEAD // pace.STRIDE + 2):
        task = append(spool)
        await asyncio.sleep(0)
        if not task.done():
            return task
    raise AssertionError("no append waited")


async def test_an_append_far_ahead_waits_until_the_lane_is_near(
    spool: MemorySpool, port: Port, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it appended is there at once; it goes on when the lane has read on, without its time being over."""
    monkeypatch.setattr(pace, "MOMENT", 1000.0)
    waiting = await far_ahead(spool)
    assert spool.stats()[LOG].end > pace.AHEAD // len(FULL)
    await port.take(spool)
    await port.take(spool)
    async with asyncio.timeout(5):
        await waiting


async def test_an_append_waits_for_a_moment_only(spool: MemorySpool) -> None:
    """A lane that reads nothing does not hold it up for longer."""
    async with asyncio.timeout(5):
        await (await far_ahead(spool))


async def test_small_appends_wait_seldom(spool: MemorySpool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only each `STRIDE` bytes one of them waits: a source of single records is not slowed down to one in each moment."""
    await (await far_ahead(spool))
    monkeypatch.setattr(pace, "MOMENT", 1000.0)
    for _ in range(100):
        small = append(spool, b"{}")
        await asyncio.sleep(0)
        assert small.done()


async def test_a_lane_that_stands_still_is_not_waited_for(
    spool: MemorySpool, port: Port, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Behind a sink that is away the spool fills as fast as records come; when the lane moves, it is waited for again."""
    await (await far_ahead(spool))
    monkeypatch.setattr(pace, "MOMENT", 1000.0)
    monkeypatch.setattr(pace, "STALLED", 0.0)
    free = append(spool)
    await asyncio.sleep(0)
    assert free.done()
    monkeypatch.setattr(pace, "STALLED", 1000.0)
    await port.take(spool)
    held = append(spool)
    await asyncio.sleep(0)
    assert not held.done()
    held.cancel()
    with pytest.raises(asyncio.CancelledError):
        await held
