"""Dead letters: what they say, how they rotate, how they are bounded, and what a disk that refuses costs."""

import asyncio
import json
import os
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from pipeline.core.batch import LogId
from pipeline.core.errors import UnavailableError
from pipeline.engine.letters import DeadLetters, letter


@pytest.fixture
async def box(tmp_path):
    """Makes dead letters with a size."""
    made = []

    def make(max_size=1 << 20):
        made.append(DeadLetters(tmp_path, max_size, lambda: 5.0))
        return made[-1]

    yield make
    for one in made:
        await one.close()


def lines_of(folder):
    return [json.loads(line) for path in sorted(folder.rglob("*.jsonl")) for line in path.read_text().splitlines()]


def test_a_letter():
    """A letter has the payload, who refused it and why, where it came from and when."""
    line = letter(
        b'{"a":1}', component="lake", reason="size", detail="too large", log=LogId("tap", "acme"), stream="event",
        received_at=1.0, rejected_at=2.0, sink="lake", route="all", lane="all/lake", attempts=3, first_attempt=1.5, changed=True,
    )  # fmt: skip
    assert json.loads(line) == {
        "reason": "size", "detail": "too large", "component": "lake", "route": "all", "sink": "lake", "source": "tap",
        "lane": "all/lake",
        "org": "acme", "stream": "event", "origin": "live", "received_at": 1.0, "rejected_at": 2.0, "attempts": 3,
        "first_attempt": 1.5, "changed": True, "payload": '{"a":1}',
    }  # fmt: skip
    assert line.endswith(b"\n")


def test_bytes_that_are_no_text():
    """A payload that is not UTF-8 comes whole, as base64."""
    made = json.loads(
        letter(
            b"\xff\0", component="c", reason="r", detail="", log=LogId("a"), stream="s", received_at=0, rejected_at=0
        )
    )
    assert made["payload_base64"] == "/wA="
    assert "payload" not in made


def test_odd_details():
    """A detail that cannot be encoded, or is endless, does not cost the letter."""
    detail = "\udcff" + "x" * 10_000
    made = json.loads(
        letter(
            b"{}", component="c", reason="r", detail=detail, log=LogId("a"), stream="s", received_at=0, rejected_at=0
        )
    )
    assert len(made["detail"]) == 2000


async def test_files_rotate(box, tmp_path):
    """A file that is full is followed by the next; a restart begins a new one and writes over none."""
    first = box()
    lane = first.lane("all", "lake")
    lane.folder._file_size = 100
    for number in range(5):
        await lane.put([b'{"n":%d,"x":"%s"}\n' % (number, b"x" * 60)])
    await first.close()
    again = box().lane("all", "lake")
    await again.put([b'{"n":5}\n'])
    files = sorted(tmp_path.rglob("*.jsonl"))
    assert [path.name for path in files] == ["000001.jsonl", "000002.jsonl", "000003.jsonl", "000004.jsonl"]
    assert [one["n"] for one in lines_of(tmp_path)] == list(range(6))
    assert again.size == sum(path.stat().st_size for path in files)


async def test_lanes_share_a_bound(box):
    """All lanes' letters together stay within the limit; what does not fit is not stored."""
    made = box(1000)
    one, two = made.lane("all", "one"), made.lane("all", "two")
    await one.put([b"x" * 599 + b"\n"])
    with pytest.raises(UnavailableError, match="full"):
        await two.put([b"x" * 499 + b"\n"])
    await two.put([b"x" * 399 + b"\n"])
    assert made.size == 1000


async def test_room_that_somebody_made_is_seen(box, tmp_path):
    """When files are moved away, letters go on into a new file under a new name, and none follows the old one."""
    lane = box(1000).lane("all", "one")
    await lane.put([b'{"n":1}\n' * 100])
    (old,) = tmp_path.rglob("*.jsonl")
    old.rename(tmp_path / "archived")
    await lane.put([b'{"n":2}\n' * 100])
    assert (tmp_path / "archived").stat().st_size == 800
    (new,) = tmp_path.rglob("*.jsonl")
    assert (new.name, new.stat().st_size, lane.size) == ("000002.jsonl", 800, 800)


async def test_a_deleted_file_takes_no_letters_with_it(box, tmp_path):
    """When the open file is deleted, the next letter goes into a new one."""
    lane = box().lane("all", "one")
    await lane.put([b'{"n":1}\n'])
    next(tmp_path.rglob("*.jsonl")).unlink()
    await lane.put([b'{"n":2}\n'])
    assert lines_of(tmp_path) == [{"n": 2}]


async def test_files_of_others_do_no_harm(box, tmp_path):
    """Files with other names in the folder are left alone."""
    folder = tmp_path / "lanes" / "all.one"
    folder.mkdir(parents=True)
    (folder / "1-copy.jsonl").write_text("mine\n")
    (folder / "notes.jsonl").write_text("mine\n")
    lane = box().lane("all", "one")
    await lane.put([b"{}\n"])
    assert {path.name for path in folder.iterdir()} == {"1-copy.jsonl", "notes.jsonl", "000001.jsonl"}
    assert lane.size == 3


async def test_a_disk_that_refuses(box, tmp_path):
    """While the folder cannot be made, a letter is refused with the reason, and stored when it can."""
    (tmp_path / "lanes").write_text("in the way")
    lane = box().lane("all", "one")
    with pytest.raises(UnavailableError, match="cannot be written"):
        await lane.put([b"{}\n"])
    (tmp_path / "lanes").unlink()
    await lane.put([b"{}\n"])
    assert len(lines_of(tmp_path)) == 1


async def test_half_a_letter_is_taken_back(box, tmp_path, monkeypatch):
    """A write that the disk broke off leaves no torn line; the next letter is whole."""
    lane = box().lane("all", "one")
    await lane.put([b'{"n":1}\n'])
    write = os.write

    def torn(fd, data):
        monkeypatch.setattr(os, "write", full)
        return write(fd, bytes(data)[:3])

    def full(fd, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", torn)
    with pytest.raises(UnavailableError, match="No space"):
        await lane.put([b'{"n":2}\n'])
    monkeypatch.setattr(os, "write", write)
    await lane.put([b'{"n":3}\n'])
    assert lines_of(tmp_path) == [{"n": 1}, {"n": 3}]


async def test_a_strangers_flood_rotates(box, tmp_path):
    """However much a source refuses, its letters stay within their bound, the newest are kept, and all are counted."""
    made = box(1 << 20)
    source = made.source("tap")
    for number in range(200):
        source.put([b"%06d" % number + b"x" * 4000], "not_an_object", "", "event")
        await source.flush()
    size = sum(path.stat().st_size for path in tmp_path.rglob("*.jsonl"))
    assert size <= (1 << 20) // 8 + 8192
    assert lines_of(tmp_path)[-1]["payload"].startswith("000199")
    assert source.counts == {"not_an_object": 200}
    assert made.size == 0


async def test_a_flood_between_two_writes_is_bounded(box):
    """Refused records that come faster than the disk takes them are counted, and no more than a bound is held."""
    source = box(1 << 20).source("tap")
    source.put([b"x" * 4000] * 1000, "oversize", "", "event")
    assert source._pending_size < 100_000
    assert source.counts["oversize"] == 1000
    assert source.lost > 0


async def test_a_disk_that_refuses_costs_letters_not_counts(box, tmp_path):
    """When a source's letters cannot be written, records are counted all the same, and the loss of the letters too."""
    (tmp_path / "sources").write_text("in the way")
    source = box().source("tap")
    source.put([b"bad"], "not_an_object", "", "event")
    await source.flush()
    assert (source.counts, source.lost) == ({"not_an_object": 1}, 1)


async def test_refused_records_are_written_in_the_background(box, tmp_path):
    """`run` writes what `put` left, without anybody waiting for it."""
    source = box().source("tap")
    task = asyncio.ensure_future(source.run())
    source.put([b"bad"], "not_an_object", "", "event")
    async with asyncio.timeout(5):
        while not lines_of(tmp_path):
            await asyncio.sleep(0.005)
    task.cancel()


async def test_a_writer_that_is_cancelled_loses_no_letters(box, tmp_path):
    """A stop that cancels the writing before its thread had a turn costs no letter."""
    loop = asyncio.get_running_loop()
    loop.set_default_executor(ThreadPoolExecutor(1))
    go_on = threading.Event()
    busy = loop.run_in_executor(None, go_on.wait)
    letters = box()
    source = letters.source("tap")
    task = asyncio.create_task(source.run())
    source.put([b"given up"], "shutdown", "", "event", whole=True)
    for _ in range(5):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    go_on.set()
    await busy
    await letters.close()
    assert [letter["payload"] for letter in lines_of(tmp_path)] == ["given up"]
