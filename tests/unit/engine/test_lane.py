"""A lane: batching, retries, verdicts, positions and counts."""

import asyncio
import time

import pytest

from pipeline.core.batch import Batch, LogId
from pipeline.core.errors import Partial, PermissionDeniedError, Rejected, RetryLater
from pipeline.engine.lane import TURN

A, B = LogId("a"), LogId("b")


def numbered(count, start=0, size=0):
    return [b'{"n":%d,"x":"%s"}' % (number, b"x" * size) for number in range(start, start + count)]


async def test_a_write_has_at_most_max_events(bench):
    """A batch larger than the sink's limit is cut, smaller ones are put together, the order stays."""
    made = await bench(batch={"max_events": 4, "max_wait": 10})
    for start, count in ((0, 10), (10, 1), (11, 1), (12, 1), (13, 1)):
        await made.send(*numbered(count, start))
    await made.finish()
    assert made.sink.stored == numbered(14)
    assert max(map(len, made.sink.writes)) == 4


async def test_a_write_has_at_most_max_bytes(bench):
    """No write has more bytes than the limit, except that a single larger item is written alone."""
    made = await bench(batch={"max_bytes": 1000})
    sizes = (400, 400, 150, 5000, 10, 900, 600, 10)
    records = [b"{%s}" % (b"x" * size) for size in sizes]
    await made.send(*records)
    await made.finish()
    assert made.sink.stored == records
    assert all(sum(map(len, write)) <= 1000 or len(write) == 1 for write in made.sink.writes)


async def test_a_sink_gets_only_records_of_its_origins(bench, monkeypatch):
    """A batch of another origin is filtered before the sink, and counted; the position moves over it."""
    made = await bench()
    monkeypatch.setattr(type(made.sink), "origins", ("live",))
    await made.send(*numbered(2))
    log = made.logs[0]
    await made.spool.append(Batch(numbered(3, 2), log, "event", 0.0, origin="replay"))
    await made.send(*numbered(1, 5))
    await made.finish()
    assert numbered(2) + numbered(1, 5) == made.sink.stored
    assert 3 == made.lane.tallies[log].filtered
    assert 6 == made.position()


async def test_what_stems_from_one_record_stays_together(bench, stage):
    """The payloads that filters made from one record are in one write, so that a position never cuts through them."""
    made = await bench(
        filters=[stage(lambda events: [made for event in events for made in (event, event.derive({"of": event.doc["n"]}))])],
        batch={"max_events": 3},
    )  # fmt: skip
    await made.send(*numbered(5))
    await made.finish()
    assert len(made.sink.stored) == 10
    for write in made.sink.writes:
        assert len(write) % 2 == 0


async def test_company_is_waited_for(bench):
    """A write that is not full begins when max_wait is over, not before."""
    made = await bench(batch={"max_wait": 0.15})
    started = asyncio.get_running_loop().time()
    await made.send(b"{}")
    await asyncio.sleep(0.02)
    await made.send(b"{ }")
    assert await made.sink.until(2) == [b"{}", b"{ }"]
    assert len(made.sink.writes) == 1
    assert asyncio.get_running_loop().time() - started >= 0.14


async def test_hurry_ends_the_waiting(bench):
    """When room is short, what is collected is written now."""
    made = await bench(batch={"max_wait": 60})
    await made.send(b"{}")
    await made.until(lambda: made.lane.tallies[made.logs[0]].in_hand == 1)
    made.lane.hurry()
    assert await made.sink.until(1)


async def test_a_full_spool_does_not_wait_for_company(bench):
    """A lane that waits for company does not keep a full spool waiting."""
    made = await bench(batch={"max_wait": 60, "max_bytes": 1 << 30, "max_events": 10**9}, size=1 << 20)
    for start in range(40):
        await asyncio.wait_for(made.send(*numbered(1, start, size=100_000)), 2)
    await made.finish()
    assert made.sink.stored == numbered(40, 0, 100_000)


async def test_retry_later(bench):
    """A write that is to come later comes again whole, and counts once."""
    made = await bench(ask=True)
    await made.send(*numbered(3))
    for _ in range(3):
        (await made.ask()).fail(RetryLater("busy"))
    ask = await made.ask()
    assert made.board.of("sink")[0].current == "degraded"
    ask.store()
    await made.finish()
    assert made.board.of("sink")[0].current == "ok"
    assert (made.sink.stored, made.sink.writes) == (numbered(3), [numbered(3)] * 4)


async def test_the_wait_that_a_sink_asks_for(bench):
    """`after` is kept to, also where it is shorter or longer than the back-off."""
    made = await bench(ask=True)
    await made.send(b"{}")
    (await made.ask()).fail(RetryLater("busy", after=0.2))
    started = asyncio.get_running_loop().time()
    (await made.ask()).store()
    assert asyncio.get_running_loop().time() - started >= 0.19
    await made.finish()


async def test_any_other_exception_means_later(bench):
    """What a sink did not mean to raise loses nothing, and its code is told."""
    made = await bench(ask=True)
    await made.send(b"{}")
    for error, code in (
        (ValueError("bug"), "internal"),
        (PermissionDeniedError("no right"), "permission"),
        (asyncio.CancelledError(), "internal"),
    ):
        (await made.ask()).fail(error)
        await made.until(lambda code=code: made.board.of("sink")[0].code == code)
    (await made.ask()).store()
    await made.finish()
    assert made.sink.stored == [b"{}"]


async def test_a_write_that_hangs_is_broken_off(bench):
    """A write takes at most the sink's timeout and comes again."""
    made = await bench(ask=True, timeout=0.05)
    await made.send(b"{}")
    await made.ask()
    (await made.ask()).store()
    await made.finish()
    assert made.sink.stored == [b"{}"]


async def test_mixed_verdicts(bench):
    """Of one write some items are stored, some rejected, some come again, and only those."""
    made = await bench(ask=True)
    await made.send(*numbered(3))
    await made.send(*numbered(3, 3))
    first = await made.ask()
    rest = [] if len(first.payloads) == 6 else numbered(3, 3)
    first.fail(Partial({0: Rejected("size", "too large"), 2: RetryLater("busy")}))
    again = await made.ask()
    assert again.payloads == numbered(1, 2)
    again.fail(Partial({0: Rejected("odd")}))
    if rest:
        (await made.ask()).store()
    await made.finish()
    assert sorted(made.sink.stored) == sorted([*numbered(1, 1), *numbered(3, 3)])
    letters = made.buried()
    assert [(one["payload"].encode(), one["reason"], one["detail"], one["attempts"]) for one in letters] == [
        (*numbered(1, 0), "size", "too large", 1),
        (*numbered(1, 2), "odd", "", 2),
    ]
    assert made.lane.tallies[made.logs[0]].rejected == 2


async def test_a_write_that_is_rejected_whole(bench):
    """`Rejected` puts all of a write into the dead letter and the lane goes on."""
    made = await bench(ask=True)
    await made.send(*numbered(2))
    (await made.ask()).fail(Rejected("format"))
    await made.send(b"{}")
    (await made.ask()).store()
    await made.finish()
    assert [one["payload"].encode() for one in made.buried()] == numbered(2)
    assert {one["sink"] for one in made.buried()} == {"sink0"}


async def test_an_item_that_was_not_given_stores_nothing(bench):
    """A `Partial` about items that there are not is the sink's mistake, and nothing counts as stored."""
    made = await bench(ask=True)
    await made.send(*numbered(2))
    (await made.ask()).fail(Partial({2: Rejected("x")}))
    assert (await made.ask()).payloads == numbered(2)
    made.check()
    assert made.lane.tallies[made.logs[0]].delivered == 0


async def test_retries_expire_only_if_told(bench):
    """With `expires` an item that does not get through goes to the dead letter."""
    made = await bench(ask=True, retry={"expires": 0.05})
    await made.send(b"{}")
    while not made.buried():
        ask = await made.ask()
        await asyncio.sleep(0.02)
        ask.fail(RetryLater("busy"))
        await asyncio.sleep(0.02)
    await made.finish()
    assert [(one["reason"], one["payload"]) for one in made.buried()] == [("expired", "{}")]


async def test_a_position_is_a_prefix(bench):
    """With several writes at once, the position moves over what is stored without a hole before it."""
    made = await bench(ask=True, in_flight=3, batch={"max_events": 2})
    await made.send(*numbered(6))
    asks = [await made.ask() for _ in range(3)]
    asks[2].store()
    asks[1].store()
    await made.until(lambda: made.lane.tallies[made.logs[0]].delivered == 4)
    assert made.position() == 0
    asks[0].store()
    await made.until(lambda: made.position() == 6)
    await made.finish()


async def test_a_position_stops_in_the_middle_of_a_batch(bench, stage):
    """A position is the first record that is not settled, with what filters dropped before it counted in."""
    keep = stage(lambda events: [event for event in events if event.sequence not in (2, 3)])
    made = await bench(filters=[keep], ask=True, in_flight=2, batch={"max_events": 2})
    await made.send(*numbered(6))
    first, second = await made.ask(), await made.ask()
    assert (first.payloads, second.payloads) == (numbered(2), numbered(2, 4))
    first.store()
    await made.until(lambda: made.position() == 4)
    second.store()
    await made.finish()
    assert made.position() == 6


async def test_a_position_waits_for_the_dead_letter(bench, stage):
    """A record that a filter refused is settled when its letter is stored, not when another write ends."""

    def refuse(events):
        for event in events:
            if b"bad" in event.raw:
                event.reject("bad")
        return events

    made = await bench(filters=[stage(refuse)], ask=True, in_flight=2, letters=10)
    await made.send(b'{"n":1}')
    ask = await made.ask()
    await made.send(b'{"bad":1}')
    await made.until(lambda: "dead letter" in made.lane.busy_with)
    ask.store()
    await made.until(lambda: made.lane.tallies[made.logs[0]].delivered == 1)
    assert made.position() == 1
    made.letters.max_size = 1 << 20
    await made.until(lambda: made.position() == 2)
    await made.finish()


async def test_a_full_dead_letter_makes_its_lane_wait(bench):
    """While the dead letter is full, its lane waits and no other does; with room it goes on."""
    made = await bench(ask=True, sinks=2, letters=10)
    await made.send(b"{}")
    (await made.ask(0)).fail(Rejected("bad"))
    (await made.ask(1)).store()
    await made.until(lambda: made.lane.busy_with == "waiting for room in the dead letter")
    await made.send(b"{ }")
    (await made.ask(1)).store()
    assert await made.sinks[1].until(2)
    assert made.lane.waiting(made.logs[0]) == 2
    made.letters.max_size = 1 << 20
    (await made.ask(0)).store()
    await made.finish()
    assert len(made.buried()) == 1


async def test_drop_oldest(bench):
    """A stalled lane with `drop_oldest` gives up its oldest records, counts them, and keeps what it is writing."""
    made = await bench(ask=True, on_full="drop_oldest", size=1 << 20, batch={"max_events": 1})
    await made.send(*numbered(1, 0, 100_000))
    ask = await made.ask()
    for start in range(1, 30):
        await asyncio.wait_for(made.send(*numbered(1, start, 100_000)), 1)
        made.check()
    dropped = sum(made.lane.tallies[made.logs[0]].discarded.values())
    assert 0 < dropped < 29
    made.sink.asks = None
    ask.store()
    await made.finish()
    assert made.sink.stored[0] == numbered(1, 0, 100_000)[0]
    assert made.sink.stored[-1] == numbered(1, 29, 100_000)[0]
    assert len(made.sink.stored) == 30 - dropped


async def test_a_small_spool_is_never_wholly_in_hand(bench):
    """However much a write may have, a stalled lane with `drop_oldest` keeps half of a small spool free to be given up."""
    made = await bench(ask=True, on_full="drop_oldest", size=1 << 20, batch={"max_bytes": 1 << 30, "max_wait": 60})
    tally = made.lane.tallies[made.logs[0]]
    for start in range(300):
        await asyncio.wait_for(made.send(*numbered(1, start, 10_000)), 1)
        await asyncio.sleep(0)
        assert tally.in_hand * 10_000 <= 1 << 19
    dropped = sum(tally.discarded.values())
    assert dropped > 0
    ask = await made.ask()
    made.sink.asks = None
    ask.store()
    await made.finish()
    assert len(made.sink.stored) == 300 - dropped


async def test_lanes_fall_behind_alone(bench):
    """A lane that stands still does not hold up another of its route."""
    made = await bench(ask=True, sinks=2)
    await made.send(*numbered(3))
    for _ in range(5):
        (await made.ask(1)).store()
        await made.send(*numbered(1))
    (await made.ask(1)).store()
    assert len(made.sinks[0].writes) == 1
    assert len(await made.sinks[1].until(8)) == 8


async def test_logs_get_their_turns(bench):
    """A lane reads its logs in turn, so that none waits behind another's backlog."""
    made = await bench(ask=True, logs_read=[A, B], batch={"max_events": 2})
    await made.send(b"{}", b"{}", log=A)
    first = await made.ask()
    for _ in range(10):
        await made.send(b'{"a":1}', b'{"a":1}', log=A)
    await made.send(b'{"b":1}', b'{"b":1}', log=B)
    first.store()
    seen = []
    for _ in range(3):
        ask = await made.ask()
        seen += ask.payloads
        ask.store()
    assert b'{"b":1}' in seen


async def test_a_dropped_backlog_lets_others_run(bench, stage):
    """A filter that drops a whole backlog does not hold the event loop until its end."""
    turns, seen = 0, []

    async def count():
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    def work(_events):
        seen.append(turns)
        time.sleep(TURN / 2)
        return []

    made = await bench(filters=[stage(work)])
    counting = asyncio.ensure_future(count())
    for start in range(50):
        await made.send(*numbered(1, start))
    await made.until(lambda: made.lane.tallies[made.logs[0]].filtered == 50)
    counting.cancel()
    assert 20 <= len(set(seen)) <= 50


async def test_what_is_skipped_while_it_is_read(bench):
    """A batch that the spool gives up while a lane reads it counts once, as discarded, and is not written."""
    made = await bench(on_full="drop_oldest")
    read, gate, reading = made.spool.read, asyncio.Event(), asyncio.Event()

    async def slow(log, position):
        found = await read(log, position)
        if not gate.is_set():
            reading.set()
            await gate.wait()
        return found

    made.spool.read = slow
    await made.send(*numbered(2))
    batch = await made.send(*numbered(2, 2))
    await reading.wait()
    made.lane.skip(batch.log, batch.end)
    gate.set()
    await made.send(b"{}")
    assert await made.sink.until(1) == [b"{}"]
    await made.finish()
    assert made.lane.tallies[batch.log].discarded == {"spool_full": 4}


async def test_a_cancelled_lane_has_its_books_right(bench):
    """A lane that is broken off in a write still knows how many records wait, and counts them as given up once."""
    made = await bench(ask=True)
    await made.send(*numbered(3))
    await made.ask()
    await made.send(*numbered(2))
    made.tasks[0].cancel()
    with pytest.raises(asyncio.CancelledError):
        await made.tasks[0]
    made.check()
    assert made.lane.discard_rest("shutdown") == 5
    made.check()
    assert made.lane.discard_rest("shutdown") == 0


async def test_a_sink_with_marks_finishes_its_write(bench, marking):
    """A write of a sink with marks is not broken off by the end: what it stored counts as delivered."""
    made = await bench(ask=True, kind=marking)
    await made.send(*numbered(3))
    ask = await made.ask()
    made.tasks[0].cancel()
    await asyncio.sleep(0.01)
    assert not made.tasks[0].done()
    ask.store()
    await asyncio.wait(made.tasks, timeout=5)
    made.check()
    assert made.lane.tallies[made.logs[0]].delivered == 3
    assert made.position() == 3


async def test_a_late_write_of_a_sink_with_marks_is_awaited(bench, marking):
    """A write of a sink with marks that takes longer than its timeout is waited for, loudly, and not repeated."""
    made = await bench(ask=True, kind=marking, timeout=0.02)
    await made.send(b"{}")
    ask = await made.ask()
    await made.until(lambda: made.board.of("sink")[0].current == "degraded")
    ask.store()
    await made.finish()
    assert made.sink.writes == [[b"{}"]]


async def test_values_follow_their_items(bench):
    """Items that come again have their own values with them."""
    from pipeline.core.types import RecordPath

    made = await bench(ask=True, paths=[RecordPath("n"), RecordPath("no/such")])
    await made.send(*numbered(4))
    ask = await made.ask()
    assert [item.values for item in ask.items] == [{"n": str(number)} for number in range(4)]
    ask.fail(Partial({1: RetryLater(), 3: RetryLater()}))
    again = await made.ask()
    assert [item.values for item in again.items] == [{"n": "1"}, {"n": "3"}]
    again.store()
    await made.finish()


async def test_a_letter_says_whether_a_filter_changed_the_record(bench, stage):
    """A rejected payload that a filter made is marked as changed, also when it comes again."""
    change = stage(lambda events: [e.replace({"new": e.doc["n"]}) if e.doc["n"] % 2 else e for e in events])
    made = await bench(filters=[change], ask=True)
    await made.send(*numbered(4))
    (await made.ask()).fail(Partial({0: Rejected("x"), 3: RetryLater()}))
    (await made.ask()).fail(Rejected("y"))
    await made.finish()
    assert [(one["payload"], one["changed"]) for one in made.buried()] == [
        ('{"n":0,"x":""}', False),
        ('{"new":3}', True),
    ]
