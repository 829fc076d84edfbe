"""Makes room in a disk spool, and says whose turn it is when there is too little."""

from __future__ import annotations

import asyncio
import sqlite3
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial

from pipeline.core.batch import LogId
from pipeline.core.spool import Commit
from pipeline.kit.backoff import Backoff
from pipeline.kit.log import Logger
from pipeline.spool.appending import Appender
from pipeline.spool.folder import remove
from pipeline.spool.log import DiskLog, Entry
from pipeline.spool.segment import FILE_HEADER, Segment
from pipeline.spool.shares import Shares
from pipeline.spool.state import Changes
from pipeline.spool.worker import Worker

Change = Callable[[Changes, Callable[[], None]], Awaitable[None]]
"""Commits changes of the database and books them. Raises sqlite3.Error."""


class Room:
    """Belongs to the event loop. `keep` is to run as long as the spool is open."""

    def __init__(
        self,
        logs: Mapping[LogId, DiskLog],
        shares: Shares[LogId],
        worker: Worker,
        change: Change,
        checkpoint: Callable[[], Awaitable[None]],
        log: Logger,
    ) -> None:
        self.appender: Appender
        self.commit: Commit
        """Commits what was given up, and with it what lanes noted of that."""
        self._logs = logs
        self._shares = shares
        self._worker = worker
        self._change = change
        self._checkpoint = checkpoint
        self._log = log
        self._short = asyncio.Event()
        self._tickets = 0
        self._waiting = False
        self._leftover: list[tuple[DiskLog, Segment]] = []
        """Segments that nobody needs and that are not deleted yet."""
        self._given_up: list[tuple[DiskLog, Segment]] = []
        """Segments that lanes have skipped, as long as the database does not know it."""

    def enter(self, log: DiskLog, entry: Entry) -> None:
        """Write a batch now if there is room, else when there is."""
        if self._may_go(log, entry.cost):
            self.appender.put(entry)
            return
        self._tickets += 1
        entry.ticket = self._tickets
        log.queue.append(entry)
        if not self._waiting:
            self._waiting = True
            self._log.warning("The spool is full: sources wait until lanes have made room.", log=str(log.name))
        self._hurry()

    async def leave(self, log: DiskLog, entries: Sequence[Entry]) -> None:
        """The caller of an append is cancelled."""
        under_way = [entry for entry in entries if entry not in log.queue]
        log.queue = deque(entry for entry in log.queue if entry not in entries)
        await self.appender.take_back(under_way)
        self.grant()

    def _may_go(self, log: DiskLog, cost: int) -> bool:
        """Whether an append need not wait: it is the first of its log and stays within the share, or no other waits for room."""
        if log.queue:
            return False
        return self._shares.within_share(log.name, cost) or (
            not any(other.queue for other in self._logs.values()) and self._shares.fits(log.name, cost)
        )

    def grant(self) -> None:
        """Let waiting appends in, the oldest first; one that is too large for the room there is holds up all but log's own shares."""
        while waiting := sorted((log.queue[0].ticket, log.name) for log in self._logs.values() if log.queue):
            for number, (_, name) in enumerate(waiting):
                queue = self._logs[name].queue
                cost = queue[0].cost
                if self._shares.within_share(name, cost) or (number == 0 and self._shares.fits(name, cost)):
                    self.appender.put(queue.popleft())
                    break
            else:
                self._hurry()
                return
        self._waiting = False

    def wanted(self) -> None:
        """Room on the disk itself is short."""
        self._short.set()

    def _hurry(self) -> None:
        self._short.set()
        for lane in {id(lane): lane for log in self._logs.values() for lane in log.lanes}.values():
            lane.hurry()

    # --- deleting

    async def free(self) -> bool:
        """Delete the segments that nobody needs; returns whether there were any. Raises OSError and sqlite3.Error."""
        gone, self._leftover = self._leftover, []
        for log in self._logs.values():
            low = log.low
            while len(log.segments) > 1 and log.segments[0].end <= low:
                gone.append((log, log.segments.pop(0)))
        if not gone:
            self.grant()
            return False
        await self._delete(gone)
        return True

    async def _delete(self, gone: Sequence[tuple[DiskLog, Segment]]) -> None:
        def book(failed: Mapping[Segment, OSError]) -> None:
            for log, segment in gone:
                if segment in failed:
                    self._leftover.append((log, segment))
                else:
                    log.stats.bytes -= segment.length
                    self._shares.charge(log.name, -segment.length)
            for segment, error in failed.items():
                self._log.error(
                    "A segment cannot be deleted; it is tried again.", path=str(segment.path), error=str(error)
                )
            self.grant()

        try:
            # Damage to the write-ahead log takes positions back to a checkpoint: never behind what is deleted.
            await self._checkpoint()
        except BaseException:
            self._leftover += gone
            raise
        await self._worker.run(partial(remove, [segment for _, segment in gone]), book)

    # --- when room is short

    async def keep(self) -> None:
        """Make room whenever it is short, until cancelled."""
        backoff = Backoff(0.1, 5.0)
        while True:
            await self._short.wait()
            self._short.clear()
            try:
                while (self._waiting or self.appender.trouble or self._given_up) and await self._reclaim():
                    backoff.reset()
            except (OSError, sqlite3.Error) as error:
                self._log.error("The spool could not make room; it is tried again.", error=str(error))
                await asyncio.sleep(backoff.next())
                self._short.set()

    async def _reclaim(self) -> bool:
        """Take one step that makes room, the least harmful there is; returns whether there was one."""
        if self._given_up:
            await self._delete_given_up()
            return True
        passed = [log for log in self._logs.values() if log.low >= log.stats.end and self._can_roll(log)]
        if passed:
            await self._roll(max(passed, key=lambda log: log.segments[-1].length))
            return await self.free()
        orphaned = [log for log in self._logs.values() if log.segments and log.low < log.segments[0].end <= log.passed]
        if orphaned:
            return await self._pass_orphans(max(orphaned, key=self._over))
        # What somebody asked to have replayed is little, and left the place where it was.
        droppable = [log for log in self._logs.values() if not log.name.replay]
        if self.appender.trouble or not droppable:
            return False
        return await self._drop_oldest(max(droppable, key=self._over))

    def _over(self, log: DiskLog) -> int:
        return self._shares.over(log.name)

    def _can_roll(self, log: DiskLog) -> bool:
        return bool(log.segments) and log.segments[-1].length > FILE_HEADER and not log.in_flight

    async def _roll(self, log: DiskLog) -> None:
        """Begin a new segment, so that the one that grew can be deleted."""

        def book(segment: Segment) -> None:
            if log.know(segment):
                self._shares.charge(log.name, segment.length)

        await self._worker.run(partial(log.writer.roll, log.stats.end), book)

    async def _pass_orphans(self, log: DiskLog) -> bool:
        """Forget the orphan lanes that still hold the oldest segment: one that lost a part need not keep the rest."""
        end = log.segments[0].end
        gone = {lane: log.kept(position) for lane, position in log.orphans.items() if position < end}
        sentence = "Room is short: lanes that the configuration no longer has are dropped, with the records that waited for them."
        self._log.error(sentence, log=str(log.name), lanes=gone)

        def book() -> None:
            for lane in gone:
                del log.orphans[lane]

        await self._change({"positions": {(lane, *log.name.key): None for lane in gone}}, book)
        await self.free()
        return True

    async def _drop_oldest(self, log: DiskLog) -> bool:
        """Discard the oldest segment of which nothing is in a lane's hand, where all lanes that still have to read it agree."""
        for segment in log.segments:
            holders = [lane for lane in log.lanes if log.positions[lane.id] < segment.end]
            if not holders or any(
                lane.cursor(log.name) > max(segment.first, log.positions[lane.id]) for lane in holders
            ):
                continue
            if any(lane.on_full == "block" for lane in holders):
                return False
            if segment is log.segments[-1]:
                if not self._can_roll(log):
                    return False
                await self._roll(log)
                return True
            for lane in holders:
                if lane.cursor(log.name) < segment.end:
                    lane.skip(log.name, segment.end)
            log.segments.remove(segment)
            self._given_up.append((log, segment))
            await self._delete_given_up()
            return True
        return False

    async def _delete_given_up(self) -> None:
        """Delete a segment that lanes have skipped, once the database knows it: a crash brings it back, or leaves it counted."""
        log, segment = self._given_up[0]
        known = log.given_up(segment.first, segment.end)
        if known < segment.end - segment.first:  # else it was what comes after the commit that failed
            before = next((first for first, end in log.dropped.items() if end == segment.first), segment.first)
            await self.commit({"dropped": {(*log.name.key, before): segment.end}})
        self._leftover.append(self._given_up.pop(0))
        await self.free()
