"""One log of a disk spool as the event loop knows it: its segments, its lanes, its latest batches."""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections import OrderedDict, deque

from pipeline.core.batch import Batch, LogId
from pipeline.core.spool import LanePort, LogStats
from pipeline.spool.segment import FILE_HEADER, Segment
from pipeline.spool.writing import LogWriter

BATCH_OVERHEAD = 320
"""Bytes of memory that a batch costs beside its block of records."""
_PLACES = 64
"""Places where reading is to go on that a log remembers."""


class Entry:
    """A batch on its way into the spool."""

    __slots__ = ("batch", "cost", "done", "given_up", "ticket")

    def __init__(self, batch: Batch, cost: int) -> None:
        self.batch = batch
        self.cost = cost
        """Bytes that it takes on the disk."""
        self.done: asyncio.Future[None] | None = None
        """Who waits for what becomes of it."""
        self.ticket = 0
        """Its number in the order of all that had to wait for room."""
        self.given_up = False
        """Its caller is cancelled."""

    def end(self) -> None:
        """Let its caller go on, where it waits for this one."""
        if self.done is not None and not self.done.done():
            self.done.set_result(None)


class DiskLog:
    """All of it belongs to the event loop, but for ``writer``, which belongs to the thread that writes."""

    def __init__(self, name: LogId, segments: list[Segment], end: int, writer: LogWriter) -> None:
        self.name = name
        self.segments = segments
        """Oldest first; the last one grows."""
        self.writer = writer
        self.stats = LogStats(end=end, bytes=sum(segment.length for segment in segments))
        self.lanes: list[LanePort] = []
        self.positions: dict[str, int] = {}
        """Lane -> the first record that it is not past, as committed."""
        self.orphans: dict[str, int] = {}
        """The same of lanes that the configuration no longer has."""
        self.dropped: dict[int, int] = {}
        """First and end of what lanes gave up, until all are past it, as committed."""
        self.queue: deque[Entry] = deque()
        """Appends that wait for room."""
        self.in_flight = 0
        """Batches that are being written."""
        self.settling: list[tuple[int, asyncio.Future[None]]] = []
        self.loading = asyncio.Lock()
        self.recent_size = 0
        self._recent: OrderedDict[int, Batch] = OrderedDict()
        """The latest batches, as far as a lane still has to read them. Nothing is left out between them."""
        self._places: OrderedDict[int, tuple[Segment, int]] = OrderedDict()

    @property
    def start(self) -> int:
        """The oldest record kept."""
        return self.segments[0].first if self.segments else self.stats.end

    @property
    def passed(self) -> int:
        """Every lane of the configuration is past the records before this one."""
        return min(self.positions.values(), default=self.stats.end)

    @property
    def low(self) -> int:
        """The same, orphans included: nothing before it is needed."""
        return min(self.passed, *self.orphans.values()) if self.orphans else self.passed

    def given_up(self, start: int, end: int) -> int:
        """How many of these records lanes gave up."""
        return sum(max(0, min(end, last) - max(start, first)) for first, last in self.dropped.items())

    def kept(self, position: int) -> int:
        """How many records there are from this one on."""
        start = max(position, self.start)
        return self.stats.end - start - self.given_up(start, self.stats.end)

    def know(self, segment: Segment) -> bool:
        """Take the segment that grows into the books; returns whether it is another one."""
        last = self.segments[-1] if self.segments else None
        if last is segment:
            return False
        if last is not None and last.first == segment.first:  # an empty one, begun again after a failure
            self.segments[-1] = segment
            return False
        self.segments.append(segment)
        self.stats.bytes += FILE_HEADER
        return True

    # --- the latest batches

    def remember(self, batch: Batch) -> None:
        self._recent[batch.first] = batch
        self.recent_size += memory(batch)

    def recall(self, position: int, *, following: bool = False) -> Batch | None:
        """The batch that holds ``position`` where it is one of the latest; with ``following`` the next one will do, too."""
        batch = self._recent.get(position)
        if batch is None and self._recent and (following or position > next(iter(self._recent))):
            batch = next((one for one in self._recent.values() if one.end > position), None)
        return batch

    def forget_read(self) -> int:
        """Let batches go that all lanes have read; returns how many bytes."""
        before = self.recent_size
        if self._recent:
            read = min((lane.cursor(self.name) for lane in self.lanes), default=self.stats.end)
            while self._recent and next(iter(self._recent.values())).end <= read:
                self.forget_oldest()
        return before - self.recent_size

    def forget_oldest(self) -> int:
        """Let the oldest of the latest batches go: who still needs it reads it from the disk. Returns its bytes."""
        size = memory(self._recent.popitem(last=False)[1])
        self.recent_size -= size
        return size

    # --- where to read

    def place(self, position: int) -> tuple[Segment, int] | None:
        """The segment to look for a record in, and the offset from which on; None where there is no segment."""
        known = self._places.get(position)
        if known is not None and known[0] in self.segments:
            return known
        at = bisect_right(self.segments, position, key=_first) - 1
        return (self.segments[max(0, at)], FILE_HEADER) if self.segments else None

    def go_on_at(self, position: int, segment: Segment, offset: int) -> None:
        """Remember where the record ``position`` is to be looked for."""
        self._places[position] = (segment, offset)
        if len(self._places) > _PLACES:
            self._places.popitem(last=False)

    def following(self, segment: Segment) -> Segment | None:
        """The next segment that is still there."""
        at = bisect_right(self.segments, segment.first, key=_first)
        return self.segments[at] if at < len(self.segments) else None


def _first(segment: Segment) -> int:
    return segment.first


def memory(batch: Batch) -> int:
    """Bytes of memory that a batch takes."""
    return len(batch.records.block) + BATCH_OVERHEAD
