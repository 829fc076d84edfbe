"""A lane: one route into one sink, with its own position in each log that it reads."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.core.batch import Batch, LogId
from pipeline.core.clock import Clock
from pipeline.core.errors import Partial, Rejected, RetryLater, UnavailableError
from pipeline.core.items import Items, Part
from pipeline.core.spool import OnFull, Spool, Start
from pipeline.engine.delivery import Committer, SinkRunner
from pipeline.engine.letters import LaneLetters, letter
from pipeline.engine.route import Route, Step
from pipeline.kit.backoff import Backoff
from pipeline.kit.log import Logger

TURN = 0.002
"""Seconds that a lane with a backlog works until it lets others."""


class Tally:
    """Counts of a lane in one log. At every moment: received + carried + derived = the other five, and what waits."""

    __slots__ = ("carried", "delivered", "derived", "discarded", "filtered", "in_hand", "rejected")

    def __init__(self) -> None:
        self.carried = self.derived = self.delivered = self.filtered = self.rejected = self.in_hand = 0
        self.discarded: dict[str, int] = {}


class InHand:
    """A step that the lane took; settled from its beginning on as its slices finish."""

    __slots__ = ("done", "finished", "payloads", "refusing", "step", "taken")

    def __init__(self, step: Step) -> None:
        self.step = step
        self.payloads = step.payloads
        """The step's, cut out once where single ones are asked for."""
        self.taken = 0
        """Payloads that went into writes."""
        self.done = 0
        """Payloads from the first on that are settled without a hole."""
        self.finished: dict[int, int] = {}
        self.refusing = bool(step.refusals)
        """Whether what the filters refused is still on its way into the dead letter."""

    def finish(self, start: int, end: int) -> None:
        self.finished[start] = end
        while self.done in self.finished:
            self.done = self.finished.pop(self.done)

    @property
    def complete(self) -> bool:
        return not self.refusing and self.done >= len(self.step.payloads)

    @property
    def position(self) -> int:
        """The sequence number of the first record that is not settled."""
        step = self.step
        return step.batch.first + (step.start if self.refusing else step.offset(self.done))


@dataclass(slots=True)
class Slice:
    """Consecutive payloads of a step that go into one write."""

    hand: InHand
    start: int
    end: int
    size: int
    """Bytes of the payloads."""

    @property
    def log(self) -> LogId:
        return self.hand.step.batch.log

    def part(self) -> Part:
        step, start, end = self.hand.step, self.start, self.end
        payloads = self.hand.payloads
        whole = start == 0 and end == len(payloads)
        batch = step.batch
        return Part(
            payloads if whole else payloads[start:end],
            batch.stream,
            batch.log,
            batch.received_at,
            batch.origin,
            step.values if whole or step.values is None else step.values[start:end],
            self.size,
        )


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
        self.busy_with = ""
        """What the lane is doing when it is asked at shutdown."""
        self._spool = spool
        self._committer = committer
        self._clock = clock
        self._log = log
        self._delivered = delivered
        self._shed = shed
        self._cursors: dict[LogId, int] = dict.fromkeys(logs, 0)
        self._hands: dict[LogId, deque[InHand]] = {name: deque() for name in logs}
        self._current: InHand | None = None
        self._skipped: set[LogId] = set()
        self._wake = asyncio.Event()
        self._hurried = False
        self._hasty = False
        self._draining = False
        self._turn = 0
        self._turn_ends = 0.0
        self._turns = asyncio.Semaphore(runner.config.in_flight)

    # --- as the spool sees it

    def wake(self) -> None:
        self._wake.set()

    def hurry(self) -> None:
        self._hurried = True
        self._wake.set()

    def cursor(self, log: LogId) -> int:
        return self._cursors[log]

    def skip(self, log: LogId, end: int) -> None:
        tally = self.tallies[log]
        tally.discarded["spool_full"] = tally.discarded.get("spool_full", 0) + end - self._cursors[log]
        self._shed(log, self._cursors[log], end)
        self._cursors[log] = end
        self._skipped.add(log)
        self._wake.set()
        self._log.error("The spool is full: this lane discards its oldest records.", lane=self.id)

    # --- as the runner sees it

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
        """Read, step and write until drained (or cancelled)."""
        async with asyncio.TaskGroup() as writes:
            while (slices := await self._collect()) is not None:
                await self._turns.acquire()
                writes.create_task(self._deliver(slices))

    # --- reading

    async def _collect(self) -> list[Slice] | None:
        """Payloads for one write: until the sink's batch is full, its wait is over, or room is short. None at the end."""
        limits = self.runner.config.batch
        slices: list[Slice] = []
        events = size = 0
        due: asyncio.TimerHandle | None = None
        try:
            while True:
                if self._skipped:
                    await self._commit_skipped()
                hand, read = (self._current, False) if self._current else await self._next()
                if hand is not None:
                    found = self._slice(hand, limits.max_events - events, limits.max_bytes - size, first=not slices)
                    if found is None:
                        return slices
                    slices.append(found)
                    events += found.end - found.start
                    size += found.size
                    if events >= limits.max_events or size >= limits.max_bytes:
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
                if self._pending() or self._skipped:
                    continue
                await self._wake.wait()
                self._turn_ends = _loop_time() + TURN
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
            self._lost(log, batch.first - position)
        if batch.origin in self.runner.sink.origins:
            step = self.route.step(batch, max(position, batch.first))
        else:
            step = Step(batch, max(0, position - batch.first))
            step.filtered = len(batch.records) - step.start
        tally = self.tallies[log]
        self._cursors[log] = batch.end
        tally.derived += step.derived
        tally.filtered += step.filtered
        tally.in_hand += len(step.payloads) + len(step.refusals)
        hand = InHand(step)
        self._hands[log].append(hand)
        if step.refusals:
            await self._refuse(step, tally)
            hand.refusing = False
        if not step.payloads:
            await self._settle([log], None)
            return None
        return hand

    def _lost(self, log: LogId, count: int) -> None:
        """Records that the spool itself no longer has."""
        tally = self.tallies[log]
        tally.discarded["spool_damage"] = tally.discarded.get("spool_damage", 0) + count
        self._log.error("The spool lost records.", lane=self.id, log=str(log), records=count)

    def _slice(self, hand: InHand, room_events: int, room_bytes: int, *, first: bool) -> Slice | None:
        """The payloads of this step that fit; None when it must begin the next write. A record's payloads stay together."""
        step, start = hand.step, hand.taken
        count = len(step.payloads)
        if start == 0 and count <= room_events and step.size <= room_bytes:
            hand.taken = count
            self._current = None
            return Slice(hand, 0, count, step.size)
        if not first and start == 0:
            return None
        payloads = hand.payloads = list(hand.payloads) if start == 0 else hand.payloads
        offsets = step.offsets
        size = fitting = 0
        end = count
        edge = start
        for index in range(start, count):
            if index == start or offsets is None or offsets[index] != offsets[index - 1]:
                edge, fitting = index, size
            size += len(payloads[index])
            if (index - start >= room_events or size > room_bytes) and (edge > start or not first):
                end, size = edge, fitting
                break
        if end == start:
            return None
        hand.taken = end
        if end == count:
            self._current = None
        return Slice(hand, start, end, size)

    # --- writing

    async def _deliver(self, slices: list[Slice]) -> None:
        try:
            await self._write(slices)
        finally:
            self.busy_with = ""
            self._turns.release()

    async def _write(self, slices: list[Slice]) -> None:
        retry = self.runner.config.retry
        backoff = Backoff(retry.base, retry.cap)
        parts = [piece.part() for piece in slices]
        newest = parts[-1]
        changed = [_changed(piece) for piece in slices]
        attempts, first_attempt, began = 0, self._clock.now(), self._clock.monotonic()
        mark: Mapping[str, Any] | None = None
        while parts:
            attempts += 1
            failures: Mapping[int, RetryLater | Rejected]
            self.busy_with = f"attempt {attempts} to write {sum(len(part.payloads) for part in parts)} items"
            try:
                mark = await self.runner.write(Items(parts))
                failures = {}
            except Partial as partial:
                failures = self._checked(partial, sum(len(part.payloads) for part in parts))
            except (RetryLater, Rejected) as verdict:
                failures = dict.fromkeys(range(sum(len(part.payloads) for part in parts)), verdict)
            again = next((verdict for verdict in failures.values() if isinstance(verdict, RetryLater)), None)
            if again is not None:
                self.runner.failed(again, "The sink did not take a write; it is tried again.")
                if retry.expires is not None and self._clock.monotonic() - began > retry.expires:
                    failures = {
                        index: Rejected("expired", str(verdict)) if isinstance(verdict, RetryLater) else verdict
                        for index, verdict in failures.items()
                    }
                    again = None
            else:
                self.runner.worked()
            parts, changed = await self._sort(parts, changed, failures, attempts, first_attempt)
            if again is not None and parts:
                self.busy_with = f"waiting to try again: {again}"
                await asyncio.sleep(self.runner.wait(again, backoff))
        for piece in slices:
            piece.hand.finish(piece.start, piece.end)
        await self._settle({piece.log for piece in slices}, mark)
        self._delivered(slices[-1].hand.step.batch, newest.payloads[-1])

    def _checked(self, partial: Partial, count: int) -> Mapping[int, RetryLater | Rejected]:
        """The verdicts, if they are about items that there are; else the sink is wrong and nothing counts as stored."""
        if all(0 <= index < count for index in partial.failures):
            return partial.failures
        wrong = RetryLater(f"the sink named items that it was not given ({count} were)", where=self.runner.id)
        return dict.fromkeys(range(count), wrong)

    async def _sort(
        self,
        parts: Sequence[Part],
        changed: Sequence[frozenset[int]],
        failures: Mapping[int, RetryLater | Rejected],
        attempts: int,
        first_attempt: float,
    ) -> tuple[list[Part], list[frozenset[int]]]:
        """Count what is stored, dead-letter what was rejected, return what is to be written again."""
        rest: list[Part] = []
        rest_changed: list[frozenset[int]] = []
        base = 0
        for part, made in zip(parts, changed, strict=True):
            count = len(part.payloads)
            tally = self.tallies[part.log]
            verdicts = (
                {index - base: failures[index] for index in range(base, base + count) if index in failures}
                if failures
                else {}
            )
            base += count
            payloads = list(part.payloads) if verdicts else part.payloads
            stored = count - len(verdicts)
            tally.delivered += stored
            tally.in_hand -= stored
            self.runner.sent_records += stored
            self.runner.sent_bytes += part.size - sum(len(payloads[index]) for index in verdicts)
            again = [index for index, verdict in verdicts.items() if isinstance(verdict, RetryLater)]
            lines = [
                letter(
                    payloads[index],
                    component=self.runner.id,
                    reason=verdict.reason,
                    detail=verdict.detail,
                    log=part.log,
                    stream=part.stream,
                    received_at=part.received_at,
                    rejected_at=self._clock.now(),
                    origin=part.origin,
                    sink=self.runner.id,
                    route=self.route.name,
                    lane=self.id,
                    attempts=attempts,
                    first_attempt=first_attempt,
                    changed=index in made,
                )
                for index, verdict in verdicts.items()
                if isinstance(verdict, Rejected)
            ]
            if lines:
                await self._bury(lines, tally)
            if again:
                values = part.values
                rest.append(
                    Part(
                        [payloads[index] for index in again],
                        part.stream,
                        part.log,
                        part.received_at,
                        part.origin,
                        [values[index] for index in again] if values is not None else None,
                    )
                )
                rest_changed.append(frozenset(new for new, index in enumerate(again) if index in made))
        return rest, rest_changed

    async def _refuse(self, step: Step, tally: Tally) -> None:
        """Put what filters refused into the dead letter."""
        batch, now = step.batch, self._clock.now()
        lines = [
            letter(
                refusal.payload,
                component=refusal.component,
                reason=refusal.reason,
                detail=refusal.detail,
                log=batch.log,
                stream=batch.stream,
                received_at=batch.received_at,
                rejected_at=now,
                origin=batch.origin,
                route=self.route.name,
                lane=self.id,
            )
            for refusal in step.refusals
        ]
        await self._bury(lines, tally)

    async def _bury(self, lines: list[bytes], tally: Tally) -> None:
        """Store dead letters, waiting as long as there is no room for them."""
        backoff = Backoff(1.0, 10.0)
        while True:
            try:
                await self.letters.put(lines)
            except UnavailableError as error:
                self.busy_with = "waiting for room in the dead letter"
                self.runner.status.error("dead_letter_full")
                self._log.error("The lane waits: its dead letter takes no more.", lane=self.id, error=str(error))
                await asyncio.sleep(backoff.next())
            else:
                self.busy_with = ""
                tally.rejected += len(lines)
                tally.in_hand -= len(lines)
                return

    async def _settle(self, logs: Any, mark: Mapping[str, Any] | None) -> None:
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


def _changed(piece: Slice) -> frozenset[int]:
    made = piece.hand.step.changed
    if piece.log.changed:
        return frozenset(range(piece.end - piece.start))
    if not made:
        return made
    return frozenset(index - piece.start for index in made if piece.start <= index < piece.end)
