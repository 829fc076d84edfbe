"""The life of a process: starting, stopping, what is given up, and what ends it."""

import asyncio
import os
import random
import signal

import pytest

from pipeline import (
    AuthenticationError,
    ConfigError,
    Filter,
    FilterConfig,
    Org,
    Partial,
    Rejected,
    RetryLater,
    Sink,
    SinkConfig,
    Source,
    SourceConfig,
)
from pipeline.config.model import Config
from pipeline.config.registry import Registry
from pipeline.engine.build import build
from pipeline.engine.runner import Runner
from pipeline.kit.clock import SystemClock


class SourceToy(SourceConfig):
    count: int = 5
    lasts: bool = False
    deaf: bool = False


class Counting(Source[SourceToy]):
    """Sends ``count`` records; then ends, or waits for the stop, or (``deaf``) for ever."""

    def __init__(self, *given):
        super().__init__(*given)
        self.opening: Exception | None = None
        self.fault: list[Exception] = []
        """Raised one after the other by the first runs."""
        self.story: list[str] = []

    async def open(self):
        if self.opening is not None:
            raise self.opening

    async def run(self, outlet):
        if self.fault:
            raise self.fault.pop(0)
        for number in range(self.config.count):
            await outlet.send([b'{"n":%d}' % number])
        if self.config.deaf:
            await asyncio.Event().wait()
        if self.config.lasts:
            await self.stopping.wait()
        self.story.append(f"{self.id} ends")

    async def close(self):
        self.story.append(f"{self.id} closes")


class Telling(Source[SourceToy]):
    """Cannot log in, and says so over and over."""

    tells_state = True

    async def run(self, outlet):
        while not self.stopping.is_set():
            self.report.state("failed", "the key was revoked", AuthenticationError.code)
            await self.sleep(0.01)


class Held(Source[SourceToy]):
    """Has read something when it is told to stop that waits for room in the spool until `room` is set."""

    misses_while_away = True

    def __init__(self, *given):
        super().__init__(*given)
        self.room = asyncio.Event()

    async def run(self, outlet):
        await outlet.send([b'{"n":0}'])
        await self.stopping.wait()
        await self.room.wait()


class SinkToy(SinkConfig):
    gated: bool = False


class Collecting(Sink[SinkToy]):
    """Keeps payloads; when ``gated`` only after `gate` is set."""

    def __init__(self, *given):
        super().__init__(*given)
        self.stored: list[bytes] = []
        self.gate = asyncio.Event()
        self.began = asyncio.Event()
        self.openings: list[Exception] = []
        self.decide = lambda _items: None
        self.story: list[str] = []

    async def open(self, marks):
        if self.openings:
            raise self.openings.pop(0)

    async def write(self, items):
        self.began.set()
        if self.config.gated:
            await self.gate.wait()
        failed = ()
        try:
            self.decide(items)
        except Partial as partial:
            failed = partial.failures
            raise
        except BaseException:
            failed = range(len(items))
            raise
        finally:
            self.stored += [item.payload for index, item in enumerate(items) if index not in failed]
        self.story.append(f"{self.id} stores")

    async def close(self):
        self.story.append(f"{self.id} closes")


class Passing(Filter[FilterConfig]):
    """Passes everything, and does not close cleanly."""

    def apply(self, events):
        return events

    def close(self):
        raise RuntimeError("cannot close")


class Toys(Registry):
    def component(self, kind, name):
        return {"counting": Counting, "telling": Telling, "held": Held, "collecting": Collecting, "passing": Passing}[
            name
        ]


SINK = {"type": "collecting", "batch": {"max_wait": 0}, "retry": {"base": 0.01, "cap": 0.02}}


@pytest.fixture
def make(tmp_path):
    """Makes a runner of toys, with one route from all sources to all sinks."""

    def build_one(sources=None, sinks=None, filters=(), **sections):
        sources = sources or {"counting": {"type": "counting"}}
        sinks = sinks or {"one": SINK}
        toys = Toys()
        config = Config.model_validate(
            {
                "sources": sources,
                "sinks": sinks,
                "routes": {"all": {"from": list(sources), "to": list(sinks), "filters": filters}},
                "dead_letter": {"path": str(tmp_path / "letters")},
                **sections,
            },
            context={"registry": toys},
        )
        return Runner(build(config, {"": Org()}, SystemClock(), toys))

    return build_one


def lasting(**keys):
    return {"counting": {"type": "counting", "lasts": True, **keys}}


def sink_of(runner, name="one"):
    return runner.plan.sinks[name].sink


async def until(condition):
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.002)


async def test_the_order_of_a_stop(make):
    """Sources end first, then what they brought is stored, then everything is closed."""
    runner = make(lasting(), {"one": {**SINK, "gated": True}})
    story = []
    runner.plan.sources[0].source.story = story
    sink_of(runner).story = story
    task = asyncio.ensure_future(runner.run())
    await sink_of(runner).began.wait()
    runner.stop()
    await until(lambda: story)
    sink_of(runner).gate.set()
    summary = await task
    assert story[0] == "counting ends"
    assert story[-2:] == ["counting closes", "one closes"]
    assert set(story[1:-2]) == {"one stores"}
    assert len(sink_of(runner).stored) == 5
    assert (summary.exit_code, summary.lanes[0].waiting, summary.lanes[0].delivered) == (0, 0, 5)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_stops(make, number):
    """SIGTERM and SIGINT stop the process in order, and afterwards are not ours any more."""
    runner = make(lasting())
    task = asyncio.ensure_future(runner.run())
    await until(lambda: len(sink_of(runner).stored) == 5)
    os.kill(os.getpid(), number)
    summary = await asyncio.wait_for(task, 5)
    assert (summary.exit_code, runner.reason) == (0, f"received {number.name}")
    assert signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler)


async def test_a_second_request_ends_at_once(make):
    """Asked twice, the process ends now; what waits is counted as given up and the exit code is 1."""
    runner = make(lasting(), {"one": {**SINK, "gated": True}}, stop_timeout=60)
    task = asyncio.ensure_future(runner.run())
    await sink_of(runner).began.wait()
    await until(lambda: runner.plan.spool.stats()[runner.plan.logs[0]].received == 5)
    runner.stop()
    runner.stop()
    summary = await asyncio.wait_for(task, 5)
    assert (summary.exit_code, summary.lanes[0].discarded) == (1, 5)
    assert summary.lanes[0].adds_up


async def test_one_request_while_it_stops_anyway_does_not_force(make):
    """A first Ctrl-C while a process drains because its sources are at their end gives nothing up."""
    runner = make(sinks={"one": {**SINK, "gated": True}})
    task = asyncio.ensure_future(runner.run())
    await until(lambda: runner.health.phase == "draining")
    runner.stop()
    await asyncio.sleep(0.02)
    sink_of(runner).gate.set()
    summary = await asyncio.wait_for(task, 5)
    assert (summary.exit_code, len(sink_of(runner).stored)) == (0, 5)


async def test_a_source_that_does_not_end(make):
    """A source that does not heed the stop is broken off in time for the lanes to finish."""
    runner = make(lasting(deaf=True), stop_timeout=1)
    task = asyncio.ensure_future(runner.run())
    await until(lambda: len(sink_of(runner).stored) == 5)
    runner.stop()
    summary = await asyncio.wait_for(task, 5)
    assert (summary.exit_code, summary.lanes[0].delivered) == (0, 5)


async def test_a_stop_that_waits_for_room_hides_no_gap(make, tmp_path):
    """What comes while a source that was told to stop still waits for a full spool is missing: the gap begins at the stop."""
    spool = {"type": "disk", "path": str(tmp_path / "spool")}
    runner = make({"held": {"type": "held"}}, spool=spool)
    task = asyncio.ensure_future(runner.run())
    await until(lambda: len(sink_of(runner).stored) == 1)
    runner.stop()
    await until(lambda: runner.health.phase == "draining")
    stopped = runner.clock.now()
    await asyncio.sleep(0.3)  # the time is what counts
    runner.plan.sources[0].source.room.set()
    assert (await asyncio.wait_for(task, 5)).exit_code == 0
    again = make({"held": {"type": "held"}}, spool=spool)
    task = asyncio.ensure_future(again.run())
    await until(lambda: again.health.phase == "ready")
    (gap,) = again.plan.board.gaps
    assert gap.reason == "restart"
    assert gap.start < stopped + 0.1
    again.plan.sources[0].source.room.set()
    again.stop()
    await asyncio.wait_for(task, 5)


async def test_a_lost_database_hides_no_gap(make, tmp_path):
    """Without what the database knew, the time that we were not there counts from the last record that is kept."""
    spool = {"type": "disk", "path": str(tmp_path / "spool")}
    sources = {"held": {"type": "held"}}
    runner = make(sources, spool=spool)
    runner.plan.sources[0].source.room.set()
    task = asyncio.ensure_future(runner.run())
    await until(lambda: len(sink_of(runner).stored) == 1)
    runner.stop()
    await asyncio.wait_for(task, 5)
    received = runner.clock.now()
    for file in (tmp_path / "spool").glob("state.db*"):
        file.unlink()
    again = make(sources, spool=spool)
    again.plan.sources[0].source.room.set()
    task = asyncio.ensure_future(again.run())
    await until(lambda: again.health.phase == "ready")
    (gap,) = again.plan.board.gaps
    assert (gap.reason, gap.state) == ("restart", "open")
    assert received - 5 < gap.start <= received
    again.stop()
    await asyncio.wait_for(task, 5)


async def test_a_source_that_fails_is_started_again(make):
    """A source's exception is counted and shown, and the source runs again after a while."""
    runner = make()
    runner.plan.sources[0].source.fault = [RuntimeError("bug")]
    task = asyncio.ensure_future(runner.run())
    status = runner.plan.sources[0].status
    await until(lambda: status.current == "failed")
    assert (status.code, status.text) == ("internal", "bug")
    summary = await asyncio.wait_for(task, 10)
    assert (summary.exit_code, len(sink_of(runner).stored), status.errors) == (0, 5, {"internal": 1})


async def test_exit_2_when_no_source_can_log_in(make):
    """When the credentials of all sources are refused, the process ends with 2."""
    runner = make({"one": {"type": "telling"}, "two": {"type": "telling"}}, {"sink": SINK})
    summary = await asyncio.wait_for(runner.run(), 5)
    assert summary.exit_code == 2


async def test_one_source_that_can_log_in_is_enough(make):
    """While one source works, refused credentials of another are no end."""
    runner = make({"counting": {"type": "counting", "lasts": True}, "revoked": {"type": "telling"}})
    task = asyncio.ensure_future(runner.run())
    await until(lambda: runner.plan.sources[1].status.current == "failed")
    await until(lambda: len(sink_of(runner).stored) == 5)
    assert not task.done()
    runner.stop()
    assert (await task).exit_code == 0


async def test_a_start_that_is_impossible(make):
    """A source that cannot bind ends the start with its own error, or with one that holds them all, and all is closed."""
    runner = make({"one": {"type": "counting"}, "two": {"type": "counting"}}, {"sink": SINK})
    runner.plan.sources[0].source.opening = ConfigError("the port is taken", where="sources.one")
    story = sink_of(runner, "sink").story
    with pytest.raises(ConfigError, match="port is taken"):
        await runner.run()
    assert story == ["sink closes"]

    runner = make({"one": {"type": "counting"}, "two": {"type": "counting"}}, {"sink": SINK})
    for run in runner.plan.sources:
        run.source.opening = ConfigError("the port is taken", where=run.source.id)
    with pytest.raises(ConfigError) as caught:
        await runner.run()
    assert [problem.where for problem in caught.value.problems] == ["one", "two"]


async def test_a_sink_that_is_away_at_the_start(make):
    """A sink that cannot be opened does not keep the process from being ready, and gets everything when it can."""
    runner = make(lasting())
    sink_of(runner).openings = [RetryLater("away", after=0.05), OSError("odd")]
    task = asyncio.ensure_future(runner.run())
    await until(lambda: runner.plan.sinks["one"].status.current == "degraded")
    assert runner.health.ready
    await until(lambda: len(sink_of(runner).stored) == 5)
    assert runner.plan.sinks["one"].status.current == "ok"
    runner.stop()
    assert (await task).exit_code == 0


async def test_a_closed_pipe(make):
    """When the reader of a sink has gone, the process ends with 0, and the other sinks get all there is.

    One request to stop meanwhile changes nothing about that.
    """
    runner = make(lasting(), {"pipe": SINK, "one": {**SINK, "gated": True}})
    pipe = sink_of(runner, "pipe")

    def gone(_items):
        pipe.report.state("failed", "gone", "closed_pipe")
        raise RetryLater("gone")

    pipe.decide = gone
    task = asyncio.ensure_future(runner.run())
    await until(lambda: runner.health.phase == "draining")
    runner.stop()
    await asyncio.sleep(0.02)
    sink_of(runner).gate.set()
    summary = await asyncio.wait_for(task, 5)
    counts = {lane.sink: lane for lane in summary.lanes}
    assert (summary.exit_code, counts["one"].delivered) == (0, counts["one"].received)
    assert counts["pipe"].discarded == counts["pipe"].received
    assert counts["pipe"].adds_up


async def test_a_lane_that_crashes_ends_the_process(make, monkeypatch):
    """A bug in a lane ends the process with 1, in order, instead of hanging or leaving records unread."""
    runner = make(lasting(count=1), {"one": SINK, "two": SINK}, stop_timeout=2)
    lane = runner.plan.lanes[0]

    def bug(_batch, _payload):
        raise RuntimeError("bug")

    monkeypatch.setattr(lane, "_delivered", bug)
    summary = await asyncio.wait_for(runner.run(), 10)
    assert summary.exit_code == 1
    assert lane.id in runner.reason
    counts = {one.sink: one for one in summary.lanes}
    assert counts["two"].delivered == counts["two"].received
    assert all(one.adds_up for one in summary.lanes)


async def test_what_does_not_close_does_not_keep_the_rest_from_closing(make):
    """A filter that fails to close costs a log line, nothing else."""
    runner = make(filters=[{"type": "passing"}])
    summary = await runner.run()
    assert (summary.exit_code, len(sink_of(runner).stored)) == (0, 5)


@pytest.mark.timeout(60)  # it looks all the time, so it needs the processor for itself
async def test_the_books_are_right_at_every_moment(make):
    """With sinks that fail in all ways they can, every scrape while it runs, and the end, add up."""
    rng = random.Random(7)
    sinks = {
        f"sink{number}": {**SINK, "in_flight": number + 1, "batch": {"max_wait": 0, "max_events": 7}}
        for number in range(3)
    }
    runner = make({"counting": {"type": "counting", "count": 150}}, sinks)

    def decide(items):
        match rng.randrange(6):
            case 0:
                raise RetryLater("busy", after=0.001)
            case 1:
                raise Rejected("bad")
            case 2:
                raise ValueError("bug")
            case 3:
                verdicts = (RetryLater("busy"), Rejected("odd"))
                raise Partial({index: rng.choice(verdicts) for index in range(len(items)) if rng.random() < 0.5})

    for name in sinks:
        sink_of(runner, name).decide = decide
    task = asyncio.ensure_future(runner.run())
    await until(lambda: runner.health.phase != "starting")
    while not task.done():
        assert runner.plan.meters.conservation_error() == 0
        await asyncio.sleep(0)
    summary = task.result()
    assert all(lane.adds_up and lane.waiting == 0 for lane in summary.lanes)
    for lane in summary.lanes:
        stored = sink_of(runner, lane.sink).stored
        assert len(stored) == len(set(stored)) == lane.delivered == 150 - lane.rejected
