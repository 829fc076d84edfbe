"""A lane that is told to leave finishes what its sink has in hand; all else stays in the spool."""

import asyncio
import time

import pytest

from pipeline.core.errors import Partial, Rejected, RetryLater, UnavailableError
from pipeline.engine import delivery

ABC = (b'{"n":1}', b'{"n":2}', b'{"n":3}')
LONG = {"base": 60, "cap": 60}


async def left(one, *tasks):
    """Tell the lanes to leave, and return when they have."""
    for lane in one.lanes:
        lane.leave()
    await asyncio.wait_for(asyncio.gather(*one.tasks, *tasks), 5)
    one.check()


async def test_a_write_in_the_sinks_hands_is_finished(bench):
    """What the sink has when the lane is told to leave is stored and settled; what waits behind it is not begun."""
    one = await bench(ask=True, batch={"max_events": 2})
    await one.send(*ABC)
    ask = await one.ask()
    one.lane.leave()
    await asyncio.sleep(0)
    assert not one.tasks[0].done()
    ask.store()
    await left(one)
    assert (one.sink.stored, one.position(), one.lane.waiting(one.logs[0])) == ([*ABC[:2]], 2, 1)


async def test_a_wait_between_two_tries_is_broken_off(bench):
    """A lane that waits to try again ends at once: what is stored up to the first hole is settled, the rest stays."""
    one = await bench(ask=True, retry=LONG)
    await one.send(*ABC)
    (await one.ask()).fail(Partial({1: RetryLater("busy")}))
    await one.until(lambda: "waiting to try again" in one.lane.busy_with)
    await left(one)
    assert (one.position(), one.lane.waiting(one.logs[0]), one.lane.tallies[one.logs[0]].delivered) == (1, 1, 2)


async def test_nothing_is_tried_again_after_leaving(bench):
    """A write that fails while the lane leaves is not repeated."""
    one = await bench(ask=True)
    await one.send(*ABC)
    ask = await one.ask()
    one.lane.leave()
    ask.fail(RetryLater("busy", after=0))
    await left(one)
    assert (len(one.sink.writes), one.position(), one.lane.waiting(one.logs[0])) == (1, 0, 3)


@pytest.mark.parametrize("who", ["filter", "sink"])
async def test_a_wait_for_room_in_the_dead_letter_is_broken_off(bench, stage, who):
    """Records that were refused stay in the spool when their letters find no room; those that were stored before them do not."""

    def refuse(events):
        return [event for event in events if b"2" not in event.raw or event.reject("no")]

    one = await bench(ask=True, letters=1, filters=[stage(refuse)] if who == "filter" else [])
    await one.send(*ABC)
    if who == "sink":
        (await one.ask()).fail(Partial({1: Rejected("bad"), 2: RetryLater("busy")}))
    await one.until(lambda: "dead letter" in one.lane.busy_with)
    await left(one)
    expected = {"filter": (0, 3, []), "sink": (1, 2, [ABC[0]])}[who]
    assert (one.position(), one.lane.waiting(one.logs[0]), one.sink.stored) == expected
    assert one.buried() == []


async def test_a_sink_that_never_opened_is_not_waited_for(bench):
    """Lanes whose sink cannot be opened leave at once, and everything stays."""
    one = await bench()
    runner = delivery.SinkRunner(one.sink, one.lane.runner.config, one.lane.runner.status, one.lane.runner.log)
    one.lane.runner = one.lane._writing._runner = runner
    await one.send(*ABC)
    await one.until(lambda: "attempt 1" in one.lane.busy_with)
    await left(one)
    assert (one.position(), one.lane.waiting(one.logs[0]), one.sink.writes) == (0, 3, [])


@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_sink_that_does_not_work_is_not_waited_for_long(bench, monkeypatch, when):
    """A write that hangs in a sink which is known not to work, or says so meanwhile, is broken off before its timeout."""
    monkeypatch.setattr(delivery, "FAREWELL", 0.1)
    one = await bench(ask=True, timeout=60)
    await one.send(*ABC)
    await one.ask()
    away = UnavailableError("nobody is there")
    began = time.monotonic()
    if when == "before":
        one.lane.runner.failed(away, "The sink is away.")
    one.lane.leave()
    if when == "after":
        await asyncio.sleep(0.2)
        assert not one.tasks[0].done()
        one.lane.runner.failed(away, "The sink is away.")
        one.lane.runner.hurry()
    await left(one)
    assert time.monotonic() - began < 3
    assert (one.position(), one.lane.waiting(one.logs[0])) == (0, 3)
