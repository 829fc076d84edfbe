"""The sources file and stdin."""

from __future__ import annotations

import gzip
import os
import tracemalloc
from pathlib import Path
from typing import Any, cast

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from pipeline.core.errors import ConfigError
from pipeline.kit.codec import Reader
from pipeline.sources.file import FileSource, FileSourceConfig
from pipeline.sources.lines import Lines
from pipeline.sources.stdin import StdinConfig, StdinSource


def file_source(bench: Any, *paths: str, **config: Any) -> Any:
    return bench.source(FileSource, FileSourceConfig, paths=[str(bench.root / path) for path in paths], **config)


async def test_files_in_order_to_the_end(bench: Any) -> None:
    """Plain and compressed files of several frames are read in order, each once, and then the source is at its end."""
    (bench.root / "a.jsonl").write_bytes(b"{1}\r\n\n{2}\n{3:0")
    (bench.root / "b.jsonl.gz").write_bytes(gzip.compress(b"{4}\n{5") + gzip.compress(b"}\n"))
    frame = zstandard.ZstdCompressor().compress
    (bench.root / "c.jsonl.zst").write_bytes(frame(b"{6}\n") + frame(b'{"7":7}'))
    source = file_source(bench, "a.jsonl", "*.jsonl*")
    await source.open()
    await source.run(bench.sent)
    assert bench.sent.records == [b"{1}", b"{2}", b"{4}", b"{5}", b"{6}", b'{"7":7}']
    assert bench.sent.refused == [(b"{3:0", "truncated")]


async def test_a_missing_file_is_a_mistake(bench: Any) -> None:
    """A named file that does not exist, or is no file, stops the start; one to be followed may come later."""
    with pytest.raises(ConfigError, match="does not exist"):
        await file_source(bench, "gone.jsonl").open()
    with pytest.raises(ConfigError, match="not a regular file"):
        await file_source(bench, "").open()
    await file_source(bench, "gone.jsonl", follow=True).open()


@pytest.mark.parametrize(
    "data", [gzip.compress(b"{1}\n{2}\n", mtime=0)[:-3], gzip.compress(b"{1}\n{2}\n", mtime=0) + b"garbage"]
)
async def test_a_broken_file_is_read_as_far_as_it_goes(bench: Any, data: bytes) -> None:
    """What can be read of a torn or damaged file is delivered, the rest is said loudly, and the next file is read."""
    (bench.root / "a.gz").write_bytes(data)
    (bench.root / "b").write_bytes(b"{3}\n")
    await file_source(bench, "a.gz", "b").run(bench.sent)
    assert bench.sent.records == [b"{1}", b"{2}", b"{3}"]
    assert [entry["log_level"] for entry in bench.logged] == ["error"]
    assert bench.sent.counted == ["broken_file"]


async def test_a_run_that_failed_goes_on_where_it_was(bench: Any) -> None:
    """When the outlet fails, the next run neither repeats nor leaves out a record."""
    (bench.root / "a").write_bytes(b"{1}\n{2}\n")
    (bench.root / "b").write_bytes(b"{3}\n")
    source = file_source(bench, "a", "b")
    bench.sent.failures = 1
    with pytest.raises(OSError, match="spool"):
        await source.run(bench.sent)
    await source.run(bench.sent)
    assert bench.sent.records == [b"{1}", b"{2}", b"{3}"]


async def test_follow_growth_rotation_and_cuts(bench: Any) -> None:
    """A followed file's lines arrive once each: as it grows, over a rename, over a cut, and from files that come later."""
    path = bench.root / "a.jsonl"
    path.write_bytes(b"{1}\n{2")
    bench.start(file_source(bench, "*.jsonl", follow=True, poll="10ms"))
    await bench.sent.until(1)
    with path.open("ab") as old:
        old.write(b"}\n")
        old.flush()
        await bench.sent.until(2)
        path.rename(bench.root / "a.jsonl.1")
        path.write_bytes(b"{3}\n")
        await bench.sent.until(3)
        old.write(b"{4}\n")
    await bench.sent.until(4)
    path.write_bytes(b"")
    while not any("was cut" in entry["event"] for entry in bench.logged):
        await bench.sources[0].sleep(0.005)
    path.write_bytes(b"{5}\n")
    (bench.root / "b.jsonl").write_bytes(b"{6}\n")
    await bench.sent.until(6)
    assert sorted(bench.sent.records) == [b"{1}", b"{2}", b"{3}", b"{4}", b"{5}", b"{6}"]


async def test_follow_a_growing_compressed_file(bench: Any) -> None:
    """Frames that are appended, even in two pieces, are read as they become whole."""
    frame = gzip.compress(b"{2}\n")
    with (bench.root / "a.gz").open("wb", buffering=0) as file:
        file.write(gzip.compress(b"{1}\n"))
        bench.start(file_source(bench, "a.gz", follow=True, poll="10ms"))
        await bench.sent.until(1)
        file.write(frame[:15])
        file.write(frame[15:])
        assert await bench.sent.until(2) == [b"{1}", b"{2}"]


async def test_follow_from_the_end(bench: Any) -> None:
    """With `start: end` only what comes later is read, of a new file all."""
    (bench.root / "a.jsonl").write_bytes(b"{old}\n")
    source = file_source(bench, "*.jsonl", follow=True, start="end", poll="10ms")
    bench.start(source)
    while not source._started:
        await source.sleep(0.005)
    (bench.root / "b.jsonl").write_bytes(b"{new}\n")
    assert await bench.sent.until(1) == [b"{new}"]


async def test_a_bomb_is_read_in_steps(bench: Any) -> None:
    """A small file that unpacks to much never holds more than a step of it, and its endless line is refused once."""
    (bench.root / "a.zst").write_bytes(zstandard.ZstdCompressor().compress(bytes(200 << 20)))
    with (bench.root / "a.zst").open("rb") as file:
        reader, largest, total = Reader(file, "zstd"), 0, 0
        while data := reader.read():
            largest, total = max(largest, len(data)), total + len(data)
    assert (total, largest <= 17 << 20) == (200 << 20, True)
    await file_source(bench, "a.zst", max_record=1000).run(bench.sent)
    assert bench.sent.refused == [(bytes(4096), "oversize")]


@given(
    lines=st.lists(st.sampled_from([b"{}", b"{1234}", b"", b"\r", b'{"a":1}\r', b"x" * 30])),
    tail=st.sampled_from([b"", b'{"t":1}', b"{torn"]),
    sizes=st.lists(st.integers(1, 9), min_size=1),
)
def test_any_split_gives_the_same_lines(lines: list[bytes], tail: bytes, sizes: list[int]) -> None:
    """However a stream is cut into chunks, the same records are delivered and the same refused."""
    refused: list[str] = []
    outlet = cast("Any", type("Outlet", (), {"refuse": staticmethod(lambda _raw, reason: refused.append(reason))}))
    splitter = Lines(StdinConfig(type="stdin", max_record=20), outlet)
    data = b"".join(line + b"\n" for line in lines) + tail
    found: list[bytes] = []
    at = turn = 0
    while at < len(data):
        size = sizes[turn % len(sizes)]
        found += splitter.feed(data[at : at + size])
        at, turn = at + size, turn + 1
    found += splitter.end()
    whole = [line.removesuffix(b"\r") for line in lines if line.strip()]
    # A long line within one chunk is left to intake, which refuses it as well.
    expected = [line for line in whole if len(line) <= 20] + ([tail] if tail == b'{"t":1}' else [])
    assert [line for line in found if len(line) <= 20] == expected
    long = len(whole) - len([line for line in whole if len(line) <= 20])
    assert refused.count("oversize") + len([line for line in found if len(line) > 20]) == long
    assert refused.count("truncated") == (tail == b"{torn")


def test_small_pieces_cost_their_size() -> None:
    """A line that comes byte by byte takes about as much memory as it has bytes."""
    splitter = Lines(StdinConfig(type="stdin"), cast("Any", None))
    tracemalloc.start()
    try:
        for number in range(100_000):
            splitter.feed(bytes((97 + number % 26,)))
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 200_000


def stdin_source(bench: Any, fd: int, **config: Any) -> Any:
    source = bench.source(StdinSource, StdinConfig, **config)
    source.fd = fd
    return source


async def test_stdin_until_its_end(bench: Any) -> None:
    """Records come as they are written, and the source ends when the input does."""
    read, write = os.pipe()
    task = bench.start(stdin_source(bench, read))
    os.write(write, b"{1}\n{2")
    await bench.sent.until(1)
    os.write(write, b"}\n[3]")
    os.close(write)
    await task
    assert bench.sent.records == [b"{1}", b"{2}", b"[3]"]
    os.close(read)


async def test_stdin_from_a_file(bench: Any) -> None:
    """A redirected file is read to its end."""
    (bench.root / "a").write_bytes(b"{}\n" * 200_000)
    with (bench.root / "a").open("rb") as file:
        await stdin_source(bench, file.fileno()).run(bench.sent)
    assert bench.sent.records == [b"{}"] * 200_000


async def test_stdin_stops_while_nothing_comes(bench: Any) -> None:
    """A source that waits for input ends when it is told to, with what the pipe holds, and leaves no thread behind."""
    read, write = os.pipe()
    task = bench.start(stdin_source(bench, read))
    os.write(write, b"{1}\n")
    await bench.sent.until(1)
    bench.stopping.set()
    os.write(write, b"{2}\n")
    await task
    assert bench.sent.records == [b"{1}", b"{2}"]
    os.close(write)
    os.close(read)


async def test_stdin_without_input(bench: Any) -> None:
    """/dev/null is an input that ends at once."""
    with Path(os.devnull).open("rb") as nothing:
        await stdin_source(bench, nothing.fileno()).run(bench.sent)
    assert bench.sent.records == []
