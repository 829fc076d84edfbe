"""A lane: one route into one sink, with its own position in each log that it reads."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from pipeline.core.batch import Batch, LogId
from pipeline.core.clock import Clock
from pipeline.core.spool import OnFull, Spool, Start
from pipeline.engine.committer import Committer
from pipeline.engine.delivery import Left, SinkRunner
from pipeline.engine.in_hand import InHand, Slice, Tally
from pipeline.engine.letters import LaneLetters
from pipeline.engine.route import Route, Step
from pipeline.engine.writing import Writing
from pipeline.kit.log import Logger

TURN = 0.002
"""Seconds that a lane with a backlog works until it lets others."""


class Lane:
    """Implements `pipeline.core.spool.LanePort`."""

    def __init__(
        self,
        route: Route,
        runner: SinkRunner,
        logs: Sequence[LogId],
        on_full: OnFull,
        spool: Spool,
        committer: Committer,
        letters: LaneLetters,
        clock: Clock,
        log: Logger,
        delivered: Callable[[Batch, bytes], None],
        shed: Callable[[LogId, int, int], None] = lambda _log, _start, _end: None,
        start: Start = "oldest",
    ) -> None:
        self.id = f"{route.name}/{runner.id}"
        self.route = route
        self.runner = runner
        self.logs = tuple(logs)
        self.on_full: OnFull = on_full
        self.start: Start = start
        """Where it begins in a log that it never read."""
        self.tallies: dict[LogId, Tally] = {name: Tally() for name in logs}
        self.letters = letters
        self.ended_by = ""
        """Why the lane ended before its time."""
        self._spool = spool
        self._committer = committer
        self._log = log
        self._writing = Writing(self.id, route.name, runner, letters, clock, log)
        self._delivered = delivered
        self._shed = shed
        self._cursors: dict[LogId, int] = dict.fromkeys(logs, 0)
        self._hands: dict[LogId, deque[InHand]] = {name: deque() for name in logs}
        self._current: InHand | None = None
        self._skipped: set[LogId] = set()
        self._apart: dict[LogId, tuple[int, Tally]] = {}
        self._wake = asyncio.Event()
        self._hurried = False
        self._hasty = False
        self._draining = False
        self._leaving = False
        self._turn = 0
        self._turn_ends = 0.0
        self._turns = asyncio.Semaphore(runner.config.in_flight)
        self._max_bytes = runner.config.batch.max_bytes
        if on_full == "drop_oldest":
            # All writes that are under way, and what the next one collects.
            self._max_bytes = min(self._max_bytes, max(1, spool.max_hand // (runner.config.in_flight + 1)))

    # --- as the spool sees it

    def wake(self) -> None:
        self._wake.set()

    def hurry(self) -> None:
        self._hurried = True
        self._wake.set()

    def cursor(self, log: LogId) -> int:
        return self._cursors[log]

    def skip(self, log: LogId, end: int) -> None:
        for tally in self._counting(log, self._cursors[log]):
            tally.discarded["spool_full"] = tally.discarded.get("spool_full", 0) + end - self._cursors[log]
        self._shed(log, self._cursors[log], end)
        self._cursors[log] = end
        self._skipped.add(log)
        self._wake.set()
        self._log.error("The spool is full: this lane discards its oldest records.", lane=self.id)

    # --- as the runner sees it

    @property
    def busy_with(self) -> str:
        """What the lane is doing when it is asked at shutdown."""
        return self._writing.busy_with

    def add(self, log: LogId) -> None:
        """Read another log from now on, one of replayed records."""
        if log not in self.tallies:
            self.tallies[log] = Tally()
            self._cursors[log] = 0
            self._hands[log] = deque()
            self.logs = (*self.logs, log)

    def start_at(self, log: LogId, position: int, end: int) -> None:
        """Begin at a restored position; what lies between it and the log's end is carried over."""
        self._cursors[log] = position
        self.tallies[log].carried = end - position

    def count_apart(self, log: LogId, first: int) -> Tally:
        """Count what becomes of the records from this number on in another tally too; until the next call for the log."""
        tally = Tally()
        self._apart[log] = (first, tally)
        return tally

    def waiting(self, log: LogId) -> int:
        """Records and payloads of this log that are not settled yet."""
        stats = self._spool.stats().get(log)
        return self.tallies[log].in_hand + (stats.end - self._cursors[log] if stats else 0)

    def hasten(self) -> None:
        """From now on write what is there without waiting for company."""
        self._hasty = True
        self._wake.set()

    def drain(self) -> None:
        """Sources are at their end: write what is left without waiting for company, then `run` returns."""
        self._draining = True
        self.hasten()

    def leave(self) -> None:
        """Begin nothing more: what the sink has in hand is finished, all else stays in the spool; then `run` returns."""
        self._leaving = True
        self.runner.leave()
        self._wake.set()

    def discard_rest(self, reason: str) -> int:
        """Count all that still waits as discarded; the lane must have ended."""
        total = 0
        for log, tally in self.tallies.items():
            rest = self.waiting(log)
            if rest:
                tally.discarded[reason] = tally.discarded.get(reason, 0) + rest
                total += rest
                self._cursors[log] += rest - tally.in_hand
                tally.in_hand = 0
        return total

    async def run(self) -> None:
        """Read, step and write until drained or told to leave (or cancelled)."""
        async with asyncio.TaskGroup() as writes:
            while (slices := await self._collect()) is not None:
                await self._turns.acquire()
                if self._leaving:
                    return
                writes.create_task(self._deliver(slices))

    # --- reading

    async def _collect(self) -> list[Slice] | None:
        """Payloads for one write: until the sink's batch is full, its wait is over, or room is short. None at the end."""
        limits = self.runner.config.batch
        slices: list[Slice] = []
        events = size = 0
        due: asyncio.TimerHandle | None = None
        try:
            while not self._leaving:
                if self._skipped:
                    await self._commit_skipped()
                hand, read = (self._current, False) if self._current else await self._next()
                if hand is not None:
                    found = hand.slice(limits.max_events - events, self._max_bytes - size, first=not slices)
                    if found is None:
                        return slices
                    if hand.taken == len(hand.payloads):
                        self._current = None
                    slices.append(found)
                    events += found.end - found.start
                    size += found.size
                    if events >= limits.max_events or size >= self._max_bytes:
                        return slices
                    continue
                if slices and (self._hurried or self._hasty or limits.max_wait == 0):
                    self._hurried = False
                    return slices
                if read:
                    continue
                if slices and due is None:
                    due = asyncio.get_running_loop().call_later(limits.max_wait, self.hurry)
                if not slices and self._draining:
                    return None
                self._hurried = False
                self._wake.clear()
                if self._pending() or self._skipped or self._leaving:
                    continue
                await self._wake.wait()
                self._turn_ends = _loop_time() + TURN
            return None
        finally:
            if due is not None:
                due.cancel()

    def _pending(self) -> bool:
        stats = self._spool.stats()
        return any(stats[log].end > self._cursors[log] for log in self.logs)

    async def _next(self) -> tuple[InHand | None, bool]:
        """Take one batch, the logs in turn; return what is left of it to write, and whether there was one."""
        logs = self.logs
        for _ in range(len(logs)):
            log = logs[self._turn % len(logs)]
            self._turn += 1
            batch = await self._spool.read(log, self._cursors[log])
            if batch is not None:
                self._current = await self._take(log, batch)
                # A backlog must not hold up everybody else; nor must sources get ahead of us because we are too polite.
                if _loop_time() >= self._turn_ends:
                    await asyncio.sleep(0)
                    self._turn_ends = _loop_time() + TURN
                return self._current, True
        return None, False

    async def _take(self, log: LogId, batch: Batch) -> InHand | None:
        """Run the step; None when nothing of the batch is left to write."""
        position = self._cursors[log]
        if position >= batch.end:  # skipped while it was read
            return None
        if batch.first > position:
            self._lost(log, position, batch.first)
        if batch.origin in self.runner.sink.origins:
            step = self.route.step(batch, max(position, batch.first))
        else:
            step = Step(batch, max(0, position - batch.first))
            step.filtered = len(batch.records) - step.start
        self._cursors[log] = batch.end
        hand = InHand(step, self._counting(log, batch.first))
        for tally in hand.tallies:
            tally.derived += step.derived
            tally.filtered += step.filtered
            tally.in_hand += len(step.payloads) + len(step.refusals)
        self._hands[log].append(hand)
        if step.refusals:
            try:
                await self._writing.refuse(hand)
            except Left:
                return None
            hand.refusing = False
        if not step.payloads:
            await self._settle([log], None)
            return None
        return hand

    def _counting(self, log: LogId, first: int) -> Sequence[Tally]:
        """Where records from this number on are counted."""
        apart = self._apart.get(log)
        return (self.tallies[log],) if apart is None or first < apart[0] else (self.tallies[log], apart[1])

    def _lost(self, log: LogId, start: int, end: int) -> None:
        """Records that the spool itself no longer has."""
        known = self._spool.given_up(log, start, end)
        lost = end - start - known
        for tally in self._counting(log, start):
            for reason, count in (("given_up_before", known), ("spool_damage", lost)):
                if count:
                    tally.discarded[reason] = tally.discarded.get(reason, 0) + count
        if known:
            self._log.info("Records were given up before the start.", lane=self.id, log=str(log), records=known)
        if lost:
            self._log.error("The spool lost records.", lane=self.id, log=str(log), records=lost)

    # --- writing

    async def _deliver(self, slices: list[Slice]) -> None:
        """Write and settle; when the lane is told to leave, settle what was written."""
        logs = {piece.log for piece in slices}
        try:
            mark = await self._writing.write(slices)
        except Left:
            await self._settle(logs, None)
        else:
            await self._settle(logs, mark)
            self._delivered(slices[-1].hand.step.batch, slices[-1].last)
        finally:
            self._turns.release()

    async def _settle(self, logs: Iterable[LogId], mark: Mapping[str, Any] | None) -> None:
        """Move positions over what is settled without a hole, together with the sink's mark."""
        positions: dict[tuple[str, LogId], int] = {}
        for log in logs:
            hands = self._hands[log]
            while hands and hands[0].complete:
                hands.popleft()
            positions[self.id, log] = hands[0].position if hands else self._cursors[log]
        await self._committer.note(positions, self.runner.id, mark)

    async def _commit_skipped(self) -> None:
        logs, self._skipped = self._skipped, set()
        await self._settle(logs, None)


def _loop_time() -> float:
    return asyncio.get_running_loop().time()
