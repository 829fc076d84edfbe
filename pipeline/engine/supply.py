"""What a replay takes its records from, and where each of them is to go."""

from __future__ import annotations

import asyncio
import contextlib
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Literal

import orjson

from pipeline.core.batch import MAX_RECORDS, LogId
from pipeline.core.config import SourceConfig
from pipeline.core.errors import NotFoundError, UnavailableError, UsageError
from pipeline.core.source import Outlet
from pipeline.engine.build import Plan
from pipeline.engine.intake import fault
from pipeline.kit.codec import Damaged, Reader, by_suffix
from pipeline.sources.lines import Lines
from pipeline.spool.disk import DiskSpoolConfig
from pipeline.spool.folder import SpoolFolder
from pipeline.spool.inspection import LogSurvey, batches


class Piece:
    """A record on its way back: into which log, and what is known of it."""

    __slots__ = ("done", "log", "raw", "received_at", "stream")

    def __init__(
        self, raw: bytes, log: LogId, stream: str, received_at: float, done: Callable[[], None] | None = None
    ) -> None:
        self.raw = raw
        self.log = log
        self.stream = stream
        self.received_at = received_at
        self.done = done
        """Called when it is safe where it went."""


class Targets:
    """Finds the logs through which a plan replays. ``routes`` are those that were chosen; without it, all that read the source."""

    def __init__(self, plan: Plan, routes: Sequence[str] | None) -> None:
        known = {route.name for route in plan.routes}
        if unknown := [name for name in routes or () if name not in known]:
            raise NotFoundError(f"there is no route {unknown[0]!r}", fix=f"There are: {', '.join(known)}.")
        self.chosen = bool(routes)
        self.largest = plan.config.spool.max_size // 4
        """Bytes of a record at most."""
        self._plan = plan
        self._routes = routes
        self._found: dict[LogId, tuple[LogId, ...]] = {}

    def knows(self, log: LogId) -> bool:
        """Whether the configuration has this source with this organization."""
        return log in self._plan.logs

    def has_lane(self, route: str, sink: str) -> bool:
        return any((lane.route.name, lane.runner.id) == (route, sink) for lane in self._plan.lanes)

    def takes_replays(self, sink: str) -> bool:
        """Whether records that are replayed reach this sink; one that acts may take live ones only."""
        return "replay" in self._plan.sinks[sink].sink.origins

    def source(self, name: str) -> SourceConfig:
        return self._plan.config.sources[name]

    def through(self, log: LogId) -> tuple[LogId, ...]:
        """One log for each route that reads this source and was chosen."""
        if log not in self._found:
            self._found[log] = tuple(
                LogId(log.source, log.org, name)
                for name, route in self._plan.config.routes.items()
                if log.source in route.from_ and (not self._routes or name in self._routes)
            )
        return self._found[log]

    def demand(self, log: LogId) -> tuple[LogId, ...]:
        """The same; raises NotFoundError or UsageError where there is none."""
        if not self.knows(log):
            known = ", ".join(map(str, self._plan.logs))
            raise NotFoundError(f"the configuration has no source {log}", fix=f"There are: {known}.")
        if found := self.through(log):
            return found
        readers = [name for name, route in self._plan.config.routes.items() if log.source in route.from_]
        raise UsageError(
            f"none of the chosen routes reads the source {log.source!r}",
            fix=f"These do: {', '.join(readers) or 'none'}.",
        )


class Supply(ABC):
    """Gives pieces, and keeps count of what it leaves out."""

    unit: Literal["bytes", "records"] = "bytes"
    """What ``total`` and ``read`` count."""

    def __init__(self) -> None:
        self.total = 0
        self.read = 0
        self.skipped: dict[str, int] = {}
        """Reason -> records that are not replayed."""
        self.problems: list[str] = []
        """Sentences on what could not be read or kept."""

    def skip(self, reason: str, count: int = 1) -> None:
        self.skipped[reason] = self.skipped.get(reason, 0) + count

    @abstractmethod
    def pieces(self, size: int) -> AsyncIterator[Sequence[Piece]]:
        """All pieces in their order, in runs of about ``size`` bytes and `MAX_RECORDS` records at most. Raises PipelineError."""

    async def settle(self, barrier: Callable[[], Awaitable[None]], *, final: bool = False) -> None:
        """Remember what is done, once ``barrier`` says that it cannot get lost; called now and then, and at the end."""
        del barrier, final


class Refusing:
    """Stands for a source's outlet where lines are cut: counts what is refused."""

    waiting = False

    def __init__(self, supply: Supply) -> None:
        self._supply = supply

    async def send(self, raws: Sequence[bytes], stream: str | None = None, org: str | None = None) -> object:
        raise NotImplementedError

    def refuse(self, raw: bytes, reason: str, org: str | None = None) -> None:
        del raw, org
        self._supply.skip(reason)


class Files(Supply):
    """Files of records, one a line; plain, .gz or .zst."""

    def __init__(
        self, targets: Targets, paths: Sequence[Path], log: LogId, stream: str | None, now: Callable[[], float]
    ) -> None:
        super().__init__()
        self._logs = targets.demand(log)
        self._config = targets.source(log.source)
        self._stream = stream or self._config.stream
        self._largest = targets.largest
        self._paths = paths
        self._now = now
        for path in paths:
            try:
                if path.is_dir():
                    raise UsageError("this is a folder", where=str(path), fix="Give the files in it.")
                self.total += path.stat().st_size
            except OSError as error:
                raise NotFoundError(f"the file cannot be read: {error.strerror}", where=str(path)) from error

    async def pieces(self, size: int) -> AsyncIterator[Sequence[Piece]]:
        for path in self._paths:
            before = self.read
            outlet: Outlet = Refusing(self)  # type: ignore[assignment]  # it only refuses
            lines = Lines(self._config, outlet)
            first = True
            try:
                with path.open("rb") as file:
                    reader = Reader(file, by_suffix(path.name))
                    while data := await asyncio.to_thread(reader.read):
                        records = lines.feed(data)
                        if first and records:
                            first = _look(records[0], path)
                        self.read = before + file.tell()
                        for run in _runs(records, size, len(self._logs)):
                            yield self._judge(run)
                    if reader.inside:
                        self.problems.append(f"{path} ends in the middle of a frame; what was there is replayed.")
                for run in _runs(lines.end(), size, len(self._logs)):
                    yield self._judge(run)
            except (OSError, Damaged) as error:
                self.problems.append(f"{path} cannot be read any further: {error}")

    def _judge(self, records: Sequence[bytes]) -> list[Piece]:
        found: list[Piece] = []
        now = self._now()
        for raw in records:
            if not raw.strip():
                continue
            reason = fault(raw, self._config) or ("oversize" if len(raw) > self._largest else "")
            if reason:
                self.skip(reason)
            else:
                found += [Piece(raw, log, self._stream, now) for log in self._logs]
        return found


def _look(record: bytes, path: Path) -> bool:
    """Raises UsageError where a file holds dead letters."""
    with contextlib.suppress(ValueError):
        doc = orjson.loads(record)
        if isinstance(doc, dict) and {"reason", "component", "rejected_at"} <= doc.keys():
            raise UsageError("this file holds dead letters", where=str(path), fix="Use `lc-pipeline replay letters`.")
    return False


def _runs(records: Sequence[bytes], size: int, times: int) -> Iterator[Sequence[bytes]]:
    start = length = 0
    for index, record in enumerate(records):
        if index > start and (index - start >= max(1, MAX_RECORDS // times) or (length + len(record)) * times > size):
            yield records[start:index]
            start, length = index, 0
        length += len(record)
    if start < len(records):
        yield records[start:]


class SpoolRange(Supply):
    """Records that a log of a disk spool still keeps, from one number up to another."""

    unit = "records"

    def __init__(self, targets: Targets, plan: Plan, log: LogId, start: int | None, end: int | None) -> None:
        super().__init__()
        section = plan.config.spool
        if not isinstance(section, DiskSpoolConfig):
            raise UsageError(
                "a spool in memory keeps nothing that was delivered", where="spool", fix="Use `spool: {type: disk}`."
            )
        self._logs = targets.demand(log)
        self._log = log
        self._path = section.path
        self._start, self._end = start, end

    async def pieces(self, size: int) -> AsyncIterator[Sequence[Piece]]:
        segments = await asyncio.to_thread(SpoolFolder(self._path).segments, self._log)
        survey = LogSurvey(self._log, segments)
        start = max(self._start or 0, segments[0].first if segments else 0)
        if self._start is not None and start > self._start:
            self.problems.append(f"Records {self._start} to {start - 1} of {self._log} are not kept any more.")
        # What is appended meanwhile is none of it: a route may lead back here.
        last = await asyncio.to_thread(_last, survey)
        end = last if self._end is None else min(self._end, last)
        self.total = max(0, end - start)
        found = batches(survey, start)
        expected = start
        while expected < end:
            try:
                run = await asyncio.to_thread(lambda: list(islice(found, 1)))
            except OSError as error:
                raise UnavailableError(f"the spool cannot be read: {error}", where=str(self._path)) from error
            if not run:
                break
            batch = run[0]
            first = max(batch.first, start)
            if first > expected:
                self.skip("gone", min(first, end) - expected)
            expected = batch.end
            records = batch.records[first - batch.first : max(0, end - batch.first)]
            self.read = min(batch.end, end) - start
            for part in _runs(records, size, len(self._logs)):
                yield [Piece(raw, log, batch.stream, batch.received_at) for raw in part for log in self._logs]
        if expected < end:
            self.skip("gone", end - expected)


def _last(survey: LogSurvey) -> int:
    return max((batch.end for batch in batches(survey, survey.segments[-1].first if survey.segments else 0)), default=0)
