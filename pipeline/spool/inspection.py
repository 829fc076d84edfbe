"""Looks into a spool without changing it, also while a process uses it. Everything here blocks."""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.core.batch import Batch, LogId
from pipeline.core.errors import NotFoundError, UnavailableError
from pipeline.spool import state as states
from pipeline.spool.folder import DAMAGED, LOCK, SpoolFolder, refusing_foreign
from pipeline.spool.segment import FORMAT, ForeignFormatError, Frame, Segment, SegmentFile
from pipeline.spool.state import DamagedError, State


@dataclass(slots=True)
class LogSurvey:
    """What one log holds."""

    name: LogId
    segments: list[Segment]
    end: int = 0
    """The number of the next record."""
    lanes: dict[str, int] = field(default_factory=dict)
    """Lane -> the first record that it is not past."""
    dropped: dict[int, int] = field(default_factory=dict)
    """First and end of records that were given up because the spool was full."""

    @property
    def start(self) -> int:
        """The oldest record kept."""
        return self.segments[0].first if self.segments else self.end

    @property
    def size(self) -> int:
        """Bytes of its files."""
        return sum(segment.length for segment in self.segments)

    def waiting(self, lane: str) -> int:
        """Records that a lane is not past, without those that are known to be gone."""
        position = max(self.lanes[lane], self.start)
        gone = sum(max(0, end - max(first, position)) for first, end in self.dropped.items())
        return max(0, self.end - position - gone)


@dataclass(slots=True)
class Survey:
    """What a spool holds."""

    path: Path
    logs: dict[LogId, LogSurvey]
    state_size: int
    state_problem: str
    """Why the database cannot be read; "" where it can."""
    damaged: Mapping[str, int]
    """Names of files that were set aside -> bytes."""
    owner: str
    """The process that uses it; "" where there is none."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that `verify` found."""

    log: LogId
    text: str
    lost: int = 0
    """Records that cannot be read."""
    harmless: bool = False
    """It is as it should be after a crash, or beside a running process."""


def survey(path: Path) -> Survey:
    """Read the names, sizes and positions of a spool. Raises NotFoundError, ConfigError for a foreign format, UnavailableError."""
    folder = SpoolFolder(path)
    if not (path / LOCK).exists():
        parts = ", ".join(sorted(str(lock.parent) for lock in path.glob(f"w[1-9]*/{LOCK}")))
        raise NotFoundError(
            f"there is no spool in {path}" if not parts else f"{path} is split among workers",
            fix=f"Give the folder of one: {parts}."
            if parts
            else "Give the folder of `spool.path`, or the configuration.",
        )
    tables, problem = _state(folder)
    logs = {name: LogSurvey(name, folder.segments(name)) for name in folder.logs()}
    for (lane, source, org), position in tables.get("positions", {}).items():
        name = LogId.of(source, org)
        log = logs.setdefault(name, LogSurvey(name, []))
        log.lanes[str(lane)] = position
        log.end = max(log.end, position)
    for (source, org), end in tables.get("ends", {}).items():
        name = LogId.of(source, org)
        log = logs.setdefault(name, LogSurvey(name, []))
        log.end = max(log.end, end)
    for (source, org, first), end in tables.get("dropped", {}).items():
        if (one := logs.get(LogId.of(source, org))) is not None:
            one.dropped[int(first)] = end
    for log in logs.values():
        if log.segments:
            log.end = max(log.end, log.segments[-1].first)
            with contextlib.suppress(FileNotFoundError), SegmentFile(log.segments[-1].path) as file:
                refusing_foreign(log.segments[-1].path, file.has_header, FORMAT)
                for found in file.walk():
                    if isinstance(found, Frame):
                        log.end = max(log.end, found.end)
    damaged = {entry.name: entry.stat().st_size for entry in sorted((path / DAMAGED).iterdir())}
    return Survey(path, logs, states.size(folder.state), problem, damaged, _owner(path / LOCK))


def facts(path: Path, table: str) -> dict[states.Key, str]:
    """What one of `states.ENGINE_TABLES` has. Raises ConfigError for a foreign format, UnavailableError."""
    file = SpoolFolder(path).state
    if not file.exists():
        return {}
    try:
        state = refusing_foreign(file, lambda: State(file, read_only=True), states.FORMAT)
    except (DamagedError, sqlite3.Error) as error:
        raise UnavailableError(f"the spool's database cannot be read: {error}", where=str(file)) from error
    state.close()
    return state.restore(table)


def _state(folder: SpoolFolder) -> tuple[dict[str, dict[states.Key, int]], str]:
    if not folder.state.exists():
        return {}, "it is not there"
    try:
        state = refusing_foreign(folder.state, lambda: State(folder.state, read_only=True), states.FORMAT)
    except DamagedError as error:
        return {}, str(error)
    except sqlite3.Error as error:
        raise UnavailableError(f"the spool's database cannot be read: {error}", where=str(folder.state)) from error
    state.close()
    return state.tables, ""


def _owner(lock: Path) -> str:
    fd = os.open(lock, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return os.read(fd, 20).decode(errors="replace").strip() or "unknown"
    finally:
        os.close(fd)
    return ""


def batches(log: LogSurvey, start: int = 0) -> Iterator[Batch]:
    """All batches of a log that can be read, from the one that holds ``start`` on. Raises OSError."""
    for segment in [one for one in log.segments if one.end > start] or log.segments[-1:]:
        with contextlib.suppress(FileNotFoundError), SegmentFile(segment.path) as file:
            for found in file.walk():
                if isinstance(found, Frame) and found.end > start:
                    batch = file.batch(found, log.name)
                    if batch is not None:
                        yield batch


def verify(log: LogSurvey) -> Iterator[Finding]:
    """Look at every byte of a log and yield what is not as it should be. Raises OSError."""
    expected = log.start
    for segment in log.segments:
        last = segment is log.segments[-1]
        try:
            file = SegmentFile(segment.path)
        except FileNotFoundError:
            expected = max(expected, segment.end)
            continue
        with file:
            yield from _header(log, segment, file)
            for found in file.walk():
                place = f"{segment.path.name} at {found.offset}"
                if isinstance(found, Frame):
                    yield from _missing(log, expected, found.first, place)
                    expected = max(expected, found.end)
                    if file.batch(found, log.name) is None:
                        yield Finding(log.name, f"{place}: the records of a frame are damaged", found.end - found.first)
                elif found.torn and last:
                    yield Finding(log.name, f"{place}: {found.size} bytes of an unfinished write", harmless=True)
                else:
                    lost = max(0, found.end - expected) if found.end is not None else 0
                    yield Finding(log.name, f"{place}: {found.size} bytes are damaged", lost)
                    expected += lost
        if not last:
            yield from _missing(log, expected, segment.end, f"behind {segment.path.name}")
            expected = max(expected, segment.end)
    yield from _missing(log, expected, log.end, "at the end")


def _header(log: LogSurvey, segment: Segment, file: SegmentFile) -> Iterator[Finding]:
    try:
        whole = file.has_header()
    except ForeignFormatError as error:
        yield Finding(log.name, f"{segment.path.name} has format {error.args[0]}; this version reads {FORMAT}")
        return
    if not whole:
        fresh = segment is log.segments[-1] and not any(file.bytes(0, file.length))
        yield Finding(log.name, f"{segment.path.name}: the file's header is damaged", harmless=fresh)


def _missing(log: LogSurvey, expected: int, found: int, place: str) -> Iterator[Finding]:
    gone = found - expected
    for first, end in log.dropped.items():
        gone -= max(0, min(end, found) - max(first, expected))
    if gone > 0:
        yield Finding(log.name, f"{place}: records {expected} to {found - 1} are missing", gone)
