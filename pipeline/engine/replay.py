"""Feeds records back into a plan, for as long as it runs: into logs of their own, a little at a time."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from pipeline.core.batch import Batch, LogId
from pipeline.core.errors import UsageError
from pipeline.engine.build import Plan
from pipeline.engine.in_hand import Tally
from pipeline.engine.rate import Rate
from pipeline.engine.supply import Files, Piece, SpoolRange, Supply, Targets
from pipeline.engine.supply_letters import Letters

WINDOW = 4 << 20
"""Bytes of a replay that wait in the spool at most: others need it more."""
PATIENCE = 1.0
"""Seconds after which a replay that waits for lanes looks what they are busy with."""


class Request(BaseModel):
    """What is to be replayed."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["letters", "log", "files"]
    names: tuple[str, ...] = Field((), max_length=10_000)
    """Of letters: lanes, sources and absolute paths; none means all. Of files: absolute paths."""
    reasons: tuple[str, ...] = Field((), max_length=100)
    """Only letters with one of these reasons."""
    keep: bool = False
    """Leave the letters where they are."""
    source: str = ""
    org: str = ""
    stream: str | None = Field(None, max_length=64)
    start: int | None = Field(None, ge=0)
    """The first record of a log."""
    end: int | None = Field(None, ge=0)
    """The record after the last one."""
    routes: tuple[str, ...] = Field((), max_length=1000)
    """Through these; none means all that are configured for the records."""
    rate: float | None = Field(None, gt=0)
    """Records a second at most."""
    dry_run: bool = False

    def supply(self, plan: Plan) -> Supply:
        """Find what is asked for. Blocks for a moment. Raises NotFoundError and UsageError."""
        targets = Targets(plan, self.routes)
        if self.kind == "letters":
            return Letters(targets, plan, self.names, self.reasons, keep=self.keep)
        log = LogId(self.source, self.org)
        if self.kind == "log":
            return SpoolRange(targets, plan, log, self.start, self.end)
        return Files(targets, [Path(name) for name in self.names], log, self.stream, plan.clock.now)


class Report:
    """How far a replay is."""

    def __init__(self, unit: str, total: int) -> None:
        self.unit = unit
        self.total = total
        self.read = 0
        self.accepted = 0
        """Records that are safe in the spool, or with a spool in memory, done; counted once for each log they go into."""
        self.targets: dict[str, int] = {}
        """Source and way -> records."""
        self.skipped: dict[str, int] = {}
        self.outcomes: dict[str, int] = {}
        """What became of them, counted once for each lane."""
        self.problems: list[str] = []
        self.waits_for: list[str] = []
        """Lanes that are not past them yet, with what they are busy with."""
        self.seconds = 0.0
        self.complete = False

    def body(self) -> dict[str, Any]:
        """As JSON."""
        return dict(vars(self))


class Replayer:
    """One replay at a time in a process: two would count each other's records, and take letters out of the same files."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._window = min(WINDOW, plan.config.spool.max_size // 16)
        self._waiting: deque[tuple[int, Sequence[tuple[LogId, int]], Sequence[Piece]]] = deque()
        """Bytes, places and pieces that are in the spool and that not all lanes are past."""

    async def run(self, request: Request, report: Report, supply: Supply) -> None:
        """Replay all, and return when every lane is past it; keeps ``report`` up to date.

        May be cancelled: what is in the spool stays. Raises PipelineError.
        """
        async with self._plan.replaying:
            began = time.monotonic()
            self._waiting.clear()
            counts: dict[tuple[str, LogId], Tally] = {}
            pace = Rate(request.rate)
            try:
                async for pieces in supply.pieces(self._window // 4):
                    report.total = supply.total
                    for run in pace.runs(pieces):
                        if not request.dry_run:
                            await pace.wait(len(run))
                            await self._feed(run, report, supply, counts)
                        self._count(run, report)
                        report.read, report.skipped, report.problems = supply.read, supply.skipped, supply.problems
                report.total, report.read = supply.total, supply.read
                if self._plan.spool.durable and not request.dry_run:
                    await supply.settle(self._barrier, final=True)
                while self._waiting:
                    await self._settle_oldest(supply, report)
                report.complete = True
            finally:
                report.skipped, report.problems = supply.skipped, supply.problems
                if not request.dry_run:
                    await asyncio.shield(asyncio.ensure_future(supply.settle(self._barrier, final=True)))
                report.outcomes = _outcomes(counts.values())
                report.waits_for = []
                report.seconds = round(time.monotonic() - began, 3)

    async def _barrier(self) -> None:
        if self._plan.spool.durable:
            await self._plan.spool.commit({}, {})  # puts all that is accepted on the disk

    async def _feed(
        self, pieces: Sequence[Piece], report: Report, supply: Supply, counts: dict[tuple[str, LogId], Tally]
    ) -> None:
        size = sum(len(piece.raw) for piece in pieces)
        while self._waiting and sum(entry[0] for entry in self._waiting) + size > self._window:
            await self._settle_oldest(supply, report)
        for log in {piece.log: None for piece in pieces}:
            await self._prepare(log, counts)
        spool = self._plan.spool
        batches = _batches(pieces)
        tasks = [asyncio.ensure_future(spool.append(batch)) for batch, _ in batches]
        try:
            await asyncio.gather(*tasks)
        except BaseException:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            raise
        finally:
            safe = [(batch, members) for batch, members in batches if batch.first >= 0]
            ends: dict[LogId, int] = {}
            for batch, _ in safe:
                ends[batch.log] = batch.end
            members = [piece for _, run in safe for piece in run]
            if spool.durable:
                self._done(members, report)
            self._waiting.append((sum(batch.size for batch, _ in safe), list(ends.items()), members))
        if spool.durable:
            await supply.settle(self._barrier)

    async def _settle_oldest(self, supply: Supply, report: Report) -> None:
        _, places, pieces = self._waiting[0]
        report.waits_for = self._busy(places)
        settling = asyncio.gather(*(self._plan.spool.settled(log, end) for log, end in places))
        try:
            while not (await asyncio.wait({settling}, timeout=PATIENCE))[0]:
                report.waits_for = self._busy(places)
                # The lane may wait for just the room that the letters take which are safe by now.
                await supply.settle(self._barrier)
        finally:
            settling.cancel()
            await asyncio.gather(
                settling, return_exceptions=True
            )  # a replay that is broken off is no error to be logged
        report.waits_for = []
        self._waiting.popleft()
        if not self._plan.spool.durable:
            self._done(pieces, report)
            await supply.settle(self._barrier)

    def _done(self, pieces: Sequence[Piece], report: Report) -> None:
        report.accepted += len(pieces)
        for piece in pieces:
            if piece.done is not None:
                piece.done()

    async def _prepare(self, log: LogId, counts: dict[tuple[str, LogId], Tally]) -> None:
        """Make the log, and let its lanes count apart what becomes of the records of this replay: earlier ones may wait there."""
        lanes = self._plan.readers(log)
        if not lanes:
            raise UsageError(f"nothing reads {log}")
        await self._plan.spool.add(log, lanes)
        for lane in lanes:
            lane.add(log)
            if (lane.id, log) not in counts:
                counts[lane.id, log] = lane.count_apart(log, self._plan.spool.stats()[log].end)

    def _busy(self, places: Sequence[tuple[LogId, int]]) -> list[str]:
        lanes = {lane.id: lane for log, _ in places for lane in self._plan.readers(log)}
        return [f"{name}: {lane.busy_with}" for name, lane in lanes.items() if lane.busy_with]

    def _count(self, pieces: Sequence[Piece], report: Report) -> None:
        for piece in pieces:
            way = describe(piece.log)
            report.targets[way] = report.targets.get(way, 0) + 1


def _outcomes(tallies: Iterable[Tally]) -> dict[str, int]:
    found = {"delivered": 0, "filtered": 0, "rejected": 0, "discarded": 0}
    for tally in tallies:
        found["delivered"] += tally.delivered
        found["filtered"] += tally.filtered
        found["rejected"] += tally.rejected
        found["discarded"] += sum(tally.discarded.values())
    return found


def describe(log: LogId) -> str:
    """Where records of a log of replayed records come from and go to, in words."""
    source = f"{log.source}/{log.org}" if log.org else log.source
    route, _, rest = log.replay.partition("/")
    sink, _, way = rest.partition("/")
    if not sink:
        return f"{source} → route {route}"
    return f"{source} → {route}/{sink} ({'through its filters' if way == 'filtered' else 'without filters'})"


def _batches(pieces: Sequence[Piece]) -> list[tuple[Batch, list[Piece]]]:
    """Batches of pieces, in the order of each log."""
    found: list[tuple[Batch, list[Piece]]] = []
    runs: dict[tuple[LogId, str, float], list[Piece]] = {}
    latest: dict[LogId, tuple[LogId, str, float]] = {}

    def close(key: tuple[LogId, str, float]) -> None:
        run = runs.pop(key)
        log, stream, received_at = key
        found.append((Batch([piece.raw for piece in run], log, stream, received_at, "replay"), run))

    for piece in pieces:
        key = (piece.log, piece.stream, piece.received_at)
        last = latest.get(piece.log)
        if last is not None and last != key:
            close(last)
        latest[piece.log] = key
        runs.setdefault(key, []).append(piece)
    for key in list(runs):
        close(key)
    return found
