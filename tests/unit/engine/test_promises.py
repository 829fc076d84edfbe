"""What a whole plan promises at its edges, with sources and sinks made for it."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson
import pytest
import structlog

from pipeline import (
    Event,
    Filter,
    FilterConfig,
    Items,
    LogId,
    Org,
    Partial,
    Rejected,
    RetryLater,
    Sink,
    SinkConfig,
    Source,
    SourceConfig,
)
from pipeline.config.load import loads
from pipeline.config.model import Config
from pipeline.config.registry import Registry
from pipeline.engine.build import Plan, build
from pipeline.engine.promise import promise
from pipeline.engine.runner import Runner
from pipeline.kit.clock import SystemClock


class NumbersConfig(SourceConfig):
    count: int = 10
    size: int = 0
    lasts: bool = False


class Numbers(Source[NumbersConfig]):
    """Sends ``count`` records one by one, then ends, or waits for the stop."""

    async def run(self, outlet: Any) -> None:
        for number in range(self.config.count):
            await outlet.send([b'{"n":%d,"x":"%s"}' % (number, b"x" * self.config.size)])
        if self.config.lasts:
            await self.stopping.wait()


class FloodConfig(SourceConfig):
    pass


class Flood(Source[FloodConfig]):
    """Sends without end."""

    async def run(self, outlet: Any) -> None:
        while not self.stopping.is_set():
            await outlet.send([b'{"flood":1}'] * 256)
            await asyncio.sleep(0)


class KeepConfig(SinkConfig):
    verdicts: tuple[str, ...] = ()


class Keep(Sink[KeepConfig]):
    """Keeps payloads; its first writes end as ``verdicts`` says."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.kept: list[bytes] = []
        self.verdicts = list(self.config.verdicts)
        self.got = asyncio.Event()

    async def write(self, items: Items) -> None:
        match self.verdicts.pop(0) if self.verdicts else "":
            case "cancelled":
                raise asyncio.CancelledError
            case "later":
                raise RetryLater("not now", after=0.3)
            case "unknown":
                raise Partial({999: RetryLater("x")})
            case "odd":
                raise Rejected(ValueError("\ud800"))  # type: ignore[arg-type]
            case "never":
                self.verdicts.append("never")
                raise RetryLater("never", after=0.05)
        self.kept += [item.payload for item in items]
        self.got.set()


class SyncedConfig(KeepConfig):
    pass


class Synced(Keep):
    """Says whether its writes were synced before they counted."""

    async def sync(self) -> None:
        self.synced = len(self.kept)


class NoFloodConfig(FilterConfig):
    pass


class NoFlood(Filter[NoFloodConfig]):
    def apply(self, events: Sequence[Event]) -> Sequence[Event]:
        return [event for event in events if b"flood" not in event.raw]


class Toys(Registry):
    def component(self, kind: Any, name: str) -> Any:
        return {"numbers": Numbers, "flood": Flood, "keep": Keep, "synced": Synced, "no_flood": NoFlood}[name]


def plan(folder: Path, **sections: Any) -> Plan:
    config = {
        "sources": {"numbers": {"type": "numbers"}},
        "sinks": {"keep": {"type": "keep", "batch": {"max_wait": 0}, "retry": {"base": 0.01, "cap": 0.05}}},
        "routes": {"all": {"from": "numbers", "to": "keep"}},
        "dead_letter": {"path": str(folder / "letters")},
        **sections,
    }
    toys = Toys()
    checked = Config.model_validate(config, context={"registry": toys})
    return build(checked, {"": Org()}, SystemClock(), toys)


def kept(made: Plan) -> list[int]:
    sink = made.sinks["keep"].sink
    assert isinstance(sink, Keep)
    return [orjson.loads(payload)["n"] for payload in sink.kept]


def keep(*verdicts: str, kind: str = "keep") -> dict[str, Any]:
    return {
        "keep": {"type": kind, "verdicts": verdicts, "batch": {"max_wait": 0}, "retry": {"base": 0.01, "cap": 0.05}}
    }


async def appended(made: Plan, count: int) -> None:
    """Return when the spool has taken so many records."""
    while made.sources[0].intake.received.get(LogId("numbers"), (0, 0))[0] < count:
        await asyncio.sleep(0.01)


async def test_all_records_come_in_order(tmp_path):
    """Without trouble every record is delivered once, in order, and the exit code is 0."""
    made = plan(tmp_path)
    summary = await Runner(made).run()
    assert kept(made) == list(range(10))
    assert summary.exit_code == 0
    assert all(lane.adds_up for lane in summary.lanes)


@pytest.mark.parametrize("verdict", ["cancelled", "later", "unknown"])
async def test_a_write_that_went_wrong_is_tried_again(tmp_path, verdict):
    """A cancellation inside of the sink, a RetryLater and a Partial about items that it was not given cost no record."""
    made = plan(tmp_path, sinks=keep(verdict))
    summary = await Runner(made).run()
    assert kept(made) == list(range(10))
    assert summary.exit_code == 0


async def test_sources_at_their_end_do_not_start_the_clock(tmp_path):
    """When nobody asked to stop, a sink that is away for longer than the stop timeout still gets everything."""
    made = plan(tmp_path, sinks=keep("later", "later"), stop_timeout=0.1)
    summary = await Runner(made).run()
    assert kept(made) == list(range(10))
    assert summary.exit_code == 0


async def test_what_is_given_up_at_the_stop_timeout_is_counted(tmp_path):
    """After the stop timeout what waits is discarded, what the source still held goes to its dead letter, and the exit code is 1."""
    made = plan(
        tmp_path,
        sources={"numbers": {"type": "numbers", "count": 20, "size": 200_000, "max_record": 250_000}},
        sinks=keep("never"),
        spool={"type": "memory", "max_size": 1 << 20},
        stop_timeout=0.3,
    )
    runner = Runner(made)
    running = asyncio.create_task(runner.run())
    await appended(made, 3)
    runner.stop()
    summary = await running
    (lane,) = summary.lanes
    assert summary.exit_code == 1
    assert lane.discarded == lane.received > 0
    assert lane.adds_up
    assert summary.refused == {"numbers": {"shutdown": 1}}
    (letters,) = (tmp_path / "letters" / "sources" / "numbers").glob("*.jsonl")
    assert orjson.loads(orjson.loads(letters.read_bytes())["payload"])["n"] == lane.received


async def test_an_odd_reason_still_makes_a_letter(tmp_path):
    """Whatever a sink gives as its reason, the records are in the dead letter and the line goes on."""
    made = plan(tmp_path, sinks=keep("odd"))
    summary = await Runner(made).run()
    (lane,) = summary.lanes
    (letters,) = (tmp_path / "letters" / "lanes" / "all.keep").glob("*.jsonl")
    assert lane.rejected == len(letters.read_bytes().splitlines()) > 0
    assert lane.adds_up
    assert summary.exit_code == 0


async def test_a_detection_does_not_wait_behind_telemetry(tmp_path):
    """While one log brings records without end that a filter drops, the records of another log come through."""
    made = plan(
        tmp_path,
        sources={"flood": {"type": "flood"}, "numbers": {"type": "numbers", "lasts": True}},
        routes={"all": {"from": ["flood", "numbers"], "filters": [{"type": "no_flood"}], "to": "keep"}},
    )
    runner = Runner(made)
    running = asyncio.create_task(runner.run())
    sink = made.sinks["keep"].sink
    assert isinstance(sink, Keep)
    async with asyncio.timeout(5):
        while len(sink.kept) < 10:
            await sink.got.wait()
            sink.got.clear()
    runner.stop()
    summary = await running
    assert kept(made) == list(range(10))
    assert all(lane.adds_up for lane in summary.lanes)


async def test_settled_means_synced(tmp_path):
    """A receipt is settled only after the sink has synced what it stored."""
    made = plan(
        tmp_path, sources={"numbers": {"type": "numbers", "count": 1, "lasts": True}}, sinks=keep(kind="synced")
    )
    runner = Runner(made)
    running = asyncio.create_task(runner.run())
    await appended(made, 1)
    await made.spool.settled(LogId("numbers"), 1)
    sink = made.sinks["keep"].sink
    assert isinstance(sink, Synced)
    assert sink.synced == 1
    runner.stop()
    assert (await running).exit_code == 0


async def test_each_gap_has_its_line(tmp_path):
    """Gaps that follow each other closely are all logged, each with its own interval and reason."""
    made = plan(tmp_path)
    (status,) = made.board.of("source")
    with structlog.testing.capture_logs() as lines:
        status.gap(1.0, 2.0, "ended")
        status.gap(2.0, 3.0, "silent", org="acme")
        status.upstream_dropped(7)
    assert [(line.get("reason"), line.get("org"), line.get("records")) for line in lines] == [
        ("ended", None, None),
        ("silent", "acme", None),
        (None, None, 7),
    ]
    assert all(line["distinct"] for line in lines)


def on_disk(folder: Path, sinks: dict[str, Any], count: int = 0, **route: Any) -> Plan:
    """A plan with a disk spool and one route to all these sinks."""
    return plan(
        folder,
        sources={"numbers": {"type": "numbers", "count": count}},
        sinks=sinks,
        routes={"all": {"from": "numbers", "to": list(sinks), **route}},
        spool={"type": "disk", "path": str(folder / "spool")},
        stop_timeout=1,
    )


@pytest.mark.parametrize(("start", "expected"), [("oldest", 10), ("newest", 0)])
async def test_a_new_lane_starts_where_configured(tmp_path, start, expected):
    """A sink that is new to a route gets what the disk spool still keeps, or only what comes from now on."""
    await Runner(on_disk(tmp_path, keep(), 10)).run()
    made = on_disk(tmp_path, {**keep(), "new": keep()["keep"]}, 3, start=start)
    summary = await Runner(made).run()
    new, old = (made.sinks[name].sink.kept for name in ("new", "keep"))
    assert (len(new), len(old)) == (expected + 3, 3)
    assert all(lane.adds_up for lane in summary.lanes)


async def test_lost_positions_start_at_the_oldest_record(tmp_path):
    """When the spool's database is damaged, no lane counts as new: all begin at the oldest record, whatever `start` says."""
    first = on_disk(tmp_path, keep("never"), 10)
    runner = Runner(first)
    task = asyncio.ensure_future(runner.run())
    await appended(first, 10)
    runner.stop()
    await task
    (tmp_path / "spool" / "state.db").write_bytes(b"rubbish" * 1000)
    made = on_disk(tmp_path, keep(), start="newest")
    await Runner(made).run()
    assert kept(made) == list(range(10))


@pytest.mark.parametrize("disk", [False, True])
async def test_two_sources_with_the_same_records_feed_a_route_once(tmp_path, disk):
    """With `dedupe` each record is delivered once and its copy counts as filtered; with a disk spool also in the next life."""

    def make() -> Plan:
        return plan(
            tmp_path,
            sources={"one": {"type": "numbers", "count": 50}, "other": {"type": "numbers", "count": 60}},
            routes={"all": {"from": ["one", "other"], "to": "keep", "dedupe": True}},
            **({"spool": {"type": "disk", "path": str(tmp_path / "spool")}} if disk else {}),
        )

    made = make()
    summary = await Runner(made).run()
    assert sorted(kept(made)) == list(range(60))
    assert sum(lane.filtered for lane in summary.lanes) == 50
    assert all(lane.adds_up for lane in summary.lanes)
    made = make()
    await Runner(made).run()
    assert sorted(kept(made)) == ([] if disk else list(range(60)))


def test_each_route_says_what_it_guarantees(tmp_path: Path) -> None:
    """With a disk spool files get a record exactly once across a crash, others at least once; each route says which, at its start."""
    text = f"""
sources: {{in: {{type: file, paths: [{tmp_path}/none]}}}}
sinks: {{archive: {{type: file, path: {tmp_path}/a.jsonl}}, lake: {{type: kafka, bootstrap_servers: "k:1", topic: t}}}}
routes: {{files: {{from: in, to: archive}}, kafka: {{from: in, to: lake}}, both: {{from: in, to: [archive, lake]}}}}
spool: {{type: disk, path: {tmp_path}/spool, max_size: 64MiB}}
"""
    config = loads(text, {}).config
    told = {route: promise(config, route, durable=True) for route in config.routes}
    assert "delivered exactly once:" in told["files"]
    assert "delivered at least once:" in told["kafka"]
    assert "delivered at least once, and into files exactly once:" in told["both"]


async def test_a_stop_with_a_disk_spool_leaves_the_rest_for_the_next_start(tmp_path):
    """A stop neither waits for a sink that is away nor works off a backlog: what is left is carried over, and comes once, in order."""

    def make(verdicts: tuple[str, ...], count: int, *, lasts: bool) -> Plan:
        sink = {"batch": {"max_wait": 0, "max_events": 3}, "retry": {"base": 60, "cap": 60}, "verdicts": verdicts}
        return plan(
            tmp_path,
            sources={"numbers": {"type": "numbers", "count": count, "lasts": lasts}},
            sinks={"keep": {"type": "keep", **sink}},
            spool={"type": "disk", "path": str(tmp_path / "spool")},
            stop_timeout=60,
        )

    waits = [0]
    delivered: list[int] = []
    for verdicts in (("never",), ("", "", "never"), ()):
        made = make(
            verdicts, 10, lasts=verdicts != ("never",)
        )  # the sources of the first life are at their end already
        (lane,) = made.lanes
        runner = Runner(made)
        running = asyncio.ensure_future(runner.run())
        await appended(made, 10)
        async with asyncio.timeout(5):
            while "waiting to try again" not in lane.busy_with if verdicts else len(kept(made)) < 6:
                await asyncio.sleep(0)
            with structlog.testing.capture_logs() as lines:
                runner.stop()
                summary = await running
        (count,) = summary.lanes
        said = [line["records"] for line in lines if line["event"] == "Records stay in the spool until the next start."]
        assert said == [count.waiting] * (count.waiting > 0)
        assert (summary.exit_code, count.adds_up, count.carried) == (0, True, waits[-1])
        waits.append(count.waiting)
        delivered += kept(made)
    assert waits[:3] == [0, 10, 14]
    made = make((), 0, lasts=False)
    (count,) = (await Runner(made).run()).lanes
    assert (count.carried, count.waiting) == (waits[-1], 0)
    assert delivered + kept(made) == [*range(10)] * 3
