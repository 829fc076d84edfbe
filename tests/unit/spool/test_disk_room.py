"""The disk spool when it is full: who waits, who gives up what, and what orphans hold."""

import asyncio
import errno
import os
import sqlite3
from pathlib import Path
from types import SimpleNamespace

import pytest
from structlog.testing import capture_logs

from pipeline.core.batch import Batch, LogId
from pipeline.spool import appending, blocks, disk, writing

from .disk_driver import MIB, A, B, FakeLane, batch, fill, findings, records, segments, spooling, total_size


async def test_full_makes_appends_wait_until_lanes_are_past(tmp_path: Path) -> None:
    """With `block` an append waits, and goes on when a lane has passed a segment."""
    lane = FakeLane()
    async with spooling(tmp_path, lane, max_size=MIB) as spool:
        accepted = await fill(spool)
        waiting = asyncio.create_task(spool.append(batch(8, accepted, 2000)))
        await asyncio.sleep(0.05)
        assert not waiting.done()
        assert lane.hurried
        assert [number for number, _ in await lane.drain(spool)] == list(range(accepted))
        await lane.settle(spool)
        await waiting
        assert lane.skipped == []
        assert await lane.drain(spool) == list(enumerate(records(8, accepted, 2000), accepted))


async def test_a_passed_segment_that_grows_is_rolled(tmp_path: Path) -> None:
    """A batch that needs nearly all the room gets it from a segment that is wholly passed and still grows."""
    lane = FakeLane()
    async with spooling(tmp_path, lane, max_size=MIB) as spool:
        for number in range(8):
            await spool.append(Batch([b"{%s}" % (b"x" * 250_000)], A, "event", 0.0))
            await lane.take(spool)
            await lane.settle(spool)
            assert spool.stats()[A].end == number + 1
        assert total_size(tmp_path) <= MIB


async def test_a_full_log_does_not_lock_out_the_others(tmp_path: Path) -> None:
    """While one log waits for room, another one may use its share."""
    stalled, quick = FakeLane("r/1", [A]), FakeLane("r/2", [B])
    async with spooling(tmp_path, stalled, quick, logs=[A, B], max_size=MIB) as spool:
        await fill(spool)
        blocked = asyncio.create_task(spool.append(batch(64, spool.stats()[A].end, 2000)))
        for number in range(20):
            async with asyncio.timeout(1):
                await spool.append(batch(4, number * 4, 1000, B))
        assert not blocked.done()
        assert total_size(tmp_path) <= MIB
        blocked.cancel()


async def test_drop_oldest_gives_up_whole_segments(tmp_path: Path) -> None:
    """With `drop_oldest` appends never wait: lanes skip the oldest segments, and what is left comes in order."""
    lane = FakeLane(on_full="drop_oldest")
    async with spooling(tmp_path, lane, max_size=MIB) as spool:
        for number in range(300):
            async with asyncio.timeout(5):
                await spool.append(batch(8, number * 8, 1000))
        gone = sum(end - start for _, start, end in lane.skipped)
        left = await lane.drain(spool)
        assert gone
        assert left == list(enumerate(records(2400, size=1000)))[gone:]
        assert total_size(tmp_path) <= MIB
    assert findings(tmp_path) == []


async def test_a_batch_in_hand_is_not_dropped(tmp_path: Path) -> None:
    """The segment of which a lane has a batch in hand stays, for ever if need be: a crash brings it again."""
    lane = FakeLane(on_full="drop_oldest")
    async with spooling(tmp_path, lane, max_size=MIB) as spool:
        await spool.append(batch(8, 0, 1000))
        await lane.take(spool)
        for number in range(1, 400):
            async with asyncio.timeout(5):
                await spool.append(batch(8, number * 8, 1000))
        assert lane.skipped
        held = segments(tmp_path)[0]
        assert held.name == "00000000000000000000.seg"
    assert findings(tmp_path) == []
    again = FakeLane()
    async with spooling(tmp_path, again, max_size=MIB) as spool:
        first = await again.take(spool)
        assert first is not None
        assert (first.first, list(first.records)) == (0, records(8, size=1000))


async def test_one_lane_that_blocks_protects_the_segment(tmp_path: Path) -> None:
    """If one of the lanes that hold the oldest segment is `block`, nobody drops."""
    drops, blocks = FakeLane("r/1", on_full="drop_oldest"), FakeLane("r/2")
    async with spooling(tmp_path, drops, blocks, max_size=MIB) as spool:
        accepted = await fill(spool)
        assert drops.skipped == blocks.skipped == []
        await blocks.drain(spool)
        await blocks.settle(spool)
        async with asyncio.timeout(2):
            await spool.append(batch(8, accepted, 2000))
        assert drops.skipped
        assert blocks.skipped == []


async def test_a_restart_after_drops_finds_no_damage(tmp_path: Path) -> None:
    """Segments that were given up are known as such; the lane goes on behind them."""
    lane = FakeLane(on_full="drop_oldest")
    async with spooling(tmp_path, lane, max_size=MIB) as spool:
        for number in range(300):
            await spool.append(batch(8, number * 8, 1000))
    again = FakeLane()
    async with spooling(tmp_path, again, max_size=MIB) as spool:
        start = spool.oldest(A)
        left = await again.drain(spool)
        assert left == list(enumerate(records(2400, size=1000)))[start:]
        await again.settle(spool)
        await spool.commit({}, {})
        assert await spool.transact(lambda db: db.execute("SELECT * FROM dropped").fetchall()) == []
    assert findings(tmp_path) == []


async def test_what_fails_after_a_drop_is_committed_counts_it_once(tmp_path: Path) -> None:
    """When a given-up segment cannot be deleted yet, it is tried again; the database has its records once."""
    lane = FakeLane(on_full="drop_oldest")
    async with spooling(tmp_path, lane, max_size=MIB) as spool:
        await spool.append(batch(8, 0, 1000))
        await lane.take(spool)  # in hand, so that what was dropped after it has to be known
        whole, faults = spool._room._checkpoint, 0

        async def failing() -> None:
            nonlocal faults
            if lane.skipped and faults < 3:
                faults += 1
                raise sqlite3.OperationalError("disk I/O error")
            await whole()

        spool._room._checkpoint = failing
        for number in range(1, 400):
            async with asyncio.timeout(20):
                await spool.append(batch(8, number * 8, 1000))
        assert faults == 3
        ((first, end),) = await spool.transact(lambda db: db.execute('SELECT first, "end" FROM dropped').fetchall())
        assert spool.given_up(A, 0, 3200) == end - int(first)
    assert findings(tmp_path) == []


async def test_commits_at_once_forget_no_drop(tmp_path: Path) -> None:
    """A drop that goes on from one that all are past stays known although another commit comes beside it."""
    lane = FakeLane(on_full="drop_oldest")
    async with spooling(tmp_path, lane, max_size=MIB) as spool:
        for number in range(300):
            await spool.append(batch(8, number * 8, 1000))
        ((first, end),) = spool._logs[A].dropped.items()
        await spool.commit({(lane.id, A): end}, {})
        await asyncio.gather(spool.commit({}, {}, {"dropped": {(*A.key, first): end + 8}}), spool.commit({}, {}))
        rows = await spool.transact(lambda db: db.execute('SELECT first, "end" FROM dropped').fetchall())
        assert [(int(one), two) for one, two in rows] == [(first, end + 8)]
        assert spool._logs[A].dropped == {first: end + 8}


async def test_an_orphan_keeps_its_records_while_there_is_room(tmp_path: Path) -> None:
    """A lane that left the configuration and comes back goes on where it was."""
    orphan, lane = FakeLane("r/old"), FakeLane("r/new")
    async with spooling(tmp_path, orphan, lane) as spool:
        await fill(spool, count=20)
    lane = FakeLane("r/new")
    async with spooling(tmp_path, lane) as spool:
        await lane.drain(spool)
        await lane.settle(spool)
    orphan = FakeLane("r/old")
    async with spooling(tmp_path, orphan, lane) as spool:
        assert await orphan.drain(spool) == list(enumerate(records(320, size=1000)))


async def test_what_an_orphan_gave_up_does_not_wait_for_it(tmp_path: Path) -> None:
    """The warning of a lane that left the configuration counts the records that are there, not those that it had given up."""
    orphan = FakeLane("r/old", on_full="drop_oldest")
    async with spooling(tmp_path, orphan, max_size=MIB) as spool:
        await spool.append(batch(8, 0, 1000))
        await orphan.take(spool)
        for number in range(1, 400):
            await spool.append(batch(8, number * 8, 1000))
    assert orphan.skipped
    with capture_logs() as said:
        async with spooling(tmp_path, FakeLane("r/new"), max_size=MIB) as spool:
            assert spool.oldest(A) == 0
            left = len(await FakeLane("r/new").drain(spool))
    assert left < 1000
    (one,) = [line for line in said if "No lane of the configuration" in line["event"]]
    assert one["records"] == left


async def test_an_orphan_holds_no_room_against_appends(tmp_path: Path) -> None:
    """When room is short, what only an orphan waits for goes first, and a lane with `block` need not give up anything."""
    orphan, lane = FakeLane("r/old"), FakeLane("r/new")
    async with spooling(tmp_path, orphan, lane, max_size=MIB) as spool:
        await fill(spool)
    lane = FakeLane("r/new")
    async with spooling(tmp_path, lane, max_size=MIB) as spool:
        for _ in range(100):
            await lane.drain(spool)
            await lane.settle(spool)
            async with asyncio.timeout(2):
                await spool.append(batch(8, spool.stats()[A].end, 2000))
        assert lane.skipped == []
        rows = await spool.transact(lambda db: db.execute("SELECT lane FROM positions").fetchall())
        assert rows == [("r/new",)]
    assert total_size(tmp_path) <= MIB


async def test_a_log_that_left_holds_no_room_either(tmp_path: Path) -> None:
    """The log of a source that left the configuration makes room for the others."""
    both = FakeLane(logs=[A, B])
    async with spooling(tmp_path, both, logs=[A, B], max_size=MIB) as spool:
        await fill(spool, B)
    lane = FakeLane(logs=[A])
    async with spooling(tmp_path, lane, max_size=MIB) as spool:
        held = spool.stats()[B].bytes
        assert await fill(spool) * 1000 > MIB // 2
        assert spool.stats()[B].bytes < held // 4


async def test_waiting_appends_get_in_in_their_order(tmp_path: Path) -> None:
    """Appends that wait for room are accepted in the order in which they came."""
    lane = FakeLane()
    async with spooling(tmp_path, lane, max_size=MIB) as spool:
        accepted = await fill(spool)
        given = [batch(4, number, 2000) for number in range(20)]
        tasks = [asyncio.create_task(spool.append(one)) for one in given]
        await asyncio.sleep(0.05)
        tasks[3].cancel()
        while not all(task.done() for task in tasks):
            await lane.drain(spool)
            await lane.settle(spool)
        del given[3]
        assert [one.first for one in given] == list(range(accepted, accepted + 76, 4))


async def test_a_full_disk_makes_appends_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the disk has no room appends wait and the spool says so; then it goes on by itself and nothing is missing."""
    real, free = os.statvfs, [0]
    fake = SimpleNamespace(
        statvfs=lambda path: SimpleNamespace(f_bavail=free[0], f_frsize=1, path=path), strerror=os.strerror
    )
    monkeypatch.setattr(appending, "os", fake)
    lane = FakeLane()
    async with spooling(tmp_path, lane) as spool:
        tasks = [asyncio.create_task(spool.append(batch(4, number * 4))) for number in range(5)]
        async with asyncio.timeout(5):
            while not spool.trouble:
                await asyncio.sleep(0.01)
        assert spool.trouble == os.strerror(errno.ENOSPC)
        assert not any(task.done() for task in tasks)
        tasks[2].cancel()
        free[0] = 1 << 40
        await asyncio.gather(*tasks, return_exceptions=True)
        assert spool.trouble == ""
        expected = [raw for number in (0, 1, 3, 4) for raw in records(4, number * 4)]
        assert [raw for _, raw in await lane.drain(spool)] == expected
    assert real(tmp_path).f_frsize
    assert findings(tmp_path) == []


@pytest.mark.parametrize("sync", ["full", "normal"])
@pytest.mark.parametrize(
    ("call", "direct"), [("pwritev", False), ("pwrite", True), ("datasync", False), ("datasync", True)]
)
async def test_a_write_that_fails_is_done_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sync: str, call: str, *, direct: bool
) -> None:
    """Whatever part of a write fails, the frame comes whole, once, and a restart finds no damage."""
    failures = iter([True, False, True, True])

    def failing_write(fd: int, pieces: list[bytes], at: int) -> int:
        if next(failures, False):
            os.pwrite(fd, pieces[0], at)
            raise OSError(errno.EIO, "no")
        return os.pwritev(fd, pieces, at)

    def failing_block_write(fd: int, data: memoryview, at: int) -> int:
        if next(failures, False):
            os.pwrite(fd, data[:4096], at)
            raise OSError(errno.EIO, "no")
        return os.pwrite(fd, data, at)

    def failing_sync(fd: int) -> None:
        if next(failures, False):
            raise OSError(errno.EIO, "no")
        os.fsync(fd)

    lane = FakeLane()
    if direct:
        monkeypatch.setattr(disk, "DIRECT_SEGMENT", 0)
        monkeypatch.setattr(writing, "DIRECT_FROM", 0)
    async with spooling(tmp_path, lane, sync=sync) as spool:
        if call == "pwritev":
            monkeypatch.setattr(writing, "os", _Replaced(pwritev=failing_write))
        elif call == "pwrite":
            monkeypatch.setattr(blocks, "os", _Replaced(pwrite=failing_block_write))
        else:
            monkeypatch.setattr(writing, "datasync", failing_sync)
        for number in range(6):
            await spool.append(batch(4, number * 4))
        assert await lane.drain(spool) == list(enumerate(records(24)))
    assert findings(tmp_path) == []
    again = FakeLane()
    async with spooling(tmp_path, again) as spool:
        assert await again.drain(spool) == list(enumerate(records(24)))


class _Replaced:
    """The module `os` with some functions replaced."""

    def __init__(self, **functions: object) -> None:
        self.__dict__.update(vars(os))
        self.__dict__.update(functions)


async def test_batches_that_come_together_do_not_share_a_large_segment(tmp_path: Path) -> None:
    """However many batches are written at once, a segment takes as many as fit: what is over can be deleted, or given up, in parts."""
    async with spooling(tmp_path, FakeLane(), max_size=MIB) as spool:
        await spool.append(*(batch(16, number * 16, 1000) for number in range(20)))
        assert max(file.stat().st_size for file in segments(tmp_path)) <= MIB // 8
        assert len(segments(tmp_path)) > 2


async def test_many_logs_get_small_segments(tmp_path: Path) -> None:
    """Segments are small enough that a log's share holds several."""
    names = [LogId("s", f"o{number}") for number in range(8)]
    lane = FakeLane(logs=names)
    async with spooling(tmp_path, lane, logs=names, max_size=16 * MIB) as spool:
        for number in range(60):
            await spool.append(batch(16, number * 16, 1000, names[0]))
    sizes = [file.stat().st_size for file in segments(tmp_path, "s@o0")]
    assert len(sizes) > 3
    assert max(sizes) <= MIB // 4
