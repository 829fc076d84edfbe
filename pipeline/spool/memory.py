"""A spool in memory: bounded in bytes, gone with the process."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Mapping, Sequence
from typing import Literal

from pipeline.core.batch import MAX_BYTES, Batch, LogId
from pipeline.core.config import Field, Section
from pipeline.core.spool import NO_FACTS, Commit, Facts, LanePort, LogStats, Marks, Positions, Restored
from pipeline.core.types import Size

BATCH_OVERHEAD = 320
"""Bytes that a batch costs beside its block of records: its object, the block's, its place in the log."""


class MemorySpoolConfig(Section):
    """Keeps records in memory until every lane is past them. What it still holds when the process ends is lost."""

    type: Literal["memory"] = "memory"
    """Which spool this is."""
    max_size: Size = Field(64 << 20, ge=1 << 20)
    """Memory that all records in it may use together. Several workers share what is given here; unless given, each has 64MiB."""


class _Log:
    __slots__ = ("at", "bytes", "lanes", "positions", "queue", "settling", "share", "stats")

    def __init__(self) -> None:
        self.share = 0
        """Bytes that are always free for it."""
        self.at: OrderedDict[int, Batch] = OrderedDict()
        self.stats = LogStats()
        self.lanes: list[LanePort] = []
        self.positions: dict[str, int] = {}
        self.queue: deque[tuple[int, Batch, asyncio.Future[None]]] = deque()
        """Appends that wait, each with its number in the order of all."""
        self.settling: list[tuple[int, asyncio.Future[None]]] = []

    @property
    def low(self) -> int:
        return min(self.positions.values(), default=self.stats.end)


def _cost(batch: Batch) -> int:
    return len(batch.records.block) + BATCH_OVERHEAD


class MemorySpool:
    """Implements `pipeline.core.spool.Spool`.

    Half of ``max_size`` is split evenly among the logs, half is common: a log may always use its share, and beyond it as much
    of the common half as others leave.
    """

    commit_interval = 0.0
    durable = False

    def __init__(self, config: MemorySpoolConfig) -> None:
        self.config = config
        self.max_batch = min(MAX_BYTES, config.max_size // 16)
        self.max_hand = config.max_size // 8
        self._logs: dict[LogId, _Log] = {}
        self._common = config.max_size // 2
        self._common_used = 0
        self._used = 0
        self._tickets = 0

    async def open(self, logs: Sequence[LogId]) -> Restored:
        for log in logs:
            self._logs.setdefault(log, _Log())
        for store in self._logs.values():
            store.share = self._common // len(self._logs)
        return Restored()

    def attach(self, lanes: Sequence[LanePort], commit: Commit | None = None) -> None:
        del commit
        for lane in lanes:
            for name in lane.logs:
                log = self._logs[name]
                log.lanes.append(lane)
                log.positions[lane.id] = log.stats.end

    async def add(self, log: LogId, lanes: Sequence[LanePort]) -> None:
        if log not in self._logs:
            store = self._logs[log] = _Log()
            store.lanes += lanes
            store.positions.update(dict.fromkeys((lane.id for lane in lanes), 0))

    async def append(self, *batches: Batch) -> None:
        for batch in batches:
            await self._append(batch)

    async def _append(self, batch: Batch) -> None:
        log = self._logs[batch.log]
        if self._may_go(log, _cost(batch)):
            self._insert(log, batch)
            if self._used > self.config.max_size * 3 // 4:
                for lane in log.lanes:
                    lane.hurry()
            return
        self._hurry()
        waiter = asyncio.get_running_loop().create_future()
        self._tickets += 1
        entry = (self._tickets, batch, waiter)
        log.queue.append(entry)
        try:
            await waiter
        except asyncio.CancelledError:
            if batch.first < 0:
                log.queue.remove(entry)
                self._grant()
            raise

    def _may_go(self, log: _Log, cost: int) -> bool:
        """Whether an append need not wait: it is the first of its log and stays within the share, or no other waits for room."""
        if log.queue:
            return False
        return self._within_share(log, cost) or (
            not any(other.queue for other in self._logs.values()) and self._room(log, cost)
        )

    def _within_share(self, log: _Log, cost: int) -> bool:
        return log.stats.bytes + cost <= log.share

    async def read(self, log: LogId, position: int) -> Batch | None:
        store = self._logs[log]
        batch = store.at.get(position)
        if batch is not None or position >= store.stats.end:
            return batch
        return next((found for found in store.at.values() if found.end > position), None)

    async def commit(self, positions: Positions, marks: Marks, facts: Facts = NO_FACTS) -> None:
        del marks, facts  # they live in the engine: nothing of this spool outlives the process
        touched: set[LogId] = set()
        for (lane, name), position in positions.items():
            self._logs[name].positions[lane] = position
            touched.add(name)
        for name in touched:
            self._trim(self._logs[name])
        self._grant()

    async def settled(self, log: LogId, end: int) -> None:
        store = self._logs[log]
        if store.low >= end:
            return
        waiter = asyncio.get_running_loop().create_future()
        store.settling.append((end, waiter))
        await waiter

    def given_up(self, log: LogId, start: int, end: int) -> int:
        del log, start, end
        return 0  # no process was before us

    def stats(self) -> Mapping[LogId, LogStats]:
        return {name: log.stats for name, log in self._logs.items()}

    def oldest(self, log: LogId) -> int:
        return next(iter(self._logs[log].at), self._logs[log].stats.end)

    async def close(self) -> None:
        for log in self._logs.values():
            log.at.clear()

    def _insert(self, log: _Log, batch: Batch) -> None:
        stats = log.stats
        batch.first = stats.end
        stats.end += len(batch.records)
        stats.received += len(batch.records)
        if not log.lanes:
            return
        log.at[batch.first] = batch
        self._charge(log, _cost(batch))
        for lane in log.lanes:
            lane.wake()

    def _charge(self, log: _Log, amount: int) -> None:
        share = log.share
        before = log.stats.bytes
        after = log.stats.bytes = before + amount
        self._common_used += max(0, after - share) - max(0, before - share)
        self._used += amount

    def _fits(self, log: _Log, cost: int) -> bool:
        share, held = log.share, log.stats.bytes
        return self._common_used - max(0, held - share) + max(0, held + cost - share) <= self._common

    def _room(self, log: _Log, cost: int) -> bool:
        while not self._fits(log, cost):
            # What somebody asked to have replayed is little, and left the place where it was.
            droppable = (log for name, log in self._logs.items() if not name.replay)
            fullest = max(droppable, key=lambda other: other.stats.bytes)
            if not self._drop_oldest(fullest):
                return False
        return True

    def _drop_oldest(self, log: _Log) -> bool:
        """Discard the oldest batch that is in no lane's hand, where all lanes that still have to read it agree."""
        for batch in log.at.values():
            cursors = [(lane, lane.cursor(batch.log)) for lane in log.lanes]
            if any(cursor >= batch.end > log.positions[lane.id] for lane, cursor in cursors):
                continue
            holders = [lane for lane, cursor in cursors if cursor < batch.end]
            if not holders:
                continue
            if any(lane.on_full == "block" for lane in holders):
                return False
            for lane in holders:
                lane.skip(batch.log, batch.end)
            del log.at[batch.first]
            self._charge(log, -_cost(batch))
            return True
        return False

    def _trim(self, log: _Log) -> None:
        low, at = log.low, log.at
        passed = []
        for batch in at.values():
            if batch.end > low:
                break
            passed.append(batch)
        for batch in passed:
            del at[batch.first]
            self._charge(log, -_cost(batch))
        if log.settling:
            for end, waiter in log.settling:
                if end <= low and not waiter.done():
                    waiter.set_result(None)
            log.settling = [entry for entry in log.settling if not entry[1].done()]

    def _grant(self) -> None:
        """Let waiting appends in, the oldest first; one that is too large for the room there is holds up all but log's own shares."""
        while waiting := sorted((log.queue[0][0], log) for log in self._logs.values() if log.queue):
            for number, (_, log) in enumerate(waiting):
                cost = _cost(log.queue[0][1])
                if self._within_share(log, cost) or (number == 0 and self._room(log, cost)):
                    _, batch, waiter = log.queue.popleft()
                    self._insert(log, batch)
                    if not waiter.done():
                        waiter.set_result(None)
                    break
            else:
                self._hurry()
                return

    def _hurry(self) -> None:
        for lane in {id(lane): lane for log in self._logs.values() for lane in log.lanes}.values():
            lane.hurry()
