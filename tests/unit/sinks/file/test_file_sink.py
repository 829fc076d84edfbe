"""The file sink: names, marks, frames, what it does when the disk or somebody else interferes."""

from __future__ import annotations

import asyncio
import gzip
import os
import resource
import shutil
import stat
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from pipeline.core.errors import PermissionDeniedError, RetryLater
from pipeline.kit.codec import Encoder


@pytest.fixture
def small_files() -> Iterator[Any]:
    """Let no file of this process grow beyond a size, as a full disk would."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def limit(size: int) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))

    yield limit
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


async def test_lines_end_with_lf_and_the_mark_is_the_length(archive: Any, part: Any) -> None:
    """Each payload becomes a line; the mark of a write says how long the file is now."""
    sink = await archive.opened()
    mark = await sink.write(part(b'{"a":1}', b'{"b":2}'))
    assert archive.text("event.jsonl") == '{"a":1}\n{"b":2}\n'
    assert mark == {archive.path("event.jsonl"): 16}


async def test_first_byte_comes_after_the_first_mark(archive: Any, part: Any) -> None:
    """A file without a mark gets one, of its present length, before anything is written into it."""
    (archive.root).mkdir()
    (archive.root / "event.jsonl").write_text("{}\n")
    sink = await archive.opened()
    lengths = []
    inner = sink.commit_mark

    async def look(mark: Any) -> None:
        lengths.append((archive.root / "event.jsonl").stat().st_size)
        await inner(mark)

    sink.commit_mark = look
    await sink.write(part(b"{}"))
    await sink.write(part(b"{}"))
    assert archive.early_marks == [{archive.path("event.jsonl"): 3}]
    assert lengths == [3]


async def test_names_follow_the_template(archive: Any, part: Any) -> None:
    """Stream, organization, record values and receive time decide the file; directories are made, closed to others."""
    sink = await archive.opened("{org}/{routing/hostname}/%Y-%m-%d.jsonl")
    values = [{"routing/hostname": "web"}, {"routing/hostname": "../../etc"}, {}]
    await sink.write(part(b"{1}", b"{2}", b"{3}", at=0.0, values=values))
    assert archive.names() == [
        "acme/.._.._etc/1970-01-01.jsonl",
        "acme/_/1970-01-01.jsonl",
        "acme/web/1970-01-01.jsonl",
    ]
    assert stat.S_IMODE((archive.root / "acme/web").stat().st_mode) & 0o027 == 0
    assert stat.S_IMODE((archive.root / "acme/web/1970-01-01.jsonl").stat().st_mode) & 0o137 == 0


async def test_distinct_values_are_capped(archive: Any, part: Any) -> None:
    """Past the cap of values, records go to one common file."""
    sink = await archive.opened("{routing/sid}.jsonl", max_values=2)
    await sink.write(part(*[b"{}"] * 50, values=[{"routing/sid": str(number)} for number in range(50)]))
    assert archive.names() == ["0.jsonl", "1.jsonl", "_overflow.jsonl"]


async def test_names_too_long_for_the_file_system_are_shortened(archive: Any, part: Any) -> None:
    """A record whose values make an impossible name is stored under a shorter, distinct one."""
    sink = await archive.opened("{a/a}{a/b}{a/c}.jsonl")
    long = [{"a/a": "x" * 200, "a/b": "x" * 200, "a/c": "x" * 127 + end} for end in "yz"]
    await sink.write(part(b"{1}", b"{2}", values=long))
    assert sorted(map(archive.text, archive.names())) == ["{1}\n", "{2}\n"]


async def test_more_files_in_a_write_than_may_be_open(archive: Any, part: Any) -> None:
    """One write may go to more files than are kept open."""
    sink = await archive.opened("{routing/sid}.jsonl", max_open_files=3)
    descriptors = Path("/dev/fd")
    fds = len(list(descriptors.iterdir()))
    for _ in range(2):
        await sink.write(part(*[b"{}"] * 20, values=[{"routing/sid": str(number)} for number in range(20)]))
    assert len(list(descriptors.iterdir())) <= fds + 3
    assert {archive.text(name) for name in archive.names()} == {"{}\n{}\n"}
    assert len(archive.names()) == 20


@pytest.mark.parametrize(("suffix", "tool"), [(".gz", "zcat"), (".zst", "zstdcat")])
async def test_compressed_files_are_readable_after_each_write(archive: Any, part: Any, suffix: str, tool: str) -> None:
    """Every write adds one whole frame, so that the standard tools read the file while the sink has it open."""
    if shutil.which(tool) is None:
        pytest.skip(f"{tool} is not installed")
    sink = await archive.opened("{stream}.jsonl" + suffix)
    for count in (1, 2, 3):
        await sink.write(part(b"{}"))
        shown = subprocess.run([tool, archive.path("event.jsonl" + suffix)], capture_output=True, check=True).stdout
        assert shown == b"{}\n" * count


async def test_a_write_is_compressed_as_one_block_off_the_event_loop(
    archive: Any, part: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the engine hands over by default is one block of several MiB, compressed in the sink's own thread."""
    frame, blocks = Encoder.frame, []

    def noted(encoder: Encoder, data: bytes) -> bytes:
        blocks.append((threading.current_thread() is threading.main_thread(), len(data)))
        return frame(encoder, data)

    monkeypatch.setattr(Encoder, "frame", noted)
    sink = await archive.opened("{stream}.jsonl.zst")
    count = sink.config.batch.max_bytes // 1000
    await sink.write(part(*[b"x" * 999] * count))
    assert blocks == [(False, count * 1000)]
    assert count * 1000 > 1 << 20


@pytest.mark.parametrize(
    "config", [{"level": 9, "compression": "gzip"}, {"level": 0, "compression": "zstd"}, {"level": 1}]
)
def test_levels_are_checked(archive: Any, config: Any) -> None:
    """A level that the compression does not have is a mistake in the config."""
    with pytest.raises(ValidationError, match="is a number from"):
        archive.make(**config)


async def test_open_cuts_to_the_mark(archive: Any, part: Any) -> None:
    """What lies beyond a mark was not committed and is cut; the next write goes there."""
    archive.root.mkdir()
    (archive.root / "event.jsonl").write_text("{1}\n{2}\n{tor")
    sink = await archive.opened(marks={archive.path("event.jsonl"): 4})
    assert archive.text("event.jsonl") == "{1}\n"
    await sink.write(part(b"{3}"))
    assert archive.text("event.jsonl") == "{1}\n{3}\n"
    assert archive.early_marks == []


async def test_missing_and_shorter_files_are_said_loudly(archive: Any, part: Any) -> None:
    """A marked file that lost records is an error in the log with the bytes lost, and work goes on."""
    archive.root.mkdir()
    (archive.root / "event.jsonl").write_text("{1}\n{")
    sink = await archive.opened(marks={archive.path("event.jsonl"): 400, archive.path("audit.jsonl"): 7})
    errors = {(entry["path"], entry["bytes"]) for entry in archive.logged if entry["log_level"] == "error"}
    assert errors == {(archive.path("event.jsonl"), 395), (archive.path("audit.jsonl"), 7)}
    mark = await sink.write(part(b"{2}"))
    assert archive.text("event.jsonl") == "{1}\n{2}\n"
    assert mark == {archive.path("event.jsonl"): 8, archive.path("audit.jsonl"): None}


async def test_a_mark_of_a_file_never_begun_is_nothing(archive: Any) -> None:
    """A crash between the first mark and the first byte leaves nothing to say and no empty file."""
    archive.root.mkdir()
    (archive.root / "event.jsonl.gz").touch()
    marks = {archive.path("event.jsonl.gz"): 0, archive.path("audit.jsonl.gz"): 0}
    await archive.opened("{stream}.jsonl.gz", marks=marks)
    assert archive.names() == []
    assert archive.logged == []


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"{1}\n{to", "{1}\n{2}\n"),
        (b'{"whole":1}', '{"whole":1}\n{2}\n'),
        (b'{"torn":1', "{2}\n"),
        (b"{1}\n\0\0\0\0", "{1}\n{2}\n"),
    ],
)
async def test_without_marks_only_a_torn_last_line_is_cut(archive: Any, part: Any, before: bytes, after: str) -> None:
    """A file that others left keeps every whole record; a torn last line is cut and the log says so."""
    archive.root.mkdir()
    (archive.root / "event.jsonl").write_bytes(before)
    sink = await archive.opened()
    await sink.write(part(b"{2}"))
    assert archive.text("event.jsonl") == after
    assert [entry["log_level"] for entry in archive.logged] == ([] if b"whole" in before else ["warning"])


@pytest.mark.parametrize("tail", [gzip.compress(b"{torn}\n", mtime=0)[:-4], bytes(9000), b"\x1f\x8b\x08" + bytes(5000)])
async def test_without_marks_only_a_torn_last_frame_is_cut(archive: Any, part: Any, tail: bytes) -> None:
    """A compressed file keeps its whole frames; a torn one, or the zeros of a crash, is cut."""
    archive.root.mkdir()
    (archive.root / "event.jsonl.gz").write_bytes(gzip.compress(b"{1}\n") + tail)
    sink = await archive.opened("{stream}.jsonl.gz")
    await sink.write(part(b"{2}"))
    assert gzip.decompress((archive.root / "event.jsonl.gz").read_bytes()) == b"{1}\n{2}\n"


async def test_a_file_of_another_kind_is_left_alone(archive: Any, part: Any) -> None:
    """A file that holds no frames of the compression is not touched: the next number is begun."""
    archive.root.mkdir()
    (archive.root / "event.jsonl.gz").write_bytes(b"plain text\n")
    sink = await archive.opened("{stream}.jsonl.gz")
    await sink.write(part(b"{2}"))
    assert archive.text("event.jsonl.gz") == "plain text\n"
    assert archive.names() == ["event.jsonl.gz", "event~0001.jsonl.gz"]


async def test_rotation_by_size_numbers_the_next_file(archive: Any, part: Any) -> None:
    """A write that does not fit goes to the next number; what exists is never overwritten; the full file's mark goes."""
    archive.root.mkdir()
    sink = await archive.opened(rotate={"size": 8})
    await sink.write(part(b"{1}", b"{2}"))
    (archive.root / "event~0001.jsonl").write_text("mine")
    mark = await sink.write(part(b"{3}"))
    assert mark == {archive.path("event.jsonl"): None, archive.path("event~0002.jsonl"): 4}
    assert archive.text("event~0001.jsonl") == "mine"
    await sink.close()
    again = await archive.opened(rotate={"size": 8}, marks={archive.path("event~0002.jsonl"): 4})
    await again.write(part(b"{4}"))
    assert archive.text("event~0002.jsonl") == "{3}\n{4}\n"


async def test_rotation_by_time(archive: Any, part: Any) -> None:
    """A file takes what is written in one window of time."""
    window = 1000 * 86400
    archive.clock.time = time.time() // window * window
    sink = await archive.opened(rotate={"every": "1000d"})
    await sink.write(part(b"{1}"))
    archive.clock.time += window - 1
    await sink.write(part(b"{2}"))
    archive.clock.time += 1
    await sink.write(part(b"{3}"))
    assert archive.text("event.jsonl") == "{1}\n{2}\n"
    assert archive.text("event~0001.jsonl") == "{3}\n"


async def test_a_file_unused_for_long_loses_its_mark(archive: Any, part: Any) -> None:
    """A file of an hour gone by is closed and its mark removed; a late record gets it a new one."""
    sink = await archive.opened("{stream}-%H.jsonl")
    await sink.write(part(b"{1}", at=0.0))
    archive.clock.time += 1000
    mark = await sink.write(part(b"{2}", at=3600.0))
    assert mark == {archive.path("event-00.jsonl"): None, archive.path("event-01.jsonl"): 4}
    assert await sink.write(part(b"{3}", at=0.0)) == {archive.path("event-00.jsonl"): 8}
    assert archive.early_marks[-1] == {archive.path("event-00.jsonl"): 4}


async def test_a_failed_write_is_taken_back_everywhere(archive: Any, part: Any, small_files: Any) -> None:
    """When one file cannot take its block, no file keeps any; the write succeeds later as if it were the first."""
    sink = await archive.opened("{routing/sid}.jsonl")
    values = [{"routing/sid": "a"}, {"routing/sid": "b"}]
    await sink.write(part(b"{1}", b"{2}", values=values))
    small_files(100)
    with pytest.raises(RetryLater):
        await sink.write(part(b"{3}", b"{" + b"4" * 200 + b"}", values=values))
    assert (archive.text("a.jsonl"), archive.text("b.jsonl")) == ("{1}\n", "{2}\n")
    small_files(resource.RLIM_INFINITY)
    await sink.write(part(b"{3}", b"{4}", values=values))
    assert (archive.text("a.jsonl"), archive.text("b.jsonl")) == ("{1}\n{3}\n", "{2}\n{4}\n")


async def test_a_cancelled_write_does_not_count(archive: Any, part: Any) -> None:
    """A write whose caller has gone is not in the file once the same items come again."""
    sink = await archive.opened()
    await sink.write(part(b"{1}"))
    late = asyncio.ensure_future(sink.write(part(b"{2}")))
    while (archive.root / "event.jsonl").stat().st_size == 4:
        await asyncio.sleep(0)
        if late.done():
            break
    late.cancel()
    await asyncio.wait([late])
    await sink.write(part(b"{2}"))
    assert archive.text("event.jsonl").count("{2}") == (1 if late.cancelled() else 2)


async def test_two_sinks_on_one_path(archive: Any, part: Any) -> None:
    """The second writer of a file is refused with the reason, and goes on when the first has closed."""
    first, second = await archive.opened("{stream}.jsonl"), await archive.opened("{stream}.jsonl")
    await first.write(part(b"{1}"))
    with pytest.raises(RetryLater, match="another process or sink writes to it"):
        await second.write(part(b"{2}"))
    await first.close()
    await second.write(part(b"{2}"))
    assert archive.text("event.jsonl") == "{1}\n{2}\n"


async def test_a_file_moved_away_is_begun_anew(archive: Any, part: Any) -> None:
    """When somebody moves a file, the next write makes a new one with a mark of its own, and nothing goes to the old."""
    sink = await archive.opened()
    await sink.write(part(b"{1}"))
    (archive.root / "event.jsonl").rename(archive.root / "kept.jsonl")
    assert await sink.write(part(b"{2}")) == {archive.path("event.jsonl"): 4}
    assert (archive.text("kept.jsonl"), archive.text("event.jsonl")) == ("{1}\n", "{2}\n")
    assert archive.early_marks == [{archive.path("event.jsonl"): 0}] * 2


async def test_links_lead_nowhere(archive: Any, part: Any, tmp_path: Any) -> None:
    """Neither a link in place of the file nor one in place of a directory leads a record out of the prefix's directory."""
    archive.root.mkdir()
    outside = tmp_path / "outside"
    outside.mkdir()
    (archive.root / "event").symlink_to(outside)
    (archive.root / "audit.jsonl").symlink_to(outside / "target")
    deep = await archive.opened("{stream}/more/x.jsonl")
    with pytest.raises(RetryLater, match="link leads out"):
        await deep.write(part(b"{}"))
    flat = await archive.opened("{stream}.jsonl")
    with pytest.raises(RetryLater, match="Links are not followed"):
        await flat.write(part(b"{}", stream="audit"))
    assert list(outside.iterdir()) == []


async def test_a_pipe_in_place_of_the_file_does_not_hang(archive: Any, part: Any) -> None:
    """What is no regular file is refused at once."""
    archive.root.mkdir()
    os.mkfifo(archive.root / "event.jsonl")
    sink = await archive.opened()
    with pytest.raises(RetryLater, match="not a regular file"):
        await sink.write(part(b"{}"))


async def test_a_disk_that_lost_bytes_stops_the_sink(archive: Any, part: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a failed fsync nothing counts any more until a restart: neither a later sync nor a write succeeds."""
    sink = await archive.opened()
    await sink.write(part(b"{1}"))

    def fail(_fd: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("pipeline.kit.appendfile._datasync", fail)
    with pytest.raises(RetryLater, match="restart"):
        await sink.sync()
    monkeypatch.undo()
    with pytest.raises(RetryLater, match="restart"):
        await sink.sync()
    with pytest.raises(RetryLater, match="restart"):
        await sink.write(part(b"{2}"))
    assert archive.report.states[0][0] == "failed"


async def test_check_names_a_directory_that_cannot_be_written(archive: Any) -> None:
    """`check` finds out without writing whether files can be made."""
    await archive.make().check()
    assert not archive.root.exists()
    archive.root.parent.joinpath("data").write_text("a file")
    with pytest.raises(PermissionDeniedError, match="not a directory"):
        await archive.make().check()


async def test_close_is_safe_at_any_time(archive: Any) -> None:
    """`close` works twice and without `open`."""
    sink = archive.make()
    await sink.close()
    await sink.open({})
    await sink.close()
    await sink.close()
