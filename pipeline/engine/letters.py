"""Dead letters: JSON lines of what could not be processed, one folder per lane and per source.

A lane's letters are never overwritten: when they reach the limit, the lane waits until somebody makes room. A source's letters
rotate, so that a stranger who sends rubbish can neither fill the disk nor stop a lane.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson

from pipeline.core.batch import LogId, Origin
from pipeline.core.errors import UnavailableError
from pipeline.engine.letter_folder import FILE_SIZE, LetterFolder
from pipeline.kit import log as logs

SOURCE_FILES = 4
"""Files that a source's letters rotate over."""
SOURCE_PENDING = 4 << 20
"""Bytes of refused records that wait for the disk at most; more are counted but not kept."""
SHUTDOWN = "shutdown"
"""The reason of records that a source held when the stop timeout was over."""
REFUSED_HEAD = 64 << 10
"""Bytes of a refused record that its letter keeps."""


def letter(
    payload: bytes,
    *,
    component: str,
    reason: str,
    detail: str,
    log: LogId,
    stream: str,
    received_at: float,
    rejected_at: float,
    origin: Origin = "live",
    sink: str | None = None,
    route: str | None = None,
    lane: str | None = None,
    attempts: int = 0,
    first_attempt: float | None = None,
    changed: bool = False,
) -> bytes:
    """Encode one dead letter as a line.

    ``sink`` is the one that refused it, ``lane`` (``ROUTE/SINK``) the one that keeps it. ``changed`` says that a filter changed the
    record, so that payload is not the raw one.
    """
    fields: dict[str, Any] = {
        "reason": _plain(reason),
        "detail": _plain(detail),
        "component": component,
        "route": route,
        "sink": sink,
        "lane": lane,
        "source": log.source,
        "org": log.org,
        "stream": stream,
        "origin": origin,
        "received_at": received_at,
        "rejected_at": rejected_at,
        "attempts": attempts,
        "first_attempt": first_attempt,
        "changed": changed,
    }
    try:
        fields["payload"] = payload.decode()
    except UnicodeDecodeError:
        fields["payload_base64"] = base64.b64encode(payload).decode()
    return orjson.dumps(fields, option=orjson.OPT_APPEND_NEWLINE)


def _plain(text: object) -> str:
    """A component of others may give anything as its reason; the letter is written all the same."""
    return str(text)[:2000].encode(errors="replace").decode()


class LaneLetters:
    """The dead letters of one lane."""

    def __init__(self, folder: Path, box: DeadLetters) -> None:
        self.folder = LetterFolder(folder)
        self._box = box
        self._lock = asyncio.Lock()

    @property
    def size(self) -> int:
        """Bytes on disk."""
        return self.folder.size

    async def put(self, lines: Sequence[bytes]) -> None:
        """Store all lines. Raises UnavailableError while there is no room or the disk refuses; nothing is stored then."""
        need = sum(map(len, lines))
        async with self._lock:
            if self._box.size + need > self._box.max_size:
                await asyncio.to_thread(self.folder.recount)
            if self._box.size + need > self._box.max_size:
                raise UnavailableError(
                    f"the dead letter is full ({self._box.size} of {self._box.max_size} bytes)",
                    where=str(self.folder.path),
                    fix="Move its files away, or raise dead_letter.max_size.",
                )
            try:
                await asyncio.to_thread(self.folder.write, lines)
            except OSError as error:
                raise UnavailableError(
                    f"the dead letter cannot be written: {error.strerror}", where=str(self.folder.path)
                ) from error

    def close(self) -> None:
        self.folder.close()


class SourceLetters:
    """The refused records of one source: counted always, kept in files that rotate."""

    def __init__(self, source: str, folder: Path, clock: Callable[[], float], max_size: int) -> None:
        self.source = source
        self.counts: dict[str, int] = {}
        """Reason -> records refused."""
        self.lost = 0
        """Refused records of which no letter could be kept."""
        self._file_size = min(FILE_SIZE, max_size // SOURCE_FILES)
        self.folder = LetterFolder(folder, self._file_size)
        self._max_size = max_size
        self._clock = clock
        self._pending: list[bytes] = []
        self._pending_size = 0
        self._more = asyncio.Event()
        self._written = asyncio.Event()
        self._writing: asyncio.Task[None] | None = None
        self._log = logs.get(component=source)

    @property
    def _crowded(self) -> bool:
        return self._pending_size > min(SOURCE_PENDING, self._file_size)

    def _lose(self, count: int, why: str) -> None:
        self.lost += count
        self._log.error("Refused records are counted, but their letters are lost.", why=why)

    async def room(self) -> None:
        """Wait until the disk has taken what is pending, if that is much."""
        while self._crowded:
            self._written.clear()
            await self._written.wait()

    def put(self, raws: Iterable[bytes], reason: str, org: str, stream: str, *, whole: bool = False) -> None:
        """Count and keep refused records; never waits.

        Without ``whole`` a long record keeps only its beginning, and what comes faster than the disk takes it is counted as lost:
        so a stranger cannot make us hold much. With ``whole`` the caller waits for `room` afterwards.
        """
        now = self._clock()
        for raw in raws:
            self.counts[reason] = self.counts.get(reason, 0) + 1
            if not whole and self._crowded:
                self._lose(1, "they came faster than the disk took them")
                continue
            kept = raw if whole else raw[:REFUSED_HEAD]
            detail = f"{len(raw)} bytes" + (
                f", of which the first {REFUSED_HEAD} follow" if len(kept) < len(raw) else ""
            )
            line = letter(
                kept, component=self.source, reason=reason, detail=detail, log=LogId(self.source, org),
                stream=stream, received_at=now, rejected_at=now,
            )  # fmt: skip
            self._pending.append(line)
            self._pending_size += len(line)
        self._more.set()

    async def run(self) -> None:
        """Write what `put` left, until cancelled."""
        while True:
            await self._more.wait()
            self._more.clear()
            await self.flush()

    async def flush(self) -> None:
        """Write what is pending; a caller that is cancelled leaves the writing under way.

        A disk that refuses costs the letters, not the counts.
        """
        while self._writing is not None or self._pending:
            if self._writing is None:
                self._writing = asyncio.create_task(self._flush())
            await asyncio.shield(self._writing)

    async def _flush(self) -> None:
        lines, self._pending, self._pending_size = self._pending, [], 0
        try:
            if lines:
                await asyncio.to_thread(self._write, lines)
        except OSError as error:
            self._lose(len(lines), f"they cannot be written: {error.strerror}")
        finally:
            self._writing = None
            self._written.set()

    def _write(self, lines: list[bytes]) -> None:
        self.folder.write(lines)
        self.folder.shrink(self._max_size - self._file_size)

    def close(self) -> None:
        self.folder.close()


class DeadLetters:
    """All dead letters of the process, under one folder: ``lanes/ROUTE.SINK/`` and ``sources/SOURCE/``."""

    def __init__(self, path: Path, max_size: int, clock: Callable[[], float]) -> None:
        self.path = path
        self.max_size = max_size
        self._clock = clock
        self._lanes: list[LaneLetters] = []
        self._sources: dict[str, SourceLetters] = {}

    @property
    def size(self) -> int:
        """Bytes that the lanes' letters hold together."""
        return sum(lane.size for lane in self._lanes)

    @property
    def sources(self) -> Mapping[str, SourceLetters]:
        return self._sources

    def lane(self, route: str, sink: str) -> LaneLetters:
        letters = LaneLetters(self.path / "lanes" / f"{route}.{sink}", self)
        self._lanes.append(letters)
        return letters

    def source(self, source: str) -> SourceLetters:
        if source not in self._sources:
            folder = self.path / "sources" / source
            self._sources[source] = SourceLetters(source, folder, self._clock, min(64 << 20, self.max_size // 8))
        return self._sources[source]

    def folder(self, path: Path) -> LetterFolder:
        """The folder at this path, the one that is written to where it is one of ours."""
        ours = [lane.folder for lane in self._lanes] + [source.folder for source in self._sources.values()]
        wanted = path.absolute()
        return next((one for one in ours if one.path.absolute() == wanted), None) or LetterFolder(path)

    async def close(self) -> None:
        for source in self._sources.values():
            await source.flush()
            source.close()
        for lane in self._lanes:
            lane.close()
