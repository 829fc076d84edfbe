"""Large writes past the page cache."""

import errno
import os
import random
import shutil
from pathlib import Path

import pytest

from pipeline.spool import appending, blocks, disk, writing
from pipeline.spool.segment import Damage, Frame, SegmentFile

from .disk_driver import A, FakeLane, batch, findings, records, segments, spooling
from .test_disk_damage import flip, reread


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Where each call that wrote blocks began; frames from 20,000 bytes on go that way."""
    places: list[int] = []

    def note(fd: int, data: memoryview, at: int) -> int:
        places.append(at)
        return os.pwrite(fd, data, at)

    monkeypatch.setattr(disk, "DIRECT_SEGMENT", 0)
    monkeypatch.setattr(writing, "DIRECT_FROM", 20_000)
    monkeypatch.setattr(blocks, "os", _Replaced(pwrite=note))
    return places


class _Replaced:
    """The module `os` with some functions replaced."""

    def __init__(self, **functions: object) -> None:
        self.__dict__.update(vars(os))
        self.__dict__.update(functions)


@pytest.mark.parametrize("sync", ["full", "normal"])
async def test_both_ways_mixed(tmp_path: Path, written: list[int], sync: str) -> None:
    """Small and large frames one after the other, over segments and restarts, lie as if all were written one way."""
    rng = random.Random(sync)
    lane = FakeLane()
    total = 0
    for _ in range(5):
        async with spooling(tmp_path, lane, max_size=16 << 20, sync=sync) as spool:
            for _ in range(20):
                count = rng.choice([1, 3, 40, 900])
                await spool.append(batch(count, total, rng.choice([40, 700])))
                total += count
            appended = spool.stats()[A].bytes
        assert sum(file.stat().st_size for file in segments(tmp_path)) == appended
        assert findings(tmp_path) == []
    assert len(segments(tmp_path)) > 2
    if not written:
        pytest.skip("this file system has no O_DIRECT")
    assert all(at % blocks.BLOCK == 0 for at in written)
    again = FakeLane()
    async with spooling(tmp_path, again, max_size=16 << 20) as spool:
        found = await again.drain(spool)
    assert [number for number, _ in found] == list(range(total))
    assert all(raw.startswith(b'{"n":%d,' % number) for number, raw in found)


async def test_while_it_grows_it_reads_well(tmp_path: Path, written: list[int]) -> None:
    """The zeros up to the end of a block are no damage to who looks meanwhile."""
    async with spooling(tmp_path, FakeLane(), max_size=16 << 20) as spool:
        await spool.append(batch(100, 0, 700))
        assert [one for one in findings(tmp_path) if not one[2]] == []
        (segment,) = segments(tmp_path)
        assert segment.stat().st_size >= spool.stats()[A].bytes
        if written:
            assert segment.stat().st_size % blocks.BLOCK == 0


@pytest.mark.parametrize("field", [9, 16])  # of the head: a checksum; the size of its records, which makes it look torn
async def test_a_crash_and_damage_together_are_counted(tmp_path: Path, written: list[int], field: int) -> None:
    """The zeros that a crash leaves behind the last frame do not hide how many records its damaged head had."""
    async with spooling(tmp_path / "alive", FakeLane(), max_size=1 << 20) as spool:
        for number in range(3):
            await spool.append(batch(40, number * 40, 700))
        shutil.copytree(tmp_path / "alive", tmp_path / "killed", ignore=shutil.ignore_patterns("state.db*"))
    (file,) = segments(tmp_path / "killed")
    if not written:
        pytest.skip("this file system has no O_DIRECT")
    with SegmentFile(file) as opened:
        *_, last, zeros = opened.walk()
    assert isinstance(last, Frame)
    assert isinstance(zeros, Damage)
    assert zeros.torn
    flip(file, last.offset + field)
    assert [(text, lost) for text, lost, harmless in findings(tmp_path / "killed") if not harmless] == [
        (f"{file.name} at {last.offset}: {last.size} bytes are damaged", 40)
    ]
    found, lost = await reread(tmp_path / "killed")
    assert [number for number, _ in found] == list(range(80))
    assert lost == 40


async def test_who_looks_while_zeros_are_cut(tmp_path: Path, written: list[int]) -> None:
    """The zeros may be cut between the moment in which a file is opened and that in which its end is read."""
    async with spooling(tmp_path, FakeLane(), max_size=16 << 20) as spool:
        await spool.append(batch(100, 0, 700))
        (segment,) = segments(tmp_path)
        opened = SegmentFile(segment)
        length = spool.stats()[A].bytes
    if not written:
        pytest.skip("this file system has no O_DIRECT")
    with opened:
        assert opened.length > segment.stat().st_size == length
        (frame,) = opened.walk()
    assert isinstance(frame, Frame)


@pytest.mark.parametrize("call", ["open", "pwrite"])
async def test_a_file_system_that_cannot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    """Where the file system says no to it, all is written the other way, and it is not asked again."""
    asked: list[str] = []

    def no(*_: object) -> int:
        asked.append(call)
        raise OSError(errno.EINVAL, "no")

    monkeypatch.setattr(disk, "DIRECT_SEGMENT", 0)
    monkeypatch.setattr(writing, "DIRECT_FROM", 0)
    monkeypatch.setattr(blocks, "os", _Replaced(**{call: no}))
    lane = FakeLane()
    async with spooling(tmp_path, lane) as spool:
        for number in range(5):
            await spool.append(batch(40, number * 40))
        assert await lane.drain(spool) == list(enumerate(records(200)))
    assert asked == [call]
    assert findings(tmp_path) == []


async def test_too_many_open_files_hold_nothing_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that cannot be opened once more for blocks is written the other way, and the next time it is tried again."""
    asked: list[str] = []

    def no(*_: object) -> int:
        asked.append("open")
        raise OSError(errno.EMFILE, "no")

    monkeypatch.setattr(disk, "DIRECT_SEGMENT", 0)
    monkeypatch.setattr(writing, "DIRECT_FROM", 0)
    monkeypatch.setattr(blocks, "os", _Replaced(open=no))
    lane = FakeLane()
    async with spooling(tmp_path, lane) as spool:
        for number in range(3):
            await spool.append(batch(40, number * 40))
        assert spool.trouble == ""
        assert await lane.drain(spool) == list(enumerate(records(120)))
    assert len(asked) == 3


async def test_a_lane_that_is_far_behind_finds_records_in_the_page_cache(
    tmp_path: Path, written: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who lags reads from the disk, so that is written the ordinary way; when it has caught up, blocks are again."""
    monkeypatch.setattr(appending, "RECENT_SIZE", 400_000)
    lane = FakeLane()
    async with spooling(tmp_path, lane, max_size=16 << 20) as spool:
        counts: list[int] = []
        for number in range(20):
            await spool.append(batch(40, number * 40, 1000))
            counts.append(len(written))
        if not written:
            pytest.skip("this file system has no O_DIRECT")
        assert counts[3] == 4
        assert counts[10] == counts[19] < 11
        await lane.drain(spool)
        await spool.append(batch(40, 800, 1000))
        await spool.append(batch(40, 840, 1000))
        assert len(written) > counts[19]
