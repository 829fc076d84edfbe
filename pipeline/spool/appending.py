"""Brings batches to the disk: in groups, so that one wait for the disk serves all that wait."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from pipeline.core.batch import LogId
from pipeline.kit.backoff import Backoff
from pipeline.kit.log import Logger
from pipeline.spool.log import DiskLog, Entry, memory
from pipeline.spool.segment import Segment, encode
from pipeline.spool.shares import Shares
from pipeline.spool.worker import Worker
from pipeline.spool.writing import LogWriter, Pieces

RESERVE = 1 << 20
"""Bytes of the disk that records leave free: where positions cannot be committed, nothing can be deleted either."""
RECENT_SIZE = 16 << 20
"""Bytes of memory that the latest batches of all logs may take, so that a lane that keeps up never reads from the disk."""
GROUP_SIZE = 8 << 20
"""Bytes that are written at once at most; encoding them holds up everybody else."""
SYNC_INTERVAL = 0.1
"""Seconds between writing and the disk with `sync: normal`."""

_Outcome = tuple[list[Segment], OSError | None]


class Appender:
    """Belongs to the event loop; ``worker`` does what blocks."""

    def __init__(
        self,
        path: Path,
        logs: Mapping[LogId, DiskLog],
        shares: Shares[LogId],
        worker: Worker,
        on_trouble: Callable[[], None],
        log: Logger,
        *,
        full_sync: bool,
    ) -> None:
        self.trouble = ""
        """Why the disk takes no records; "" while it does."""
        self._path = path
        self._logs = logs
        self._shares = shares
        self._worker = worker
        self._on_trouble = on_trouble
        self._log = log
        self._full_sync = full_sync
        self._ready: list[Entry] = []
        """Batches that have room and wait for the thread."""
        self._start: asyncio.Handle | None = None
        self._writing = False
        self._closed = False
        self._free = 0
        """Bytes of the disk that may be used, as the thread last saw it."""
        self._looked = 0.0
        self._recent_size = 0
        self._sync_due: asyncio.TimerHandle | None = None
        self._retry: asyncio.TimerHandle | None = None
        self._backoff = Backoff(0.05, 1.0)

    def put(self, entry: Entry) -> None:
        """Write a batch that has room; `Entry.end` says when it is accepted."""
        self._shares.charge(entry.batch.log, entry.cost)
        self._ready.append(entry)
        if not self._writing:
            self._soon()

    async def take_back(self, entries: Sequence[Entry]) -> None:
        """Do not write them, as their caller is cancelled; what is being written already is waited for, as it may be accepted."""
        writing: list[Entry] = []
        for entry in entries:
            if entry in self._ready:
                self._ready.remove(entry)
                self._shares.charge(entry.batch.log, -entry.cost)
            elif entry.batch.first < 0:
                entry.given_up = True
                writing.append(entry)
        for entry in writing:
            while entry.batch.first < 0 and entry.given_up:
                ended = entry.done = asyncio.get_running_loop().create_future()
                with contextlib.suppress(asyncio.CancelledError):
                    await ended

    async def sync(self) -> None:
        """Put all that is accepted on the disk. Raises OSError."""
        if not self._full_sync:
            await self._worker.run(self._sync)

    async def close(self) -> None:
        """Put all that is accepted on the disk. Raises OSError."""
        self._closed = True
        for timer in (self._start, self._sync_due, self._retry):
            if timer is not None:
                timer.cancel()
        await self._worker.run(self._sync)

    def _soon(self) -> None:
        """Write what is ready in the next turn of the event loop: what comes until then goes along."""
        if self._start is None and not self._closed:
            self._start = asyncio.get_running_loop().call_soon(self._next)

    def _next(self) -> None:
        self._start = None
        if self._writing or not self._ready or self._retry is not None:
            return
        size = taken = 0
        by_log: dict[LogId, list[Entry]] = {}
        for entry in self._ready:
            if taken and size + entry.cost > GROUP_SIZE:
                break
            by_log.setdefault(entry.batch.log, []).append(entry)
            size += entry.cost
            taken += 1
        del self._ready[:taken]
        jobs: list[tuple[LogWriter, list[Pieces], bool]] = []
        for name, entries in by_log.items():
            log = self._logs[name]
            log.in_flight = len(entries)
            first = log.stats.end
            frames: list[Pieces] = []
            for entry in entries:
                frames.append((first, encode(entry.batch, first)))
                first += len(entry.batch.records)
            # A lane that is far behind reads from the disk, and had better find it in the page cache.
            jobs.append((log.writer, frames, log.recent_size > RECENT_SIZE // 2))
        self._writing = True
        self._worker.start(partial(self._write, jobs, size), partial(self._written, by_log))

    def _write(self, jobs: Sequence[tuple[LogWriter, Sequence[Pieces], bool]], size: int) -> list[_Outcome]:
        """In the thread."""
        if self._free < size or time.monotonic() > self._looked + SYNC_INTERVAL:
            try:
                disk = os.statvfs(self._path)
            except OSError as error:
                return [([], error)] * len(jobs)
            self._free = disk.f_bavail * disk.f_frsize - RESERVE
            self._looked = time.monotonic()
            if self._free < size:
                return [([], OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))] * len(jobs)
        self._free -= size
        return [writer.write(frames, sync=self._full_sync, cached=cached) for writer, frames, cached in jobs]

    def _written(self, by_log: Mapping[LogId, Sequence[Entry]], outcome: Callable[[], list[_Outcome]]) -> None:
        self._writing = False
        failed: list[Entry] = []
        problem: OSError | None = None
        for (name, entries), (segments, error) in zip(by_log.items(), outcome(), strict=True):
            log = self._logs[name]
            log.in_flight = 0
            for entry, segment in zip(entries, segments, strict=False):
                self._accept(log, entry, segment)
            if segments:
                for lane in log.lanes:
                    lane.wake()
            failed += entries[len(segments) :]
            problem = problem or error
        self._forget()
        self._again(failed)
        if problem is not None:
            self._stall(problem)
        elif self.trouble:
            self._log.info("The spool's disk takes records again.")
            self.trouble = ""
            self._backoff.reset()
        if not self._full_sync and self._sync_due is None:
            self._sync_due = asyncio.get_running_loop().call_later(SYNC_INTERVAL, self._start_sync)
        self._soon()  # who goes on now may have more

    def _accept(self, log: DiskLog, entry: Entry, segment: Segment) -> None:
        batch, stats = entry.batch, log.stats
        if log.know(segment):
            self._shares.charge(log.name, segment.length)
        batch.first = stats.end
        stats.end = segment.end = batch.end
        stats.received += len(batch.records)
        stats.bytes += entry.cost
        segment.length += entry.cost
        log.remember(batch)
        self._recent_size += memory(batch)
        entry.end()

    def _again(self, failed: Sequence[Entry]) -> None:
        """Put what could not be written back to the front, but for what nobody waits for any more."""
        again: list[Entry] = []
        for entry in failed:
            if entry.given_up:
                self._shares.charge(entry.batch.log, -entry.cost)
                entry.given_up = False
                entry.end()
            else:
                again.append(entry)
        self._ready[:0] = again

    def _stall(self, error: OSError) -> None:
        text = error.strerror or str(error)
        if not self.trouble:
            self._log.error("The spool's disk takes no records: sources wait, and it goes on by itself.", error=text)
        self.trouble = text
        self._retry = asyncio.get_running_loop().call_later(self._backoff.next(), self._try_again)
        self._on_trouble()

    def _try_again(self) -> None:
        self._retry = None
        self._next()

    def _forget(self) -> None:
        """Keep the memory for the latest batches within its bounds, at the cost of who has most of it."""
        for log in self._logs.values():
            self._recent_size -= log.forget_read()
        while self._recent_size > RECENT_SIZE:
            self._recent_size -= max(self._logs.values(), key=lambda log: log.recent_size).forget_oldest()

    def _start_sync(self) -> None:
        self._sync_due = None
        self._worker.start(self._sync, self._synced)

    def _synced(self, outcome: Callable[[], None]) -> None:
        try:
            outcome()
        except OSError as error:
            sentence = "Accepted records could not be put on the disk; a power cut may lose them."
            self._log.error(sentence, error=str(error))

    def _sync(self) -> None:
        """In the thread. A log that fails does not keep the others from being synced. Raises OSError."""
        problem: OSError | None = None
        for log in self._logs.values():
            try:
                log.writer.sync()
            except OSError as error:
                problem = error
        if problem is not None:
            raise problem
