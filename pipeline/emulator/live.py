"""Where a connection's records come from: the live generators and who listens to them, or a run of its own."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import defaultdict, deque
from collections.abc import Callable, Sequence

from pipeline.emulator.generator import STREAMS, Generator
from pipeline.emulator.history import History
from pipeline.emulator.ledger import Ledger
from pipeline.emulator.payloads_detect import Shape as DetectShape
from pipeline.emulator.records import Record
from pipeline.emulator.selection import Selection
from pipeline.emulator.state import Cloud, Org

GROUP = 256
"""Records taken, and written, at once."""

TICK = 0.05
"""Seconds between two looks at the clock in live mode."""

VIRTUAL_START_MS = 1_767_225_600_000
"""Where the virtual clock of a run starts: 2026-01-01 UTC."""

VIRTUAL_RATE = 100.0
"""Records per second of a run's virtual clock."""

KEPT_BYTES = 128 << 20
"""What all runs together keep in memory, so that a second connection need not wait for the generator."""

MAX_MISSES = 50_000
"""A run whose filter lets nothing through for so many records goes quiet, or it would spin for ever."""


class Run:
    """A stream's records from the seed, the same for every connection that asks."""

    def __init__(self, runs: Runs, org: Org, stream: str, detect_shape: DetectShape) -> None:
        self._runs = runs
        self._org = org
        self._stream = stream
        self._detect_shape = detect_shape
        self._source: Generator | None = self._make()
        self._noted = 0
        self.kept: list[Record] = []

    def _make(self) -> Generator:
        org, start, rate = self._org, VIRTUAL_START_MS, VIRTUAL_RATE
        return Generator(org.fleet, self._stream, org.seed, start, rate, detect_shape=self._detect_shape)

    def extend(self, end: int) -> None:
        """Keep more records, up to the position `end`, as far as memory is left."""
        if self._source is not None and self._runs.room > 0 and end > len(self.kept):
            more = self._source.take(end - len(self.kept))
            self._runs.room -= sum(len(record.raw) for record in more)
            self.note(len(self.kept), more)
            self.kept += more

    def beyond(self) -> tuple[Generator, int]:
        """A generator that goes on behind what is kept, and how many records it must still skip."""
        if self._source is not None:
            source, self._source = self._source, None
            return source, 0
        return self._make(), len(self.kept)

    def note(self, position: int, records: Sequence[Record]) -> None:
        """Put into the ledger and the history what no connection has reached before."""
        fresh = records[max(self._noted - position, 0) :]
        self._runs.ledger.generated(self._stream, [record.raw for record in fresh])
        self._runs.history.add(self._org.oid, self._stream, fresh)
        self._noted += len(fresh)


class Runs:
    """One `Run` per organization and stream, made on first use."""

    def __init__(self, ledger: Ledger, history: History) -> None:
        self.ledger = ledger
        self.history = history
        self.room = KEPT_BYTES
        self._runs: dict[tuple[str, str, DetectShape], Run] = {}

    def of(self, org: Org, stream: str, detect_shape: DetectShape) -> Run:
        key = (org.oid, stream, detect_shape)
        if key not in self._runs:
            self._runs[key] = Run(self, org, stream, detect_shape)
        return self._runs[key]


class Cursor:
    """A connection's place in a run."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._position = 0
        self._own: Generator | None = None
        self._skip = 0

    def next(self, count: int) -> Sequence[Record]:
        """At most `count` records; none while it catches up behind what the run keeps."""
        start = self._position
        if self._own is None:
            self._run.extend(start + count)
            records: Sequence[Record] = self._run.kept[start : start + count]
            self._position += len(records)
            if records:
                return records
            self._own, self._skip = self._run.beyond()
        if self._skip:
            self._skip -= len(self._own.take(min(GROUP, self._skip)))
            return ()
        records = self._own.take(count)
        self._run.note(start, records)
        self._position += len(records)
        return records


class Feed:
    """The records of one connection, filtered: what is offered to it, and its own run if it has one.

    What is offered waits in a buffer that is full at `max_records` or `max_bytes`; what comes then is counted in `dropped`.
    A run ends after `events` records that pass.
    """

    def __init__(
        self, selection: Selection, cursor: Cursor | None, *, events: int | None, max_records: int, max_bytes: int
    ) -> None:
        self.dropped = 0
        self.wake = asyncio.Event()
        self._selection = selection
        self._cursor = cursor
        self._left = events
        self._misses = 0
        self._max_records = max_records
        self._max_bytes = max_bytes
        self._waiting: deque[bytes] = deque()
        self._bytes = 0
        self._lose = 0

    @property
    def idle(self) -> bool:
        """Nothing to take until something is offered."""
        return not self._waiting and self._cursor is None

    def lose(self, count: int) -> None:
        """Let the next `count` records get lost, as if the reader had been slow."""
        self._lose += count

    def offer(self, records: Sequence[Record]) -> None:
        for record in self._selection.choose(records):
            if len(self._waiting) >= self._max_records or self._bytes >= self._max_bytes:
                self.dropped += 1
            else:
                self._waiting.append(record.raw)
                self._bytes += len(record.raw)
        self.wake.set()

    def take(self) -> list[bytes]:
        """The next group of lines, at most `GROUP`; an empty one does not mean the end."""
        if self._waiting:
            lines = [self._waiting.popleft() for _ in range(min(GROUP, len(self._waiting)))]
            self._bytes -= sum(map(len, lines))
        else:
            lines = self._advance()
        if self._lose and lines:
            lost = min(self._lose, len(lines))
            self._lose -= lost
            self.dropped += lost
            del lines[:lost]
        return lines

    def _advance(self) -> list[bytes]:
        if self._cursor is None:
            return []
        wanted = GROUP if self._left is None else min(GROUP, self._left)
        # without a filter the generator makes no record that nobody gets
        made = self._cursor.next(wanted if self._selection.everything else GROUP)
        lines = [record.raw for record in self._selection.choose(made)[:wanted]]
        self._misses = 0 if lines else self._misses + len(made)
        if self._left is not None:
            self._left -= len(lines)
        if self._left == 0 or self._misses >= MAX_MISSES:
            self._cursor = None
        return lines


class Live:
    """Makes the records of every stream at the configured rate and offers them to those who are connected."""

    def __init__(self, cloud: Cloud, ledger: Ledger) -> None:
        self.max_records = 4096
        self.max_bytes = 32 << 20
        self.detect_shape: DetectShape = "real"
        """Of detections generated from now on, in connections that begin from now on."""
        self._cloud = cloud
        self._ledger = ledger
        self.history = History(len(cloud.orgs))
        self._runs = Runs(ledger, self.history)
        self._feeds: dict[tuple[str, str], set[Feed]] = defaultdict(set)

    @property
    def rate(self) -> float:
        return self._cloud.settings.rate

    def subscribe(self, org: Org, stream: str, selection: Selection) -> Feed:
        """A new connection's feed; end it with `unsubscribe`."""
        cursor = Cursor(self._runs.of(org, stream, self.detect_shape)) if self.rate == 0 and stream in STREAMS else None
        events = self._cloud.settings.events
        if events == 0:
            cursor = None
        feed = Feed(selection, cursor, events=events, max_records=self.max_records, max_bytes=self.max_bytes)
        self._feeds[org.oid, stream].add(feed)
        return feed

    def unsubscribe(self, org: Org, stream: str, feed: Feed) -> None:
        self._feeds[org.oid, stream].discard(feed)

    def publish(self, oid: str, stream: str, records: Sequence[Record]) -> int:
        """Offer records to all who listen; says how many those are."""
        feeds = self._feeds[oid, stream]
        for feed in feeds:
            feed.offer(records)
        return len(feeds)

    def release(self, org: Org, stream: str, records: Sequence[Record], *, hidden: bool = False) -> None:
        """Let records that were made now take the way of all: ledger, history, and those who listen, if they may see them."""
        self._ledger.generated(stream, [record.raw for record in records])
        self.history.add(org.oid, stream, records)
        if not hidden:
            self.publish(org.oid, stream, records)

    async def run(self) -> None:
        """Generate until cancelled; at rate 0 there is nothing to do."""
        if self.rate == 0:
            return
        due = self._clock()
        lines, shape = self._generators(), self.detect_shape
        made = 0
        while True:
            if shape != self.detect_shape:
                lines, shape = self._generators(), self.detect_shape
            missing = due() - made
            made += missing
            while missing > 0:
                count = min(missing, GROUP)
                missing -= count
                for org, stream, generator in lines:
                    self.release(org, stream, generator.take(count))
                    await asyncio.sleep(0)
            await asyncio.sleep(TICK)

    def _generators(self) -> list[tuple[Org, str, Generator]]:
        start = int(time.time() * 1000)
        return [
            (
                org,
                stream,
                Generator(org.fleet, stream, org.seed, start, self.rate, detect_shape=self.detect_shape),
            )
            for org, stream in itertools.product(self._cloud.orgs.values(), STREAMS)
        ]

    def _clock(self) -> Callable[[], int]:
        start = time.monotonic()
        limit = self._cloud.settings.events

        def due() -> int:
            count = int((time.monotonic() - start) * self.rate)
            return count if limit is None else min(count, limit)

        return due
