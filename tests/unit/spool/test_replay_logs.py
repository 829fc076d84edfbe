"""Logs of replayed records: made while the spool runs, kept through a crash, dropped by nobody, gone when they are read."""

import asyncio
from pathlib import Path

import pytest

from pipeline.core.batch import Batch, LogId
from pipeline.core.errors import UsageError
from pipeline.spool.disk import DiskSpool
from pipeline.spool.memory import MemorySpool, MemorySpoolConfig

from .disk_driver import MIB, A, FakeLane, batch, config, fill, findings, records, spooling

R = LogId("a", "acme", "all/lake")


@pytest.mark.parametrize("log", [A, R, LogId("a", "", "all"), LogId("b", "x", "all/lake/filtered")])
def test_a_key_stands_for_its_log(log):
    """What is stored of a log's name gives the log back."""
    assert LogId.of(*log.key) == log


def test_who_reads():
    """A log of a route is for all its lanes, one of a lane for that lane; only the first and the filtered one pass filters."""
    assert LogId("a", "", "all").is_for("all", "lake")
    assert not LogId("a", "", "all").is_for("al", "lake")
    assert LogId("a", "", "all/lake/changed").is_for("all", "lake")
    assert not LogId("a", "", "all/lake").is_for("all", "lak")
    found = {way: LogId("a", "", way).filtered for way in ("", "all", "all/x", "all/x/changed", "all/x/filtered")}
    assert found == {"": True, "all": True, "all/x": False, "all/x/changed": False, "all/x/filtered": True}


async def test_it_survives_a_crash(tmp_path: Path) -> None:
    """What was appended to it is there in the next life with its origin, behind the position that was committed."""
    lane = FakeLane("all/lake")
    async with spooling(tmp_path, lane) as spool:
        lane.cursors[R] = 0
        await spool.add(R, [lane])
        await spool.add(R, [lane])
        await spool.append(Batch(records(10), R, "detect", 2.5, "replay"))
        await spool.commit({("all/lake", R): 4}, {})
    assert findings(tmp_path) == []
    again = FakeLane("all/lake", [A, R])
    async with spooling(tmp_path, again) as spool:
        assert again.cursors[R] == 4
        found = await again.take(spool, R)
        assert found is not None
        assert (found.origin, found.stream, found.received_at, found.first) == ("replay", "detect", 2.5, 0)
        await again.settle(spool, R)
    async with spooling(tmp_path, FakeLane("all/lake")) as spool:
        assert R not in spool.stats()
        assert not (tmp_path / "logs" / "a%3Eall%2Flake@acme").exists()


async def test_it_is_kept_when_positions_are_lost(tmp_path: Path) -> None:
    """Without the database nobody knows that it was read: it is kept, and read again."""
    lane = FakeLane("all/lake")
    async with spooling(tmp_path, lane) as spool:
        lane.cursors[R] = 0
        await spool.add(R, [lane])
        await spool.append(Batch(records(3), R, "event", 1.0, "replay"))
    (tmp_path / "state.db").write_bytes(b"rubbish" * 1000)
    again = FakeLane("all/lake", [A, R])
    async with spooling(tmp_path, again) as spool:
        assert spool.state_lost
        assert len(await again.drain(spool, R)) == 3


async def test_nobody_drops_it(tmp_path: Path) -> None:
    """A lane with `drop_oldest` gives its sources' records up when the spool is full, never what somebody had replayed."""
    lane = FakeLane("all/lake", on_full="drop_oldest")
    async with spooling(tmp_path, lane, max_size=MIB) as spool:
        lane.cursors[R] = 0
        await spool.add(R, [lane])
        await spool.append(Batch(records(50), R, "event", 1.0, "replay"))
        assert await fill(spool, count=200) == 200 * 16
        assert {log for log, _, _ in lane.skipped} == {A}
        assert len(await lane.drain(spool, R)) == 50


async def test_nobody_drops_it_from_memory() -> None:
    """The same in memory; and a source keeps its share while a replay holds the common half."""
    spool = MemorySpool(MemorySpoolConfig(max_size=MIB))
    lane = FakeLane("all/lake", on_full="drop_oldest")
    await spool.open([A])
    spool.attach([lane])
    lane.cursors[R] = 0
    await spool.add(R, [lane])
    await spool.append(Batch(records(20, size=20_000), R, "event", 1.0, "replay"))
    async with asyncio.timeout(5):
        for number in range(100):
            await spool.append(batch(16, number * 16, 1000))
    assert {log for log, _, _ in lane.skipped} == {A}
    assert spool.stats()[R].bytes > 400_000
    assert sum(stats.bytes for stats in spool.stats().values()) <= MIB


async def test_names_that_are_too_long(tmp_path: Path) -> None:
    """Names that together are longer than a file name may be are refused before anything is made."""
    spool = DiskSpool(config(tmp_path))
    await spool.open([A])
    with pytest.raises(UsageError, match="too long"):
        await spool.add(LogId("s" * 63, "o" * 63, f"{'r' * 63}/{'k' * 63}/filtered"), [])
    await spool.close()
