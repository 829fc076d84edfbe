"""Filling gaps: when, how often, from where on, and what becomes of what fails."""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from pipeline.core.batch import Batch, LogId, Receipt
from pipeline.core.component import Org
from pipeline.core.config import SourceConfig
from pipeline.core.errors import NotFoundError, PermissionDeniedError, RequestRefusedError, UnavailableError
from pipeline.core.source import Past, Source
from pipeline.engine import backfill, bounds
from pipeline.engine.backfill import TRIES, Filler, Filling
from pipeline.engine.dedupe import Dedupe
from pipeline.engine.gaps import GapLedger
from pipeline.engine.route import Route
from pipeline.kit import log as logs
from pipeline.limacharlie.backfill import Backfill
from pipeline.testing import FakeClock, context

LOG = LogId("tap")


class TapConfig(SourceConfig):
    type: str = "tap"
    backfill: Backfill = True


class Tap(Source[TapConfig]):
    """Has a history that a test writes: pieces, and errors in between."""

    def __init__(self, config: TapConfig) -> None:
        super().__init__(config, context("tap"))
        self.pieces: list[Past | Exception] = []
        self.asked: list[tuple[float, float, str]] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def history(self, org: Org, start: float, end: float, progress: str) -> AsyncIterator[Past]:
        del org
        self.asked.append((start, end, progress))
        for piece in list(self.pieces):
            await self.gate.wait()
            if isinstance(piece, Exception):
                self.pieces.remove(piece)
                raise piece
            if not piece.progress or piece.progress > progress:
                yield piece


class Taken:
    """Stands where the intake does."""

    def __init__(self) -> None:
        self.records: list[bytes] = []
        self.first = asyncio.Event()

    async def send(self, raws, stream=None, org=None, origin="live"):
        assert (stream, org, origin) == (None, "", "backfill")
        self.records += raws
        self.first.set()
        return Receipt(count=len(raws))


def event(number: int) -> bytes:
    return b'{"routing":{"event_id":"%d"}}' % number


class Bench:
    def __init__(self, *, automatic: bool = True, dedupe: bool = True) -> None:
        self.clock = FakeClock()
        self.gaps = GapLedger(self.clock)
        self.tap = Tap(TapConfig(backfill=automatic))
        self.taken = Taken()
        self.dedupe = Dedupe("all", window=3600, entries=1000, clock=self.clock, durable=True)
        self.filler = Filler(self.gaps, self.clock, logs.get())
        self.filler.places[LOG] = Filling(self.tap, Org(), self.taken, [self.dedupe if dedupe else None])
        self.stopping = asyncio.Event()
        now = self.clock.now()
        self.gap = self.gaps.interval(LOG, now - 30, now, "restart")

    def deliver(self, *numbers: int) -> None:
        batch = Batch([event(number) for number in numbers], LOG, "event", 0.0)
        batch.first = 1000
        Route("all", [], [], logs.get(), lambda *_: None, dedupe=self.dedupe.apply).step(batch, 1000)

    async def until(self, holds) -> None:
        async with asyncio.timeout(5):
            while not holds():
                await asyncio.sleep(0.002)


@pytest.fixture
async def bench(monkeypatch):
    monkeypatch.setattr(backfill, "LOOK", 0.002)
    made: list[tuple[Bench, asyncio.Task[None]]] = []

    def make(**how) -> Bench:
        one = Bench(**how)
        made.append((one, asyncio.ensure_future(one.filler.run(one.stopping))))
        return one

    yield make
    for one, task in made:
        one.stopping.set()
        await asyncio.wait_for(task, 5)


async def test_after_the_delay_what_is_not_known_is_taken(bench):
    """The window is the gap with its margins, after the delay; what was delivered is not taken again, and all is counted."""
    one = bench()
    one.deliver(1, 2)
    one.tap.pieces = [Past([event(1), event(3)], ""), Past([event(2), event(4), event(5)], "")]
    one.clock.advance(299)
    await asyncio.sleep(0.02)
    assert one.tap.asked == []
    one.clock.advance(2)
    await one.until(lambda: one.gap.state == "filled")
    assert one.tap.asked == [(one.gap.start - 60, one.gap.end + 60, "")]
    assert one.taken.records == [event(3), event(4), event(5)]
    assert (one.gap.fetched, one.gap.known, one.gap.added) == (5, 2, 3)


async def test_a_failure_is_tried_again_from_where_it_was(bench):
    """After a temporary failure the walk goes on behind the last piece that is safe, and counts each record once."""
    one = bench()
    one.tap.pieces = [Past([event(1)], "a"), Past([event(2)], ""), UnavailableError("away"), Past([event(3)], "b")]
    one.clock.advance(301)
    await one.until(lambda: one.gap.text == "away" and one.gap.state == "closed")
    one.clock.advance(3600)
    await one.until(lambda: one.gap.state == "filled")
    assert [progress for *_, progress in one.tap.asked] == ["", "a"]
    assert (one.gap.fetched, one.gap.attempts, one.gap.text) == (3, 2, "")


async def test_a_history_without_an_end_is_bounded(bench, monkeypatch):
    """When more comes than such an interval can hold, the gap stays open with the reason, and is tried again later."""
    monkeypatch.setattr(bounds, "LEAST", 100_000)
    monkeypatch.setattr(bounds, "RATE", 100)
    one = bench()
    one.tap.pieces = [Past([event(number)], "") for number in range(10_000)]
    one.clock.advance(301)
    await one.until(lambda: one.gap.text)
    assert (one.gap.state, one.gap.attempts) == ("closed", 1)
    assert "did not come to an end" in one.gap.text
    assert len(b"".join(one.taken.records)) <= 100_000 + 100 * (one.gap.end - one.gap.start + 120)
    one.tap.pieces = one.tap.pieces[:10]
    one.clock.advance(3600)
    await one.until(lambda: one.gap.state == "filled")


async def test_what_cannot_work_is_given_up(bench):
    """A missing permission ends it at once, a cloud that stays away after some tries; both say why, and can be asked for again."""
    one = bench()
    one.tap.pieces = [PermissionDeniedError("insight.evt.get is missing")]
    one.clock.advance(301)
    await one.until(lambda: one.gap.state == "given_up")
    assert "insight.evt.get" in one.gap.text
    one.tap.pieces = [UnavailableError("away") for _ in range(TRIES)]
    assert one.filler.want([one.gap.number]) == [one.gap]
    while one.tap.pieces:
        one.clock.advance(3600)
        await asyncio.sleep(0.002)
    await one.until(lambda: one.gap.state == "given_up")
    assert one.gap.attempts == TRIES
    one.filler.want([one.gap.number])
    await one.until(lambda: one.gap.state == "filled")


async def test_without_backfill_only_what_is_asked_for_is_filled(bench):
    """A source without `backfill`, and what was given up for lack of room, wait for somebody to ask."""
    one = bench(automatic=False)
    other = bench()
    shed = other.gaps.interval(LOG, other.clock.now() - 5, other.clock.now(), "shed", 7)
    for each in (one, other):
        each.clock.advance(1000)
    await other.until(lambda: other.gap.state == "filled")
    await asyncio.sleep(0.02)
    assert (one.gap.state, shed.state) == ("closed", "closed")
    one.filler.want(None)
    other.filler.want([shed.number])
    await one.until(lambda: one.gap.state == shed.state == "filled")


async def test_a_gap_is_filled_at_the_rate_that_was_asked_for(bench):
    """Its records come a few at a time, not faster than that; later requests without a rate are not held up by it."""
    one = bench()
    one.tap.pieces = [Past([event(number) for number in range(40)], "")]
    one.filler.want([one.gap.number], rate=100)
    began = time.monotonic()
    await one.until(lambda: one.gap.state == "filled")
    assert time.monotonic() - began >= 0.25
    assert one.taken.records == [event(number) for number in range(40)]
    assert (one.gap.added, one.gap.rate) == (40, None)


async def test_what_cannot_be_filled_is_refused(bench):
    """A gap that lasts, an unknown one, one of a source without dedupe: each is refused with its reason; asking for all skips it."""
    one = bench()
    one.gaps.opened(LOG, one.clock.now(), "broken")
    lasting = one.gaps.lasting[0]
    with pytest.raises(RequestRefusedError, match="still lasts"):
        one.filler.want([one.gap.number, lasting.number])
    with pytest.raises(NotFoundError, match="no gap 77"):
        one.filler.want([77])
    assert one.filler.want(None) == [one.gap]
    without = bench(dedupe=False)
    with pytest.raises(RequestRefusedError, match="dedupe"):
        without.filler.want([without.gap.number])


async def test_a_stop_leaves_the_rest_for_the_next_start(bench):
    """Broken off in the middle, a gap is not filled; the next life goes on behind what is safe."""
    one = bench()
    one.tap.pieces = [Past([event(1)], "a"), Past([event(2)], "b")]
    one.tap.gate.clear()
    one.clock.advance(301)
    await one.until(lambda: bool(one.tap.asked))
    one.stopping.set()
    await one.until(lambda: one.gap.state == "closed")
    one.tap.gate.set()
    again = GapLedger(one.clock)
    again.restore(one.gaps.take(), ())
    (gap,) = again
    assert (gap.state, gap.progress, one.taken.records) == ("closed", "", [])


async def test_gaps_of_a_connection_that_flaps_are_filled_with_one_walk(bench):
    """Gaps whose windows touch wait for each other, within reason, and cost the requests of one."""
    one = bench()
    for _ in range(20):
        one.clock.advance(20)
        one.gaps.opened(LOG, one.clock.now(), "broken")
        one.clock.advance(1)
        one.gaps.closed(LOG)
        await asyncio.sleep(0.003)
    assert one.tap.asked == []
    one.clock.advance(301)
    await one.until(lambda: all(gap.state == "filled" for gap in one.gaps))
    assert one.tap.asked == [(one.gap.start - 60, one.clock.now() - 301 + 60, "")]
    far = one.gaps.interval(LOG, one.clock.now(), one.clock.now() + 1, "broken")
    one.clock.advance(1000)
    await one.until(lambda: far.state == "filled")
    assert len(one.tap.asked) == 2


async def test_a_gap_does_not_wait_for_ever_for_others(bench):
    """Where a connection never comes to rest, what is old is filled all the same."""
    one = bench()
    while not one.tap.asked:
        one.clock.advance(50)
        one.gaps.opened(LOG, one.clock.now(), "broken")
        one.gaps.closed(LOG)
        await asyncio.sleep(0.003)
        assert one.clock.now() < one.gap.end + 13 * 300
    await one.until(lambda: one.gap.state == "filled")
