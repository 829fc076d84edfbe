"""The gap ledger: what is missing, and that a restart forgets none of it."""

from types import SimpleNamespace

import pytest

from pipeline.core.batch import Batch, LogId
from pipeline.engine.arrivals import EVERY, MOST, Arrivals
from pipeline.engine.gaps import HEARD, MAX_GAPS, TABLE, GapLedger
from pipeline.engine.watch import Watch
from pipeline.kit import log as logs
from pipeline.testing import FakeClock

TAP = LogId("tap", "acme")
OTHER = LogId("other")


class Disk:
    """What a spool would keep."""

    def __init__(self):
        self.facts = {TABLE: {}, HEARD: {}}

    def commit(self, ledger):
        for table, rows in ledger.take().items():
            for key, value in rows.items():
                if value is None:
                    del self.facts[table][key]
                else:
                    self.facts[table][key] = value


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def disk():
    return Disk()


def life(clock, disk, away=(TAP,)):
    ledger = GapLedger(clock)
    ledger.restore(disk.facts, away)
    return ledger


def brief(ledger):
    return [(gap.log, gap.reason, gap.state) for gap in ledger]


def test_seconds_grow_while_a_gap_lasts(clock):
    """An open gap counts up to now, an ended one up to its end, and the sum never goes back."""
    ledger = GapLedger(clock)
    start = clock.now()
    clock.advance(2)
    ledger.opened(TAP, start, "broken")
    assert ledger.seconds()[TAP] == 2
    clock.advance(3)
    ledger.opened(TAP, clock.now(), "connect")
    assert ledger.seconds()[TAP] == 5
    gap = ledger.closed(TAP)
    clock.advance(10)
    assert (gap.reason, gap.seconds(clock.now()), ledger.seconds()[TAP]) == ("broken", 5, 5)
    assert ledger.closed(TAP) is None


def test_a_clock_that_is_set_back_hides_no_gap(disk):
    """What a clock that was an hour ahead said is forgotten once it is right: the next outage is a gap, and not one of the future."""
    times = [4600.0]
    clock = SimpleNamespace(now=lambda: times[-1])
    ledger = life(clock, disk)
    ledger.heard(TAP, 4600.0)
    ledger.opened(TAP, 4600.0, "broken")
    times.append(1010.0)
    gap = ledger.closed(TAP)
    assert (gap.start, gap.end) == (1010.0, 1010.0)
    ledger.heard(TAP, 1010.0)
    disk.commit(ledger)
    times.append(1040.0)
    assert [(gap.reason, gap.start) for gap in life(clock, disk)] == [("broken", 1010.0), ("restart", 1010.0)]
    times.append(900.0)
    assert [gap.start for gap in life(clock, disk)] == [1010.0, 900.0]


def test_the_time_that_we_were_not_there_is_a_gap(clock, disk):
    """From the last committed receipt to the first connection; a source that loses nothing while away has none."""
    ledger = life(clock, disk)
    ledger.heard(TAP, clock.now())
    ledger.heard(OTHER, clock.now())
    disk.commit(ledger)
    last = clock.now()
    clock.advance(1)
    ledger.heard(TAP, clock.now())  # killed before this was committed
    clock.advance(30)
    ledger = life(clock, disk)
    assert brief(ledger) == [(TAP, "restart", "open")]
    clock.advance(4)
    gap = ledger.closed(TAP)
    assert (gap.start, gap.end) == (last, last + 35)


def test_a_gap_that_lasts_goes_on_in_the_next_life(clock, disk):
    """A disconnect, a stop and a start make one gap; closed gaps are still there."""
    ledger = life(clock, disk)
    ledger.heard(TAP, clock.now())
    ledger.interval(TAP, clock.now() - 5, clock.now() - 4, "dropped", 7)
    ledger.opened(TAP, clock.now(), "silent")
    assert [gap.reason for gap in ledger.end()] == ["silent"]
    disk.commit(ledger)
    clock.advance(60)
    ledger = life(clock, disk)
    assert brief(ledger) == [(TAP, "dropped", "closed"), (TAP, "silent", "open")]
    assert ledger.closed(TAP).seconds(clock.now()) == 60
    assert [gap.records for gap in ledger] == [7, 0]


def test_a_gap_of_a_source_that_is_gone_ends(clock, disk):
    """Once the configuration has a source no more, its open gap does not grow for ever."""
    ledger = life(clock, disk)
    ledger.heard(TAP, clock.now())
    ledger.opened(TAP, clock.now(), "silent")
    disk.commit(ledger)
    clock.advance(60)
    ledger = life(clock, disk, away=())
    clock.advance(60)
    assert [(gap.state, gap.seconds(clock.now())) for gap in ledger] == [("closed", 60)]


def test_an_orderly_stop_leaves_no_doubt_about_the_time_before(clock, disk):
    """A quiet source that was connected to the end misses what came from the stop on, and nothing before."""
    ledger = life(clock, disk)
    ledger.heard(TAP, clock.now())
    clock.advance(3600)
    ledger.stopped(TAP, clock.now())
    disk.commit(ledger)
    clock.advance(5)
    ledger = life(clock, disk)
    assert ledger.closed(TAP).seconds(clock.now()) == 5


def test_what_never_flowed_is_no_gap(clock, disk):
    """A source that never got through leaves nothing behind when the process ends."""
    ledger = life(clock, disk)
    ledger.opened(TAP, clock.now(), "connect")
    disk.commit(ledger)
    assert ledger.end() == []
    ledger.stopped(TAP, clock.now())
    disk.commit(ledger)
    assert disk.facts == {TABLE: {}, HEARD: {}}


def test_intervals_that_touch_are_one(clock):
    """A cloud that drops again and again makes one gap with all the records, and an interval elsewhere another."""
    ledger = GapLedger(clock)
    for second in range(5):
        ledger.interval(TAP, 1000.0 + second, 1001.5 + second, "dropped", 3)
    ledger.interval(TAP, 1010.0, 1011.0, "dropped", 1)
    ledger.interval(OTHER, 1000.0, 1001.0, "dropped", 1)
    assert [(gap.log, gap.start, gap.end, gap.records) for gap in ledger] == [
        (TAP, 1000.0, 1005.5, 15), (TAP, 1010.0, 1011.0, 1), (OTHER, 1000.0, 1001.0, 1),
    ]  # fmt: skip
    assert ledger.seconds()[TAP] == 6.5


def test_the_ledger_is_bounded(clock, disk):
    """A connection that flaps for weeks fills no disk; what is not filled yet stays covered."""
    ledger = life(clock, disk)
    for _ in range(MAX_GAPS + 500):
        ledger.opened(TAP, clock.now(), "broken")
        clock.advance(1)
        ledger.closed(TAP)
        clock.advance(1)
        disk.commit(ledger)
    gaps = list(life(clock, disk))
    assert len(gaps) == MAX_GAPS
    start = clock.now() - 2 * (MAX_GAPS + 500)
    for second in range(MAX_GAPS + 500):
        assert any(gap.start <= start + 2 * second and gap.end >= start + 2 * second + 1 for gap in gaps)


def test_what_could_not_be_committed_is_committed_later(clock, disk):
    """A failed commit forgets nothing."""
    ledger = life(clock, disk)
    ledger.heard(TAP, clock.now())
    ledger.opened(TAP, clock.now(), "broken")
    ledger.give_back(ledger.take())
    disk.commit(ledger)
    assert len(disk.facts[TABLE]) == len(disk.facts[HEARD]) == 1


def test_an_interval_of_arrivals_covers_the_records():
    """However many notes were thinned out, the interval of some records holds the times at which they came."""
    arrivals = Arrivals()
    for number in range(MOST * 3):
        arrivals.note(number * 10, 1000.0 + number * EVERY)
    for start, end in ((0, 10), (95, 120), (MOST * 20, MOST * 20 + 1), (0, MOST * 30)):
        since, until = arrivals.interval(start, end, 1e9)
        assert since <= 1000.0 + start // 10 * EVERY
        assert until >= 1000.0 + (end - 1) // 10 * EVERY


def test_shed_records_are_a_gap(clock):
    """What a lane gives up is an interval with its records, once for each stretch."""
    ledger = GapLedger(clock)
    watch = Watch(ledger, clock, logs.get())
    watch.sheds([TAP])
    for number in range(10):
        batch = Batch([b"{}"] * 10, TAP, "event", clock.now())
        batch.first = number * 10
        watch.accepted(batch)
        clock.advance(2)
    watch.shed(TAP, 0, 40)
    watch.shed(TAP, 40, 50)
    (gap,) = ledger
    assert (gap.reason, gap.records) == ("shed", 50)
    assert gap.start <= clock.now() - 20
    assert gap.end >= clock.now() - 12
