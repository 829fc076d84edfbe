"""Whatever happens between two commits, the file sink's files hold exactly what was committed."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import os
import random
import resource
import tempfile
from pathlib import Path
from typing import Any, cast

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.core.batch import LogId
from pipeline.core.component import Context, Report
from pipeline.core.errors import RetryLater
from pipeline.core.items import Items, Part
from pipeline.kit import log
from pipeline.kit.clock import SystemClock
from pipeline.sinks.file import FileConfig, FileSink

SUFFIX = {"none": "", "gzip": ".gz", "zstd": ".zst"}

payloads = st.lists(
    st.binary(max_size=40).map(lambda data: b'{"k":"' + data.hex().encode() + b'"}'), min_size=1, max_size=5
)
streams = st.sampled_from(["event", "detect"])
steps = st.one_of(
    st.tuples(st.just("write"), st.lists(st.tuples(streams, payloads), min_size=1, max_size=3)),
    st.tuples(
        st.just("full_disk"),
        st.tuples(st.integers(0, 400), st.lists(st.tuples(streams, payloads), min_size=1, max_size=3)),
    ),
    st.tuples(st.just("commit"), st.none()),
    st.tuples(st.just("crash"), st.integers()),
    st.tuples(st.just("close"), st.none()),
)


class World:
    """A sink, the engine's memory of it, and what was delivered up to the last commit."""

    def __init__(self, root: Path, compression: str, size: int | None, max_open: int) -> None:
        self.root = root
        self.compression = compression
        self.config = FileConfig.model_validate(
            {
                "type": "file",
                "path": f"{root}/{{stream}}.jsonl{SUFFIX[compression]}",
                "rotate": {"size": size},
                "max_open_files": max_open,
                "sync": "normal",
            }
        )
        self.marks: dict[str, Any] = {}
        self.pending: dict[str, Any] = {}
        self.committed: dict[str, list[bytes]] = {"event": [], "detect": []}
        self.delivered: dict[str, list[bytes]] = {"event": [], "detect": []}
        self.sink: FileSink | None = None

    async def commit_mark(self, mark: Any) -> None:
        self.marks.update(mark)

    async def open(self) -> FileSink:
        context = Context(
            "archive",
            log.get(),
            SystemClock(),
            cast("Report", object()),
            asyncio.Event(),
            commit_mark=self.commit_mark,
        )
        self.sink = FileSink(self.config, context)
        await self.sink.open(self.marks)
        return self.sink

    async def write(self, parts: list[tuple[str, list[bytes]]]) -> None:
        sink = self.sink or await self.open()
        items = Items([Part(payloads, stream, LogId("s"), 1_800_000_000.0) for stream, payloads in parts])
        self.pending.update(await sink.write(items))
        for stream, lines in parts:
            self.delivered[stream] += lines

    async def full_disk(self, room: int, parts: list[tuple[str, list[bytes]]]) -> None:
        """No file can grow beyond ``room`` bytes."""
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
        try:
            with contextlib.suppress(RetryLater):
                await self.write(parts)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    async def commit(self) -> None:
        if self.sink is not None:
            await self.sink.sync()
        self.marks.update(self.pending)
        self.marks = {path: length for path, length in self.marks.items() if length is not None}
        self.pending = {}
        self.committed = {stream: list(lines) for stream, lines in self.delivered.items()}

    async def close(self) -> None:
        """An orderly stop."""
        await self.end()
        await self.commit()

    async def end(self) -> None:
        if self.sink is not None:
            await self.sink.close()
        self.sink = None

    async def crash(self, seed: int) -> None:
        """The process dies; each file ends anywhere beyond its mark, or in bytes that nobody wrote."""
        await self.end()
        rng = random.Random(seed)
        for path, length in self.marks.items():
            file_path = Path(path)
            if not file_path.exists():
                continue
            os.truncate(path, rng.randint(length, max(length, file_path.stat().st_size)))
            if rng.random() < 0.5:
                with file_path.open("ab") as file:
                    file.write(rng.choice([rng.randbytes(30), bytes(30), b'{"torn":']))
        self.pending = {}
        self.delivered = {stream: list(lines) for stream, lines in self.committed.items()}
        await self.open()

    def content(self, stream: str) -> list[bytes]:
        found = b""
        for path in sorted(self.root.glob(f"{stream}*")):
            data = path.read_bytes()
            if self.compression == "gzip":
                data = gzip.decompress(data)
            elif self.compression == "zstd" and data:
                data = zstandard.ZstdDecompressor().stream_reader(data, read_across_frames=True).read()
            found += data
        return found.splitlines()


@pytest.mark.parametrize("compression", ["none", "gzip", "zstd"])
@settings(max_examples=150, deadline=None)
@given(script=st.lists(steps, max_size=15), size=st.sampled_from([None, 100, 300]), max_open=st.sampled_from([1, 128]))
def test_files_hold_exactly_the_committed_payloads(
    compression: str, script: list[tuple[str, Any]], size: int | None, max_open: int
) -> None:
    """After any writes, commits, crashes, rotations and closes the files hold each committed payload once, in order."""

    async def play(root: Path) -> None:
        world = World(root, compression, size, max_open)
        for name, value in [*script, ("crash", 1)]:
            if name == "write":
                await world.write(value)
            elif name == "full_disk":
                await world.full_disk(*value)
            elif name == "commit":
                await world.commit()
            elif name == "crash":
                await world.crash(value)
            else:
                await world.close()
        await world.end()
        for stream in ("event", "detect"):
            assert world.content(stream) == world.committed[stream]

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(play(Path(folder)))
