"""The disk spool on damaged files: it starts, goes on, and counts what is lost."""

import random
import shutil
from pathlib import Path

import pytest

from pipeline.spool.inspection import survey
from pipeline.spool.segment import SegmentFile

from .disk_driver import A, FakeLane, batch, fill, findings, records, segments, spooling


async def filled(path: Path, batches: int = 20, *, clean: bool = True) -> list[tuple[int, bytes]]:
    """Make a spool of several segments; returns its records."""
    async with spooling(path, FakeLane(), max_size=1 << 20) as spool:
        await fill(spool, count=batches, size=1000)
    if not clean:  # as after a crash: nobody wrote down where the log ended
        for file in path.glob("state.db*"):
            file.unlink()
    return list(enumerate(records(batches * 16, size=1000)))


def flip(file: Path, offset: int) -> None:
    data = bytearray(file.read_bytes())
    data[offset] ^= 0x20
    file.write_bytes(data)


async def reread(path: Path) -> tuple[list[tuple[int, bytes]], int]:
    """All that a lane finds from the beginning on, and how many records it counts as lost."""
    lane = FakeLane("r/fresh")
    found: list[tuple[int, bytes]] = []
    lost = 0
    async with spooling(path, lane, max_size=1 << 20) as spool:
        while True:
            position = lane.cursors[A]
            one = await lane.take(spool)
            if one is None:
                return found, lost
            lost += max(0, one.first - position)
            found += [(number, raw) for number, raw in enumerate(one.records, one.first) if number >= position]


@pytest.mark.parametrize("which", [0, -1])
@pytest.mark.parametrize("where", ["head", "records", "tail"])
async def test_one_damaged_frame_costs_its_records(tmp_path: Path, which: int, where: str) -> None:
    """A flipped bit costs the records of its frame at most, which are counted; all others come."""
    expected = await filled(tmp_path, clean=False)
    file = segments(tmp_path)[which]
    size = file.stat().st_size
    flip(file, {"head": 16 + 20, "records": 16 + 2000, "tail": size - 3}[where])
    found, lost = await reread(tmp_path)
    assert lost == (0 if where == "tail" else 16)
    assert set(found) <= set(expected)
    assert len(found) + lost == len(expected)
    assert bool(lost) == any((tmp_path / "damaged").iterdir())


async def test_the_last_frames_head_is_counted_too(tmp_path: Path) -> None:
    """Without its head, and without the database, the end of a log still tells how many records it had."""
    expected = await filled(tmp_path, clean=False)
    file = segments(tmp_path)[-1]
    with SegmentFile(file) as opened:
        *_, last = opened.walk()
    flip(file, last.offset + 9)
    found, lost = await reread(tmp_path)
    assert found == expected[:-16]
    assert lost == 16


async def test_a_torn_end_is_cut(tmp_path: Path) -> None:
    """What was written of a frame when the power went is cut; the log goes on at that place."""
    await filled(tmp_path, 5, clean=False)
    file = segments(tmp_path)[-1]
    whole = file.read_bytes()
    frame = whole[16:]
    for cut in (1, 3, 30, 90, 4000):
        file.write_bytes(whole + frame[:cut])
        assert [harmless for _, _, harmless in findings(tmp_path)][-1:] == [True]
        async with spooling(tmp_path, FakeLane()) as spool:
            assert spool.stats()[A].end == 80
        assert file.read_bytes() == whole
    assert not any((tmp_path / "damaged").iterdir())


async def test_zeros_at_the_end_are_torn(tmp_path: Path) -> None:
    """A file that a crash left longer than its content is cut."""
    await filled(tmp_path, 5)
    file = segments(tmp_path)[-1]
    whole = file.read_bytes()
    file.write_bytes(whole + bytes(300_000))
    async with spooling(tmp_path, FakeLane()) as spool:
        assert spool.stats()[A].end == 80
    assert file.read_bytes() == whole


async def test_a_cut_file_is_a_counted_loss(tmp_path: Path) -> None:
    """Records that the database knows of and the file no longer has are lost and counted; new ones get new numbers."""
    await filled(tmp_path, 10)
    file = segments(tmp_path)[-1]
    file.write_bytes(file.read_bytes()[:100])
    found, lost = await reread(tmp_path)
    assert len(found) + lost == 160
    assert lost
    lane = FakeLane("r/fresh")
    async with spooling(tmp_path, lane, max_size=1 << 20) as spool:
        await spool.append(batch(1, 160))
        assert spool.stats()[A].end == 161


async def test_a_damaged_database_is_set_aside(tmp_path: Path) -> None:
    """Without its database the spool starts, says so, and has all records."""
    expected = await filled(tmp_path)
    (tmp_path / "state.db").write_bytes(b"rubbish" * 1000)
    lane = FakeLane()
    async with spooling(tmp_path, lane, max_size=1 << 20) as spool:
        assert spool.state_lost
        assert await lane.drain(spool) == expected
    assert (tmp_path / "damaged" / "state.db").read_bytes() == b"rubbish" * 1000
    async with spooling(tmp_path, FakeLane(), max_size=1 << 20) as spool:
        assert not spool.state_lost


async def test_a_missing_segment_is_a_counted_hole(tmp_path: Path) -> None:
    """A segment that somebody took away is a loss of as many records as it had, and `verify` says so."""
    expected = await filled(tmp_path)
    files = segments(tmp_path)
    first, last = int(files[1].stem), int(files[2].stem)
    files[1].unlink()
    found, lost = await reread(tmp_path)
    assert lost == last - first
    assert found == expected[:first] + expected[last:]
    assert [count for _, count, _ in findings(tmp_path)] == [lost]


async def test_a_read_error_is_not_the_end(tmp_path: Path) -> None:
    """A segment that is no readable file costs its records, and the lane goes on."""
    expected = await filled(tmp_path)
    files = segments(tmp_path)
    files[1].write_bytes(b"")
    found, lost = await reread(tmp_path)
    assert len(found) + lost == len(expected)
    assert lost


@pytest.mark.parametrize("seed", range(40))
async def test_random_damage_never_stops_a_start(tmp_path: Path, seed: int) -> None:
    """Bytes changed anywhere in any file: the spool starts, and each record comes unchanged or is counted as lost."""
    rng = random.Random(seed)
    expected = await filled(tmp_path)
    files = [file for file in sorted(tmp_path.rglob("*")) if file.is_file() and file.stat().st_size]
    for _ in range(rng.randint(1, 3)):
        file = rng.choice(files)
        flip(file, rng.randrange(file.stat().st_size))
    found, lost = await reread(tmp_path)
    assert set(found) <= set(expected)
    assert found == sorted(found)
    assert len(found) + lost == len(expected)
    async with spooling(tmp_path, FakeLane("r/fresh"), max_size=1 << 20) as spool:
        end = spool.stats()[A].end
        await spool.append(batch(1))
    assert end == len(expected)
    assert survey(tmp_path).state_problem == ""


@pytest.mark.parametrize("seed", range(30))
async def test_random_damage_after_a_crash(tmp_path: Path, seed: int) -> None:
    """The same after a kill, with the write-ahead log in use: a position may go back (twice, not lost), never ahead."""
    rng = random.Random(seed)
    whole, crashed = tmp_path / "whole", tmp_path / "crashed"
    lane = FakeLane()
    async with spooling(whole, lane, max_size=1 << 20) as spool:
        for number in range(20):
            await spool.append(batch(16, number * 16, 1000))
            if rng.random() < 0.5:
                await lane.take(spool)
                await lane.settle(spool)
        for _ in range(2):  # after a segment was deleted, the write-ahead log is empty
            await lane.settle(spool)
        committed = lane.cursors[A]
        shutil.copytree(whole, crashed)
    wal = crashed / "state.db-wal"
    assert wal.stat().st_size
    files = [file for file in sorted(crashed.rglob("*")) if file.is_file() and file.stat().st_size]
    file = wal if seed % 3 == 0 else rng.choice(files)
    for _ in range(rng.randint(1, 3)):
        flip(file, rng.randrange(file.stat().st_size))
    lane = FakeLane()
    lost = 0
    found: list[tuple[int, bytes]] = []
    async with spooling(crashed, lane, max_size=1 << 20) as spool:
        start = lane.cursors[A]
        while True:
            position = lane.cursors[A]
            one = await lane.take(spool)
            if one is None:
                break
            lost += max(0, one.first - position)
            found += [(number, raw) for number, raw in enumerate(one.records, one.first) if number >= position]
    assert start <= committed
    assert set(found) <= set(enumerate(records(320, size=1000)))
    assert len(found) + lost == 320 - start
    if file.suffix != ".seg":
        assert lost == 0
