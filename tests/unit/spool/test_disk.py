"""The disk spool: what goes in comes out, across restarts."""

import asyncio
import sqlite3
import struct
import zlib
from pathlib import Path

import pytest

from pipeline.core.batch import Batch
from pipeline.core.errors import ConfigError
from pipeline.spool import writing
from pipeline.spool.disk import DiskSpool
from pipeline.spool.inspection import survey
from pipeline.spool.segment import FILE_HEADER, frame_size

from .disk_driver import MIB, A, B, FakeLane, batch, config, fill, findings, records, segments, spooling, total_size


async def test_a_batch_comes_back_as_it_went_in(tmp_path: Path) -> None:
    """After a restart a batch has its records, stream, origin, time and number."""
    async with spooling(tmp_path, FakeLane(logs=[B]), logs=[B]) as spool:
        await spool.append(Batch([b'{"a":"\xc3\xa4"}', b"{}", b"plain"], B, "detect", 1.5, "replay"))
        await spool.append(Batch([b"{}"], B, "event", 2.5))
    lane = FakeLane(logs=[B])
    async with spooling(tmp_path, lane, logs=[B]) as spool:
        first, second = await lane.take(spool, B), await lane.take(spool, B)
        assert first is not None
        assert list(first.records) == [b'{"a":"\xc3\xa4"}', b"{}", b"plain"]
        assert (first.log, first.stream, first.received_at, first.origin, first.first) == (
            B,
            "detect",
            1.5,
            "replay",
            0,
        )
        assert first.size == sum(map(len, first.records))
        assert second is not None
        assert (second.first, second.origin, second.stream) == (3, "live", "event")
        assert await lane.take(spool, B) is None


async def test_a_lane_goes_on_where_it_was(tmp_path: Path) -> None:
    """A committed position survives; what is behind it comes again, also from the middle of a batch."""
    lane = FakeLane()
    async with spooling(tmp_path, lane) as spool:
        await spool.append(batch(10))
        await spool.commit({(lane.id, A): 4}, {"files": {"x": {"length": 3}, "y": 1}})
        await spool.commit({}, {"files": {"y": None}})
    spool = DiskSpool(config(tmp_path))
    restored = await spool.open([A])
    assert restored.positions == {(lane.id, A): 4}
    assert restored.marks == {"files": {"x": {"length": 3}}}
    await spool.close()
    again = FakeLane()
    async with spooling(tmp_path, again) as spool:
        assert await again.drain(spool) == list(enumerate(records(10)))[4:]


async def test_a_new_lane_keeps_its_beginning(tmp_path: Path) -> None:
    """A lane that crashed before its first commit begins at the same record as the first time."""
    old = FakeLane("r/old")
    async with spooling(tmp_path, old) as spool:
        await spool.append(batch(10))
    new = FakeLane("r/new")
    spool = DiskSpool(config(tmp_path))
    await spool.open([A])
    new.cursors[A] = 7
    spool.attach([old, new])
    await spool.close()
    spool = DiskSpool(config(tmp_path))
    assert (await spool.open([A])).positions == {("r/old", A): 0, ("r/new", A): 7}
    await spool.close()


async def test_what_all_lanes_passed_is_deleted(tmp_path: Path) -> None:
    """A segment goes when the last lane is past it, not before."""
    first, second = FakeLane("r/1"), FakeLane("r/2")
    async with spooling(tmp_path, first, second, max_size=2 * MIB) as spool:
        await fill(spool, count=60)
        before = segments(tmp_path)
        assert len(before) > 2
        await first.drain(spool)
        await first.settle(spool)
        assert segments(tmp_path) == before
        await second.drain(spool)
        await second.settle(spool)
        assert segments(tmp_path) == before[-1:]
        assert spool.stats()[A].bytes == before[-1].stat().st_size
    assert findings(tmp_path) == []


async def test_a_lane_that_keeps_up_reads_no_disk(tmp_path: Path) -> None:
    """The latest batches come from memory: the very object that was appended."""
    lane = FakeLane()
    async with spooling(tmp_path, lane) as spool:
        for number in range(5):
            one = batch(3, number * 3)
            await spool.append(one)
            assert await lane.take(spool) is one


async def test_lanes_at_the_same_place_share_what_is_read(tmp_path: Path) -> None:
    """Two lanes that read the same batch from the disk, even at once, get the same object."""
    async with spooling(tmp_path, FakeLane()) as spool:
        await spool.append(batch(5))
        await spool.append(batch(5, 5))
    first, second = FakeLane("r/1"), FakeLane("r/2")
    async with spooling(tmp_path, first, second) as spool:
        one, other = await asyncio.gather(first.take(spool), second.take(spool))
        assert one is other
        assert await first.take(spool) is await second.take(spool)


async def test_a_log_that_no_lane_reads_keeps_nothing(tmp_path: Path) -> None:
    """Without a lane a record is counted and dropped."""
    async with spooling(tmp_path) as spool:
        await spool.append(batch(3))
        assert (spool.stats()[A].received, spool.stats()[A].end) == (3, 0)
        await spool.settled(A, 3)
    assert segments(tmp_path) == []


async def test_settled_waits_for_every_lane(tmp_path: Path) -> None:
    """It returns when the last lane's position is committed, and at once where that is so."""
    first, second = FakeLane("r/1"), FakeLane("r/2")
    async with spooling(tmp_path, first, second) as spool:
        await spool.append(batch(3))
        waiting = asyncio.create_task(spool.settled(A, 3))
        await spool.commit({("r/1", A): 3, ("r/2", A): 2}, {})
        assert not waiting.done()
        await spool.commit({("r/2", A): 3}, {})
        await waiting
        await spool.settled(A, 3)


@pytest.mark.parametrize("sync", ["full", "normal"])
async def test_many_appends_at_once_keep_their_order(tmp_path: Path, sync: str) -> None:
    """Appends that wait together are numbered in the order of the calls."""
    lane = FakeLane(logs=[A, B])
    async with spooling(tmp_path, lane, logs=[A, B], sync=sync) as spool:
        await asyncio.gather(*(spool.append(batch(2, number * 2, log=log)) for number in range(200) for log in (A, B)))
    again = FakeLane(logs=[A, B])
    async with spooling(tmp_path, again, logs=[A, B]) as spool:
        for log in (A, B):
            assert await again.drain(spool, log) == list(enumerate(records(400)))


async def test_a_second_process_refuses(tmp_path: Path) -> None:
    """A folder that is in use is refused with the number of the process that has it; the first one goes on."""
    async with spooling(tmp_path, FakeLane()) as spool:
        second = DiskSpool(config(tmp_path))
        with pytest.raises(ConfigError, match="another process"):
            await second.open([A])
        await second.close()
        await spool.append(batch(1))


async def test_a_newer_format_refuses(tmp_path: Path) -> None:
    """A database of a newer version is named, not taken for damaged."""
    async with spooling(tmp_path, FakeLane()) as spool:
        await spool.append(batch(1))
    with sqlite3.connect(tmp_path / "state.db") as db:
        db.execute("UPDATE digest SET format = 7")
        db.execute("PRAGMA user_version = 7")
    db.close()
    spool = DiskSpool(config(tmp_path))
    with pytest.raises(ConfigError, match="has format 7; this version"):
        await spool.open([A])
    await spool.close()
    await spool.close()


async def test_segments_of_another_format_refuse(tmp_path: Path) -> None:
    """A segment of another version is named, at the start and by who looks into the spool, and stays as it is."""
    async with spooling(tmp_path, FakeLane()) as spool:
        await spool.append(batch(3))
    (segment,) = segments(tmp_path)
    checked = struct.pack("<8sHxx", b"LCSPOOL\n", 1)
    old = checked + struct.pack("<I", zlib.crc32(checked)) + segment.read_bytes()[FILE_HEADER:]
    segment.write_bytes(old)
    other = DiskSpool(config(tmp_path))
    with pytest.raises(ConfigError, match=rf"{segment.name} has format 1; this version .* reads format 2"):
        await other.open([A])
    await other.close()
    with pytest.raises(ConfigError, match="has format 1"):
        survey(tmp_path)
    assert segment.read_bytes() == old


async def test_close_is_safe_without_open(tmp_path: Path) -> None:
    """Closing what was never opened does nothing, twice."""
    spool = DiskSpool(config(tmp_path / "spool"))
    await spool.close()
    await spool.close()
    assert not (tmp_path / "spool").exists()


async def test_names_do_not_lead_out_of_the_folder(tmp_path: Path) -> None:
    """A log's name is one folder's name, whatever is in it, and comes back as it was."""
    from pipeline.core.batch import LogId

    names = [LogId(".."), LogId("a/b", "../c"), LogId("x@y", "z")]
    lane = FakeLane(logs=names)
    async with spooling(tmp_path / "spool", lane, logs=names) as spool:
        for name in names:
            await spool.append(batch(1, log=name))
    assert [path.name for path in tmp_path.iterdir()] == ["spool"]
    again = FakeLane(logs=names)
    async with spooling(tmp_path / "spool", again, logs=()) as spool:
        assert set(spool.stats()) == set(names)


async def test_a_cancelled_append_is_in_or_out(tmp_path: Path) -> None:
    """An append that is cancelled while it is written is accepted or not at all; its `first` says which."""
    lane = FakeLane()
    async with spooling(tmp_path, lane) as spool:
        given = [batch(1, number) for number in range(50)]
        tasks = [asyncio.create_task(spool.append(one)) for one in given]
        await asyncio.sleep(0)
        for task in tasks[::2]:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert [raw for _, raw in await lane.drain(spool)] == [
            one.records[0] for one in sorted(given, key=lambda one: one.first) if one.first >= 0
        ]
        assert spool.stats()[A].received == sum(one.first >= 0 for one in given)
        assert all(one.first >= 0 for one in given[1::2])


async def test_batches_that_come_together_share_one_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches of one append are written and synced at once, in their order; one sync serves all of them."""
    syncs: list[int] = []
    async with spooling(tmp_path, FakeLane()) as spool:
        await spool.append(batch(1))
        monkeypatch.setattr(writing, "datasync", syncs.append)
        given = [batch(2, 1 + number * 2) for number in range(10)]
        await spool.append(*given)
        assert [one.first for one in given] == list(range(1, 21, 2))
        assert len(syncs) == 1


async def test_of_a_cancelled_append_the_first_ones_are_in(tmp_path: Path) -> None:
    """Where only a part found room, those have a `first`, the others have none and leave room to others."""
    lane = FakeLane()
    async with spooling(tmp_path, lane, max_size=MIB) as spool:
        given = [batch(16, number * 16, 4000) for number in range(40)]
        task = asyncio.create_task(spool.append(*given))
        while not lane.hurried or spool._appender._writing or spool._appender._ready:
            await asyncio.sleep(0.001)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        accepted = sum(one.first >= 0 for one in given)
        assert 0 < accepted < 40
        assert [one.first for one in given] == [number * 16 if number < accepted else -1 for number in range(40)]
        await lane.drain(spool)
        await lane.settle(spool)
        await asyncio.wait_for(spool.append(late := batch(16)), 5)
        assert late.first == accepted * 16


async def test_the_books_agree_with_the_disk(tmp_path: Path) -> None:
    """`stats().bytes` is what the segments take, frame by frame."""
    async with spooling(tmp_path, FakeLane()) as spool:
        one = batch(7, size=333)
        await spool.append(one)
        assert spool.stats()[A].bytes == FILE_HEADER + frame_size(one) == segments(tmp_path)[0].stat().st_size


async def test_a_transaction_is_all_or_nothing(tmp_path: Path) -> None:
    """What a failed piece of work did to the database is undone."""

    def work(db: sqlite3.Connection) -> None:
        db.execute("CREATE TABLE extra (x INTEGER)")
        raise KeyError

    async with spooling(tmp_path, FakeLane()) as spool:
        with pytest.raises(KeyError):
            await spool.transact(work)
        assert (
            await spool.transact(lambda db: db.execute("SELECT 1 FROM sqlite_master WHERE name = 'extra'").fetchall())
            == []
        )


async def test_a_log_of_a_source_that_left_is_kept(tmp_path: Path) -> None:
    """Its records wait for the source to come back."""
    lane = FakeLane(logs=[A, B])
    async with spooling(tmp_path, lane, logs=[A, B]) as spool:
        await spool.append(batch(5, log=B))
    only = FakeLane(logs=[A])
    async with spooling(tmp_path, only) as spool:
        assert spool.stats()[B].end == 5
        await spool.append(batch(1))
        await only.drain(spool)
        await only.settle(spool)
    again = FakeLane(logs=[A, B])
    async with spooling(tmp_path, again, logs=[A, B]) as spool:
        assert await again.drain(spool, B) == list(enumerate(records(5)))


async def test_all_files_stay_within_max_size(tmp_path: Path) -> None:
    """However much is appended, all files together take at most ``max_size``; it begins to wait well after half of it."""
    lane = FakeLane()
    async with spooling(tmp_path, lane, max_size=MIB) as spool:
        accepted = await fill(spool, size=2000, each=8)
        assert MIB // 2 < accepted * 2000 < MIB
        assert total_size(tmp_path) <= MIB
