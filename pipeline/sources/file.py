"""Source `file`: JSON lines from files, plain or compressed, for replay and tests; with `follow`, as the files grow."""

from __future__ import annotations

import asyncio
import glob
import io
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator

from pipeline.core.component import Context
from pipeline.core.config import Field, SourceConfig
from pipeline.core.errors import ConfigError
from pipeline.core.source import Outlet, Source
from pipeline.core.types import Duration
from pipeline.kit.codec import Damaged, Reader, by_suffix
from pipeline.sources.lines import Lines

MAX_FILES = 256
"""Files that are followed at once at most; each is kept open, so that a rename does not lose its end."""

SHARE = 16
"""Pieces of about 1 MiB that are read of one file before it is the next one's turn."""
LINGER = 10.0
"""Seconds that a file which was moved away may still get something from a writer that has it open."""

_Identity = tuple[int, int]


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


class FileSourceConfig(SourceConfig):
    """Read JSON lines from files."""

    paths: Annotated[list[str], BeforeValidator(_as_list)] = Field(min_length=1)
    """Files, or patterns like `/data/*.jsonl.gz` (`**` for any depth). `.gz` and `.zst` are decompressed, of any number of frames."""
    follow: bool = False
    """Go on when a file grows, is rotated or cut, and when further files match. Otherwise the source ends with the last file."""
    start: Literal["beginning", "end"] = "beginning"
    """Where `follow` begins in the files that are there when the source starts. No position is kept across a start."""
    poll: Duration = Field(1.0, gt=0)
    """With `follow`, how often to look for what is new."""


class _Tail:
    """One open file and how far it is read."""

    def __init__(self, path: str, file: io.FileIO, lines: Lines) -> None:
        self.path = path
        self.file = file
        self.lines = lines
        self.reader = Reader(file, by_suffix(path))
        self.unsent: list[bytes] = []
        self.broken = False
        """Whether what follows cannot be read, unless the file is cut and begun again."""
        self.grew = 0.0

    def was_cut(self) -> bool:
        return os.fstat(self.file.fileno()).st_size < self.file.tell()

    def restart(self) -> None:
        self.file.seek(0)
        self.reader = Reader(self.file, by_suffix(self.path))
        self.broken = False


class FileSource(Source[FileSourceConfig]):
    """Keeps its place over a `run` that failed and is started again."""

    any_org: ClassVar[bool] = True

    def __init__(self, config: FileSourceConfig, context: Context) -> None:
        super().__init__(config, context)
        self._queue: list[str] | None = None
        self._tails: dict[_Identity, _Tail] = {}
        self._started = False

    async def open(self) -> None:
        """Raises `ConfigError` for a file that does not exist, unless `follow` is to wait for it."""
        if not self.config.follow:
            await asyncio.to_thread(self._require)

    async def check(self) -> None:
        """Raises `ConfigError` for a file that does not exist or may not be read."""
        await asyncio.to_thread(self._require)

    async def run(self, outlet: Outlet) -> None:
        if self.config.follow:
            await self._follow(outlet)
            return
        if self._queue is None:
            self._queue = list((await asyncio.to_thread(self._scan)).values())
            if not self._queue:
                self.log.warning("No file matches.", paths=self.config.paths)
        while not self.stopping.is_set():
            if not self._tails:
                if not self._queue:
                    return
                await asyncio.to_thread(self._enter, self._queue.pop(0), outlet)
            for identity, tail in list(self._tails.items()):
                if not await self._pump(tail, outlet):
                    await self._finish(identity, outlet)

    async def close(self) -> None:
        for tail in self._tails.values():
            tail.file.close()
        self._tails.clear()

    async def _follow(self, outlet: Outlet) -> None:
        while not self.stopping.is_set():
            found = await asyncio.to_thread(self._scan)
            for identity, path in found.items():
                if identity not in self._tails:
                    await asyncio.to_thread(self._enter, path, outlet)
            self._started = True
            more = False
            for identity, tail in list(self._tails.items()):
                if tail.was_cut():
                    self.log.warning("A file was cut; it is read from its beginning.", path=tail.path)
                    tail.unsent += tail.lines.end()
                    tail.restart()
                more |= await self._pump(tail, outlet)
                if identity not in found and self.clock.monotonic() - tail.grew > LINGER:
                    await self._finish(identity, outlet)
            if not more:
                await self.sleep(self.config.poll)

    async def _pump(self, tail: _Tail, outlet: Outlet) -> bool:
        """Send what the file holds, up to a fair share; whether there is more now."""
        for _ in range(SHARE):
            if tail.unsent:
                await outlet.send(tail.unsent)
                tail.unsent = []
            if tail.broken or self.stopping.is_set():
                return False
            try:
                chunk = await asyncio.to_thread(tail.reader.read)
            except (Damaged, OSError) as error:
                self._broken(tail, str(error))
                return False
            if not chunk:
                return False
            tail.unsent = tail.lines.feed(chunk)
            tail.grew = self.clock.monotonic()
        return True

    async def _finish(self, identity: _Identity, outlet: Outlet) -> None:
        """Come to the end of a file."""
        if self.stopping.is_set():
            return
        tail = self._tails[identity]
        if tail.reader.inside and not tail.broken:
            self._broken(tail, "it ends within a frame")
        tail.unsent += tail.lines.end()
        if tail.unsent:
            await outlet.send(tail.unsent)
        tail.file.close()
        del self._tails[identity]

    def _broken(self, tail: _Tail, why: str) -> None:
        tail.broken = True
        self.report.count("broken_file")
        self.log.error("A file cannot be read to its end; what follows is left out.", path=tail.path, error=why)

    def _enter(self, path: str, outlet: Outlet) -> None:
        try:
            file = io.FileIO(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK))
        except OSError as error:
            self.report.count("broken_file")
            self.log.error("A file cannot be opened.", path=path, error=error.strerror)  # noqa: TRY400 - the text says it all
            return
        tail = _Tail(path, file, Lines(self.config, outlet))
        tail.grew = self.clock.monotonic()
        if self.config.follow and self.config.start == "end" and not self._started:
            file.seek(0, os.SEEK_END)
        found = os.fstat(file.fileno())
        self._tails[found.st_dev, found.st_ino] = tail

    def _scan(self) -> dict[_Identity, str]:
        """The regular files that match now, each once, in the order of the config and then of their names."""
        found: dict[_Identity, str] = {}
        for path in self._paths():
            try:
                entry = Path(path).stat()
            except OSError:
                # Gone since it was listed; a missing file was told at the start.
                continue
            if stat.S_ISREG(entry.st_mode):
                found.setdefault((entry.st_dev, entry.st_ino), path)
            if self.config.follow and len(found) >= MAX_FILES:
                self.log.warning("More files match than can be followed.", limit=MAX_FILES)
                break
        return found

    def _paths(self) -> Iterator[str]:
        for pattern in self.config.paths:
            if glob.has_magic(pattern):
                yield from sorted(glob.iglob(pattern, recursive=True))  # noqa: PTH207 - Path.glob takes no absolute pattern
            else:
                yield pattern

    def _require(self) -> None:
        for path in self._paths():
            if not os.access(path, os.R_OK):
                what = "may not be read" if Path(path).exists() else "does not exist"
                raise ConfigError(f"{path} {what}", where=self.id, fix="Correct `paths`.")
            if path in self.config.paths and not Path(path).is_file():
                raise ConfigError(
                    f"{path} is not a regular file", where=self.id, fix="Use the source `stdin` for a pipe."
                )
