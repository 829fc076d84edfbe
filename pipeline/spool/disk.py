"""A spool on disk: a log of segments for each source and organization, and one database for what must change together."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Literal, TypeVar

import orjson

from pipeline.core.batch import MAX_BYTES, Batch, LogId
from pipeline.core.config import Field, Section
from pipeline.core.errors import UnavailableError, UsageError
from pipeline.core.spool import NO_FACTS, Commit, Facts, LanePort, LogStats, Marks, Positions, Restored
from pipeline.core.types import Size
from pipeline.kit import log as logs
from pipeline.spool.appending import SYNC_INTERVAL, Appender
from pipeline.spool.blocks import BLOCK, Blocks
from pipeline.spool.folder import SpoolFolder
from pipeline.spool.log import DiskLog, Entry
from pipeline.spool.reading import Reader
from pipeline.spool.recovery import Recovered, open_state, recover
from pipeline.spool.room import Room
from pipeline.spool.segment import frame_size
from pipeline.spool.shares import Shares
from pipeline.spool.state import ENGINE_TABLES, Changes, Key, State
from pipeline.spool.worker import Worker
from pipeline.spool.writing import LogWriter

SEGMENT_SIZE = 64 << 20
"""Bytes of a segment at most, unless it holds one larger batch."""
SMALLEST_SEGMENT = 64 << 10
DIRECT_SEGMENT = 4 << 20
"""Bytes of a segment at least into which blocks are written past the page cache: a block more or less must not count."""
REPLAY_SEGMENT = 1 << 20
"""Bytes of a segment of replayed records at most: what is over should soon be deleted."""
_LONGEST_NAME = 255
"""Bytes of a file name at most."""
_T = TypeVar("_T")


class DiskSpoolConfig(Section):
    """Keeps records on disk until every lane is past them; nothing accepted is lost in a crash."""

    type: Literal["disk"]
    """Which spool this is."""
    path: Path
    """The folder; one process uses it."""
    max_size: Size = Field(10 << 30, ge=1 << 20)
    """Bytes that all its files may take."""
    sync: Literal["full", "normal"] = "full"
    """`full`: a record is accepted when it is on the disk. `normal`: when it is written; the disk follows within 100 ms."""


class DiskSpool:
    """Implements `pipeline.core.spool.Spool`.

    The event loop decides and keeps the books; three threads do what blocks: one writes and deletes segments, one has the
    database, one reads. What they did is booked in callbacks, so that a caller who is cancelled leaves nothing half done.
    """

    commit_interval = SYNC_INTERVAL
    durable = True

    def __init__(self, config: DiskSpoolConfig) -> None:
        self.config = config
        self.max_batch = min(MAX_BYTES, config.max_size // 16)
        self.max_hand = config.max_size // 8
        self.state_lost = False
        """Whether positions were lost, so that every lane must begin at the oldest record kept."""
        self._folder = SpoolFolder(config.path)
        self._damaged_size = config.max_size // 8
        self._log = logs.get(component="spool")
        self._blocks = Blocks()
        self._logs: dict[LogId, DiskLog] = {}
        self._stats: dict[LogId, LogStats] = {}
        self._growing: set[Key] = set()
        """Rows of what was given up that are being committed: no other commit may take them for over."""
        self._workers: list[Worker] = []
        self._keeper: asyncio.Task[None] | None = None

    async def open(self, names: Sequence[LogId]) -> Restored:
        """Open the folder.

        Raises ConfigError when another process or another version has it, UnavailableError when it cannot be used.
        """
        self._workers = [Worker(f"spool-{name}") for name in ("write", "state", "read")]
        writer, self._state_worker, reader = self._workers
        try:
            self._state, found, overhead = await self._state_worker.run(partial(self._open, names))
        except (OSError, sqlite3.Error) as error:
            raise UnavailableError(
                f"the spool cannot be opened: {error}", where="spool.path", fix="Check its disk and its permissions."
            ) from error
        self._shares = Shares(self.config.max_size - overhead, names, found)
        self._segment_size = min(SEGMENT_SIZE, max(SMALLEST_SEGMENT, self._shares.share // 4))
        for name, one in found.items():
            self._enter(name, one)
        self._room = Room(self._logs, self._shares, writer, self._change, self._checkpoint, self._log)
        self._appender = Appender(
            self.config.path, self._logs, self._shares, writer, self._room.wanted, self._log,
            full_sync=self.config.sync == "full",
        )  # fmt: skip
        self._room.appender = self._appender
        self._reader = Reader(self._folder, reader, self._damaged_size, self._log)
        self._keeper = asyncio.create_task(self._room.keep(), name="spool-keeper")
        facts = {table: self._state.restore(table) for table in ENGINE_TABLES}
        return Restored(self._positions(), self._marks(), self.state_lost, facts)

    def _open(self, names: Sequence[LogId]) -> tuple[State, dict[LogId, Recovered], int]:
        self._folder.make()
        self._folder.lock()
        state, self.state_lost = open_state(self._folder, self.config.max_size, self._log)
        try:
            found = recover(self._folder, state, names, self._damaged_size, self._log)
        except BaseException:
            state.close()
            raise
        return state, found, self._folder.overhead(state.room)

    def _enter(self, name: LogId, found: Recovered) -> DiskLog:
        last = found.segments[-1] if found.segments else None
        size = min(self._segment_size, REPLAY_SEGMENT) if name.replay else self._segment_size
        blocks = self._blocks if size >= DIRECT_SEGMENT else None
        log = DiskLog(name, found.segments, found.end, LogWriter(self._folder.log(name), size, last, blocks))
        log.dropped = found.dropped
        self._logs[name] = log
        self._stats[name] = log.stats
        self._shares.charge(name, log.stats.bytes + (BLOCK if blocks else 0))  # its last block may be begun
        return log

    async def add(self, log: LogId, lanes: Sequence[LanePort]) -> None:
        if log in self._logs:
            return
        if len(self._folder.log(log).name.encode()) > _LONGEST_NAME:
            raise UsageError(f"the names of {log} are too long together to be a folder's", where="spool.path")
        start: dict[Key, int | str | None] = {(lane.id, *log.key): 0 for lane in lanes}
        await self._change({"positions": start}, lambda: self._shares.add(log))
        store = self._enter(log, Recovered())
        store.lanes += lanes
        store.positions.update(dict.fromkeys((lane.id for lane in lanes), 0))

    def attach(self, lanes: Sequence[LanePort], commit: Commit | None = None) -> None:
        self._room.commit = commit or partial(self.commit, {}, {})
        known = self._positions()
        new: dict[Key, int | str | None] = {}
        for lane in lanes:
            for name in lane.logs:
                log = self._logs[name]
                log.lanes.append(lane)
                position = known.pop((lane.id, name), None)
                if position is None:
                    # A lane that crashes before its first commit must find the same beginning again.
                    position = new[lane.id, *name.key] = lane.cursor(name)
                log.positions[lane.id] = position
        for (lane_id, name), position in known.items():
            log = self._logs[name]
            log.orphans[lane_id] = position
            if records := log.kept(position):
                self._log.warning(
                    "No lane of the configuration reads these records; they are kept while there is room.",
                    lane=lane_id, log=str(name), records=records,
                )  # fmt: skip
        if new:
            self._state_worker.wait(partial(self._state.commit, {"positions": new}))

    async def append(self, *batches: Batch) -> None:
        log = self._logs[batches[0].log]
        if not log.lanes:
            for batch in batches:
                batch.first = log.stats.end
                log.stats.received += len(batch.records)
            return
        entries = [Entry(batch, frame_size(batch)) for batch in batches]
        # They are accepted in their order, so the last one tells of all.
        done = entries[-1].done = asyncio.get_running_loop().create_future()
        for entry in entries:
            self._room.enter(log, entry)
        try:
            await done
        except asyncio.CancelledError:
            await self._room.leave(log, entries)
            raise

    async def read(self, log: LogId, position: int) -> Batch | None:
        store = self._logs[log]
        if position >= store.stats.end:
            return None
        return store.recall(position) or await self._reader.read(store, position)

    async def commit(self, positions: Positions, marks: Marks, facts: Facts = NO_FACTS) -> None:
        await self._appender.sync()  # no position may be ahead of what a power cut leaves
        moved: dict[Key, int | str | None] = {(lane, *log.key): position for (lane, log), position in positions.items()}
        marked: dict[Key, int | str | None] = {
            (sink, key): None if value is None else orjson.dumps(value).decode()
            for sink, delta in marks.items()
            for key, value in delta.items()
        }
        over = [
            (log, first)
            for log in self._logs.values()
            for first, end in log.dropped.items()
            if end <= log.low and (*log.name.key, first) not in self._growing
        ]
        new = facts.get("dropped", {})
        dropped: dict[Key, int | str | bytes | None] = {(*log.name.key, first): None for log, first in over}
        dropped.update(new)

        def book() -> None:
            for log, first in over:
                log.dropped.pop(first, None)
            for (source, org, at), end in new.items():
                self._logs[LogId.of(source, org)].dropped[int(at)] = int(end or 0)
            self._move(positions)

        changes = {"positions": moved, "marks": marked, "ends": self._ends(), **facts, "dropped": dropped}
        self._growing |= new.keys()
        try:
            await self._change(changes, book)
        finally:
            self._growing -= new.keys()
        await self._room.free()

    async def settled(self, log: LogId, end: int) -> None:
        store = self._logs[log]
        if store.passed >= end or not store.lanes:
            return
        waiter = asyncio.get_running_loop().create_future()
        store.settling.append((end, waiter))
        await waiter

    def stats(self) -> Mapping[LogId, LogStats]:
        return self._stats

    def oldest(self, log: LogId) -> int:
        """The number of the oldest record kept, where a new lane may begin."""
        return self._logs[log].start

    def given_up(self, log: LogId, start: int, end: int) -> int:
        """How many of these records lanes gave up, as the database knows it: it forgets what all are past."""
        return self._logs[log].given_up(start, end)

    @property
    def trouble(self) -> str:
        """Why the disk takes no records; "" while it does."""
        return self._appender.trouble

    async def transact(self, work: Callable[[sqlite3.Connection], _T]) -> _T:
        """Run ``work`` as one transaction of the database, in its thread. Raises what it raises; then nothing has changed."""
        return await self._state_worker.run(partial(self._state.transact, work))

    async def close(self) -> None:
        keeper, self._keeper = self._keeper, None
        workers, self._workers = self._workers, []
        if keeper is not None:
            keeper.cancel()
            await asyncio.wait([keeper])
            try:
                await self._appender.close()
                await self._state_worker.run(partial(self._state.commit, {"ends": self._ends()}))
            except (OSError, sqlite3.Error) as error:
                self._log.error("The spool could not put everything on the disk at its end.", error=str(error))
        for worker in workers:
            await worker.close()
        if keeper is not None:
            for log in self._logs.values():
                log.writer.close()
            self._reader.clear()
            self._state.close()
        self._folder.unlock()

    def _move(self, positions: Positions) -> None:
        """Book what lanes are past, and tell those who wait for it."""
        touched: set[DiskLog] = set()
        for (lane, name), position in positions.items():
            log = self._logs[name]
            if lane in log.positions:
                log.positions[lane] = position
                touched.add(log)
        for log in touched:
            if log.settling:
                low = log.passed
                for end, waiter in log.settling:
                    if end <= low and not waiter.done():
                        waiter.set_result(None)
                log.settling = [one for one in log.settling if not one[1].done()]

    async def _change(self, changes: Changes, book: Callable[[], None]) -> None:
        """Commit changes of the database and book them. Raises sqlite3.Error."""

        def work() -> int:
            self._state.commit(changes)
            return self._folder.overhead(self._state.room)

        def done(overhead: int) -> None:
            size = self.config.max_size - overhead
            if size != self._shares.size:
                self._shares.resize(size)
            book()

        await self._state_worker.run(work, done)

    async def _checkpoint(self) -> None:
        await self._state_worker.run(self._state.checkpoint)

    def _positions(self) -> dict[tuple[str, LogId], int]:
        return {
            (str(lane), LogId.of(source, org)): position
            for (lane, source, org), position in self._state.tables["positions"].items()
        }

    def _marks(self) -> dict[str, dict[str, object]]:
        marks: dict[str, dict[str, object]] = {}
        for (sink, key), value in self._state.tables["marks"].items():
            marks.setdefault(str(sink), {})[str(key)] = orjson.loads(value)
        return marks

    def _ends(self) -> dict[Key, int | str | None]:
        """The logs' ends where the database has others."""
        known = self._state.tables["ends"]
        return {name.key: log.stats.end for name, log in self._logs.items() if known.get(name.key) != log.stats.end}
