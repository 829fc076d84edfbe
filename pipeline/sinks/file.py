"""Sink `file`: lines in files, plain or in compressed frames, without a torn or a double record across a crash."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, TypeVar

from pydantic import model_validator

from pipeline.core.component import Context
from pipeline.core.config import BatchConfig, Field, Section, SinkConfig
from pipeline.core.errors import PermissionDeniedError, RetryLater
from pipeline.core.items import NO_VALUES, Items
from pipeline.core.sink import Mark, Sink
from pipeline.core.template import Seen, Template
from pipeline.core.types import Duration, RecordPath, Size
from pipeline.kit.codec import LEVELS, Compression, Encoder, by_suffix, split_suffix
from pipeline.sinks.fileset import FileSet, Policy, Target, Unsynced

T = TypeVar("T")

_FIXES = {
    errno.ENOSPC: "Free or add space; it goes on by itself.",
    errno.EDQUOT: "Raise the quota or free space; it goes on by itself.",
    errno.EWOULDBLOCK: "Give each writer a path of its own.",
    errno.EACCES: "Give this process the right to write there.",
    errno.ELOOP: "Links are not followed; put a file there.",
    errno.EMFILE: "Lower `max_open_files` or raise the limit of open files.",
}


class RotateConfig(Section):
    """When a file is finished and the next begun: `a.jsonl`, then `a~0001.jsonl`, `a~0002.jsonl`; nothing is overwritten."""

    size: Size | None = Field(None, gt=0)
    """A write that would make the file larger than this goes to the next one; a larger single write has a file of its own."""
    every: Duration | None = Field(None, gt=0)
    """A file takes what is written in one such window of time; windows are counted from 1970 in UTC."""


class FileConfig(SinkConfig):
    """Append records as lines to files."""

    path: Template
    """Where: a literal directory first, then what tells files apart, like `/data/{stream}/%Y/%m/%d/%H.jsonl.zst`. With several
    workers each has files of its own: `13.w1.jsonl.zst`, `13.w2.jsonl.zst`."""
    compression: Compression | None = None
    """none, gzip or zstd; by the path's ending (`.gz`, `.zst`) unless set. Each write is a frame of its own, so that `zcat` and
    `zstdcat` read the file at any time."""
    level: int | None = None
    """Compression level: gzip 0 to 3 (ISA-L's, default 1), zstd 1 to 19 (default 1)."""
    rotate: RotateConfig = RotateConfig()
    """When to begin the next file, beside what the times in the path say."""
    sync: Literal["full", "normal"] = "full"
    """`full`: records are on the disk before they count as delivered. `normal`: the operating system writes them when it likes."""
    max_open_files: int = Field(128, gt=0)
    """Files kept open; the one unused for longest is closed first."""
    max_values: int = Field(1000, gt=0)
    """Distinct values that each place of the path takes; records with further ones go to `_overflow`."""
    batch: BatchConfig = BatchConfig(max_events=100_000, max_bytes=4 << 20, max_wait=5.0)
    """How many items it gets in one write."""

    @property
    def codec(self) -> Compression:
        """The compression that is used."""
        return self.compression or by_suffix(self.path.text)

    @model_validator(mode="after")
    def _check_level(self) -> Self:
        low, _, high = LEVELS[self.codec]
        if self.level is not None and not low <= self.level <= high:
            raise ValueError(f"the level of {self.codec} is a number from {low} to {high}")
        return self


class FileSink(Sink[FileConfig]):
    """Its marks are ``{path: length}``. Disk work and compression are done in one thread, which has the files for itself."""

    has_marks: ClassVar[bool] = True

    def __init__(self, config: FileConfig, context: Context) -> None:
        super().__init__(config, context)
        self._root = Path(config.path.prefix + "_").absolute().parent
        self._keys = sorted(config.path.paths)
        self._seen = Seen(config.max_values)
        self._encoder = Encoder(config.codec, config.level)
        policy = Policy(
            root=str(self._root),
            compression=config.codec,
            rotate_size=config.rotate.size,
            rotate_every=config.rotate.every,
            durable=config.sync == "full",
            max_open=config.max_open_files,
        )
        self._files = FileSet(policy, self.clock, self.log)
        self._thread: ThreadPoolExecutor | None = None

    @property
    def paths(self) -> Iterable[RecordPath]:
        return self._keys

    async def open(self, marks: Mapping[str, Any]) -> None:
        """Cut each marked file to its length. Raises `RetryLater` where one cannot be."""
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"sink-{self.id}")
        await self._do(lambda: self._files.restore(marks))

    async def check(self) -> None:
        """Raises `PermissionDeniedError` when the directory cannot be written to."""
        await asyncio.to_thread(self._check)

    def _check(self) -> None:
        at = self._root
        while not at.exists():
            at = at.parent
        if not at.is_dir() or not os.access(at, os.W_OK | os.X_OK):
            raise PermissionDeniedError(
                f"{at} is not a directory that this process may write to", where=self.id, fix="Change it, or the path."
            )

    async def write(self, items: Items) -> Mark:
        """Append all items, or none. Raises `RetryLater`."""
        files = self._files
        plan, new = await self._do(lambda: self._begin(items))
        if new:
            await self.commit_mark(new)
            files.marked.update(new)
            await self._do(lambda: files.store(plan))
        # Here, not in the thread: a write that was cancelled before must not count, it will come again.
        for file, _ in plan:
            file.keep()
        finished, files.finished = files.finished, set()
        files.marked -= finished
        return {**dict.fromkeys(finished), **{file.path: file.length for file, _ in plan}}

    async def sync(self) -> None:
        """Put what was written on the disk, with `sync: full`. Raises `RetryLater`."""
        if self._thread is not None:
            await self._do(self._files.sync)

    async def close(self) -> None:
        thread, self._thread = self._thread, None
        if thread is None:
            return
        try:
            await asyncio.get_running_loop().run_in_executor(thread, self._files.close)
        finally:
            thread.shutdown(wait=False)

    async def _do(self, work: Callable[[], T]) -> T:
        if self._thread is None:
            raise RetryLater("the sink is not open", where=self.id)
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work)
        except OSError as error:
            text = error.strerror or str(error)
            if isinstance(error, Unsynced):
                self.report.state("failed", text, code=RetryLater.code)
            raise RetryLater(
                f"{error.filename}: {text}" if error.filename else text,
                where=self.id,
                fix=_FIXES.get(error.errno or 0, ""),
            ) from None

    def _begin(self, items: Items) -> tuple[list[tuple[Target, list[bytes]]], dict[str, int]]:
        """Compress, and store at once unless some files need a mark first. Runs in the thread, as what follows does."""
        plan = self._prepare(items)
        new = {file.path: file.length for file, _ in plan if file.path not in self._files.marked}
        if not new:
            self._files.store(plan)
        return plan, new

    def _prepare(self, items: Items) -> list[tuple[Target, list[bytes]]]:
        """What goes into each file: the blocks as they are, or one compressed."""
        if self._files.unsynced is not None:
            raise self._files.unsynced
        self._files.retire()
        plan = []
        for name, blocks in self._group(items).items():
            pieces = blocks if self._encoder.compression == "none" else [self._encoder.frame(b"".join(blocks))]
            plan.append((self._files.target(name, sum(map(len, pieces))), pieces))
        return plan

    def _group(self, items: Items) -> dict[str, list[bytes]]:
        """Blocks of lines by the name that the template gives them."""
        template, seen = self.config.path, self._seen
        groups: dict[str, list[bytes]] = {}
        for part in items.parts:
            if part.values is None:
                name = self._own(template.render(part.stream, part.org, part.received_at, NO_VALUES, seen))
                groups.setdefault(name, []).append(part.block())
                continue
            known: dict[tuple[str | None, ...], list[bytes]] = {}
            named: dict[str, list[bytes]] = {}
            for payload, values in zip(part.payloads, part.values, strict=True):
                key = tuple([values.get(path) for path in self._keys])
                group = known.get(key)
                if group is None:
                    name = self._own(template.render(part.stream, part.org, part.received_at, values, seen))
                    group = known[key] = named.setdefault(name, [])
                group.append(payload)
            for name, payloads in named.items():
                groups.setdefault(name, []).append(b"\n".join([*payloads, b""]))
        return groups

    def _own(self, name: str) -> str:
        """The name of this process's file: a mark says how long a file is, so that only one process may write to it."""
        worker = self._context.worker
        if not worker:
            return name
        stem, suffix = split_suffix(name)
        return f"{stem}.w{worker}{suffix}"
