"""Replay inside a process: which letters go where, what is left out, and what stays in the files."""

import asyncio
import gc
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import pytest

from pipeline import (
    Batch,
    Event,
    Filter,
    FilterConfig,
    LogId,
    Org,
    Partial,
    Rejected,
    Sink,
    SinkConfig,
    Source,
    SourceConfig,
)
from pipeline.config.model import Config
from pipeline.config.registry import Registry
from pipeline.core.errors import NotFoundError, UsageError
from pipeline.core.items import Items
from pipeline.engine.build import build
from pipeline.engine.letters import letter
from pipeline.engine.replay import Replayer, Report, Request
from pipeline.engine.runner import Runner
from pipeline.kit.clock import SystemClock


class Quiet(Source[SourceConfig]):
    """Brings nothing, until the stop."""

    async def run(self, outlet: Any) -> None:
        await self.stopping.wait()


class KeepConfig(SinkConfig):
    pass


class Keep(Sink[KeepConfig]):
    """Keeps items; refuses payloads that say so."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.kept: list[tuple[bytes, str, str, str]] = []

    async def write(self, items: Items) -> None:
        bad = {index: Rejected("bad") for index, item in enumerate(items) if b"bad" in item.payload}
        self.kept += [
            (item.payload, item.org, item.origin, item.stream) for index, item in enumerate(items) if index not in bad
        ]
        if bad:
            raise Partial(bad)  # type: ignore[arg-type]  # a dict of them is one


class MarkConfig(FilterConfig):
    pass


class Mark(Filter[MarkConfig]):
    """Changes what it sees, and refuses what says so."""

    def apply(self, events: Sequence[Event]) -> Sequence[Event]:
        for event in events:
            if "no" in event.doc:
                event.reject("unwanted")
            else:
                event.replace({**event.doc, "marked": event.doc.get("marked", 0) + 1})
        return events


class Toys(Registry):
    def component(self, kind: Any, name: str) -> Any:
        return {"quiet": Quiet, "keep": Keep, "mark": Mark}[name]


class Scene:
    """A running plan: ``tap`` through ``all`` (which marks) into ``one`` and ``two``, and through ``plain`` into ``two``."""

    def __init__(self, folder: Path, spool: str = "memory", letters: str = "1GiB", **source: Any) -> None:
        sink = {"type": "keep", "batch": {"max_wait": 0}}
        toys = Toys()
        config = Config.model_validate(
            {
                "sources": {"tap": {"type": "quiet", **source}},
                "sinks": {"one": sink, "two": sink},
                "routes": {
                    "all": {"from": "tap", "to": ["one", "two"], "filters": [{"type": "mark"}]},
                    "plain": {"from": "tap", "to": "two"},
                },
                "spool": {"type": "memory"} if spool == "memory" else {"type": "disk", "path": str(folder / "spool")},
                "dead_letter": {"path": str(folder / "letters"), "max_size": letters},
            },
            context={"registry": toys},
        )
        self.plan = build(config, {"": Org()}, SystemClock(), toys)
        self.runner = Runner(self.plan)
        self.replayer = Replayer(self.plan)
        self.folder = folder / "letters"

    async def __aenter__(self) -> Self:
        self.task = asyncio.ensure_future(self.runner.run())
        async with asyncio.timeout(10):
            while not self.runner.health.ready:
                await asyncio.sleep(0.005)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.runner.stop()
        summary = await asyncio.wait_for(self.task, 20)
        assert all(lane.adds_up for lane in summary.lanes)
        assert self.plan.meters.conservation_error() == 0

    def put(self, folder: str, *letters: bytes, file: str = "000001") -> Path:
        path = self.folder / folder / f"{file}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as opened:
            opened.writelines(letters)
        return path

    async def replay(self, *names: str, **keys: Any) -> Report:
        request = Request(kind="letters", names=names, **keys)
        supply = request.supply(self.plan)
        report = Report(supply.unit, supply.total)
        await asyncio.wait_for(self.replayer.run(request, report, supply), 10)
        return report

    def kept(self, sink: str) -> list[dict[str, Any]]:
        made = self.plan.sinks[sink].sink
        assert isinstance(made, Keep)
        assert {(org, origin) for _, org, origin, _ in made.kept} <= {("", "replay")}
        return [json.loads(payload) for payload, *_ in made.kept]

    def left(self, folder: str) -> list[dict[str, Any]]:
        files = sorted((self.folder / folder).glob("*.jsonl"))
        return [json.loads(line) for file in files for line in file.read_bytes().splitlines()]


def one(payload: str, reason: str = "bad", **keys: Any) -> bytes:
    """A letter."""
    facts: dict[str, Any] = {
        "component": "x", "detail": "", "log": LogId("tap"), "stream": "detect", "received_at": 5.0, "rejected_at": 6.0,
    }  # fmt: skip
    return letter(payload.encode(), reason=reason, **{**facts, **keys})


def of_sink(payload: str, **keys: Any) -> bytes:
    return one(payload, **{"route": "all", "sink": "one", "lane": "all/one", **keys})


class Gate:
    """Holds the writes of a sink until it is open."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.open = asyncio.Event()


def hold(scene: Scene, name: str) -> Gate:
    gate, sink = Gate(), scene.plan.sinks[name].sink
    write = sink.write

    async def held(items: Items) -> None:
        gate.asked.set()
        await gate.open.wait()
        await write(items)

    sink.write = held  # type: ignore[method-assign]
    return gate


@pytest.mark.parametrize("spool", ["memory", "disk"])
async def test_each_letter_goes_where_it_was_refused(tmp_path, spool):
    """A sink's letter goes to that sink as it is; a filter's through that route into that sink; a source's through all routes."""
    async with Scene(tmp_path, spool) as scene:
        scene.put("lanes/all.one", of_sink('{"a":1}'), of_sink('{"a":2,"marked":1}', changed=True))
        scene.put("lanes/all.two", one('{"a":3}', route="all", lane="all/two"))
        scene.put("sources/tap", one('{"a":4}', "shutdown"))
        report = await scene.replay()
        assert (report.accepted, report.skipped, report.problems, report.complete) == (5, {}, [], True)
        assert report.outcomes == {"delivered": 6, "filtered": 0, "rejected": 0, "discarded": 0}
        assert sorted(map(str, scene.kept("one"))) == sorted(
            map(str, [{"a": 1}, {"a": 2, "marked": 1}, {"a": 4, "marked": 1}])
        )
        assert sorted(map(str, scene.kept("two"))) == sorted(
            map(str, [{"a": 3, "marked": 1}, {"a": 4, "marked": 1}, {"a": 4}])
        )
        assert [file for file in scene.folder.rglob("*") if file.is_file() and file.suffix == ".jsonl"] == []


async def test_what_cannot_be_replayed_is_said_and_kept(tmp_path):
    """Letters whose record is cut, changed, a stranger's or of nobody any more are counted by their reason, and stay."""
    async with Scene(tmp_path) as scene:
        whole = [one('{"a":1}', "shutdown"), one('{"b":"' + "x" * 50 + '"}', "oversize")]
        bad = {
            "truncated": one('{"b":"xxx', "oversize", detail="99999 bytes, of which the first 9 follow"),
            "stranger": one('{"c":1}', "stranger"),
            "not_an_object": one("rubbish", "not_an_object"),
            "unknown_source": one('{"d":1}', log=LogId("gone")),
            "unreadable": b'{"payload":"{}"}\n',
        }
        never = [
            one('{"e":1}').replace(b'"received_at":5.0', b'"received_at":' + at) for at in (b'"nan"', b"1e300", b"-9")
        ]
        # Damage must not become another record, or none.
        never += [
            one('{"e":1}').replace(b'"payload":"{\\"e\\":1}"', kept)
            for kept in (b'"payload_base64":"e30=!"', b'"payload":""')
        ]
        assert len({*never}) == 5
        scene.put("sources/tap", whole[0], *bad.values(), *never, whole[1])
        report = await scene.replay("tap")
        assert report.skipped == {**dict.fromkeys(bad, 1), "unreadable": 1 + len(never)}
        assert (report.accepted, len(scene.left("sources/tap"))) == (4, len(bad) + len(never))
        scene.put("lanes/old.lane", of_sink("{}", route="old", sink="lane"), of_sink("{}", changed=True))
        scene.put("lanes/all.one", of_sink('{"e":1}', changed=True))
        report = await scene.replay("all/one", str(scene.folder / "lanes/old.lane"), routes=["plain"])
        assert report.skipped == {"changed": 2}
        assert report.targets == {"tap → route plain": 1}
        assert (len(scene.left("lanes/old.lane")), len(scene.left("lanes/all.one"))) == (1, 1)
        report = await scene.replay("tap", reasons=["stranger"])
        assert (report.accepted, report.skipped["other_reason"]) == (2, len(bad) - 2)


async def test_letters_of_a_sink_that_acts_stay(tmp_path, monkeypatch):
    """A sink that takes live records only gets none of its letters, which would be lost on the way: they stay where they are."""
    async with Scene(tmp_path) as scene:
        monkeypatch.setattr(Keep, "origins", ("live",))
        scene.put("lanes/all.one", of_sink('{"a":1}'), one('{"a":2}', route="all", lane="all/one"))
        report = await scene.replay("all/one")
        assert (report.accepted, report.skipped) == (0, {"live_only": 2})
        assert [{"a": 1}, {"a": 2}] == [json.loads(one["payload"]) for one in scene.left("lanes/all.one")]
        monkeypatch.setattr(Keep, "origins", ("live", "replay"))
        assert 2 == (await scene.replay("all/one")).accepted
        assert [] == scene.left("lanes/all.one")


async def test_a_letter_refused_again_is_a_new_letter(tmp_path):
    """What the sink refuses again is in the dead letter again, and still knows that filters had changed it."""
    async with Scene(tmp_path) as scene:
        scene.put("lanes/all.one", of_sink('{"bad":1}', changed=True), of_sink('{"bad":2}'), of_sink('{"good":3}'))
        report = await scene.replay("all/one")
        assert report.outcomes == {"delivered": 1, "filtered": 0, "rejected": 2, "discarded": 0}
        left = scene.left("lanes/all.one")
        assert [(json.loads(one["payload"])["bad"], one["changed"], one["origin"]) for one in left] == [
            (1, True, "replay"), (2, False, "replay"),
        ]  # fmt: skip
        assert not (scene.folder / "lanes/all.one/000001.jsonl").exists()


async def test_letters_that_are_written_meanwhile_stay(tmp_path):
    """A lane may bury letters while its letters are replayed: those of before go, those that came stay."""
    async with Scene(tmp_path) as scene:
        lane = next(one for one in scene.plan.lanes if one.id == "all/one")
        for start in range(0, 2000, 500):
            await lane.letters.put([of_sink(f'{{"n":{number}}}') for number in range(start, start + 500)])
        replaying = asyncio.ensure_future(scene.replay("all/one"))
        late = [of_sink(f'{{"late":{number}}}') for number in range(50)]
        for line in late:
            await lane.letters.put([line])
        report = await replaying
        kept = [record["n"] for record in scene.kept("one") if "n" in record]
        assert kept == list(range(2000))
        replayed_late = report.accepted - 2000
        assert len(scene.left("lanes/all.one")) == 50 - replayed_late
        assert lane.letters.size == sum(file.stat().st_size for file in (scene.folder / "lanes/all.one").iterdir())


async def test_a_cancelled_replay_keeps_what_was_not_accepted(tmp_path):
    """Broken off in the middle, what was accepted has left the dead letter and the rest is there: nothing is lost or twice."""
    async with Scene(tmp_path, "disk") as scene:
        scene.put("lanes/all.one", *(of_sink(f'{{"n":{number}}}') for number in range(1000)))
        request = Request(kind="letters", names=("all/one",), rate=400)
        supply = request.supply(scene.plan)
        report = Report(supply.unit, supply.total)
        task = asyncio.ensure_future(scene.replayer.run(request, report, supply))
        async with asyncio.timeout(10):
            while report.accepted < 200:
                await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.wait([task])
        assert not report.complete
        await scene.plan.spool.settled(LogId("tap", "", "all/one"), report.accepted)
        left = [json.loads(line["payload"])["n"] for line in scene.left("lanes/all.one")]
        assert [record["n"] for record in scene.kept("one")] + left == list(range(1000))
        assert len(left) == 1000 - report.accepted


async def test_a_replay_that_is_broken_off_while_it_waits_is_no_error(tmp_path, caplog):
    """Whoever hangs up while a sink takes nothing ends the replay: no traceback is logged, and what was accepted stays."""
    async with Scene(tmp_path, "disk") as scene:
        scene.put("lanes/all.one", of_sink('{"a":1}'))
        scene.plan.spool.settled = lambda log, end: asyncio.Event().wait()
        request = Request(kind="letters", names=("all/one",))
        supply = request.supply(scene.plan)
        report = Report(supply.unit, supply.total)
        task = asyncio.ensure_future(scene.replayer.run(request, report, supply))
        async with asyncio.timeout(10):
            while not report.accepted:
                await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        del task
        gc.collect()
        assert [record.getMessage() for record in caplog.records if record.name == "asyncio"] == []
        assert (report.accepted, report.complete, scene.left("lanes/all.one")) == (1, False, [])


@pytest.mark.parametrize("spool", ["memory", "disk"])
async def test_a_report_counts_its_own_records_alone(tmp_path, spool):
    """What an earlier replay left in the same log, delivered and rejected meanwhile, is not in the outcomes of the next one."""
    async with Scene(tmp_path, spool) as scene:
        (lane,) = (lane for lane in scene.plan.lanes if lane.id == "all/one")
        log = LogId("tap", "", "all/one")
        await scene.plan.spool.add(log, [lane])
        lane.add(log)
        sink, gate = scene.plan.sinks["one"].sink, asyncio.Event()
        write = sink.write

        async def held(items: Items) -> None:
            await gate.wait()
            await write(items)

        sink.write = held  # type: ignore[method-assign]
        for _ in range(10):
            await scene.plan.spool.append(Batch([b'{"old":1}', b'{"bad":1}'] * 5, log, "event", 5.0, "replay"))
        scene.put("lanes/all.one", *(of_sink(f'{{"n":{number}}}') for number in range(20)), of_sink('{"bad":2}'))
        replaying = asyncio.ensure_future(scene.replay("all/one"))
        async with asyncio.timeout(10):
            while lane.waiting(log) < 121:
                await asyncio.sleep(0.01)
        gate.set()
        report = await replaying
        assert report.outcomes == {"delivered": 20, "filtered": 0, "rejected": 1, "discarded": 0}
        assert (lane.tallies[log].delivered, lane.tallies[log].rejected) == (70, 51)


async def test_replays_of_one_process_come_one_after_the_other(tmp_path):
    """A replay that is asked for while another one is under way, by whatever way, waits: each counts and takes out its own letters."""
    async with Scene(tmp_path) as scene:
        gate = hold(scene, "one")
        scene.put("lanes/all.one", *(of_sink(f'{{"n":{number}}}', reason="ab"[number % 2]) for number in range(20)))
        first = asyncio.ensure_future(scene.replay("all/one", reasons=["a"]))
        await asyncio.wait_for(gate.asked.wait(), 10)
        scene.replayer = Replayer(scene.plan)
        second = asyncio.ensure_future(scene.replay("all/one", reasons=["b"]))
        await asyncio.sleep(0.1)
        gate.open.set()
        for report in await asyncio.gather(first, second):
            assert (report.accepted, report.outcomes["delivered"], report.problems) == (10, 10, [])
        assert scene.left("lanes/all.one") == []
        assert len(scene.kept("one")) == 20


@pytest.mark.parametrize("way", ["replaced", "shortened"])
async def test_a_file_that_somebody_else_changed_is_left_alone(tmp_path, way):
    """Letters are never cut out of another file than they were read from: what stands at their places there may not be replayed."""
    async with Scene(tmp_path) as scene:
        gate = hold(scene, "one")
        file = scene.put("lanes/all.one", *(of_sink(f'{{"n":{number}}}') for number in range(3)))
        replaying = asyncio.ensure_future(scene.replay("all/one"))
        await asyncio.wait_for(gate.asked.wait(), 10)
        other = of_sink('{"other":1}')
        if way == "replaced":
            file.with_suffix(".edited").write_bytes(other * 5)
            file.with_suffix(".edited").replace(file)
        else:
            file.write_bytes(other)
        gate.open.set()
        report = await replaying
        assert report.outcomes["delivered"] == 3
        assert any("somebody else has changed it" in problem for problem in report.problems)
        assert file.read_bytes() == other * (5 if way == "replaced" else 1)


async def test_a_keep_leaves_the_letters(tmp_path):
    """With `keep` the letters stay where they are."""
    async with Scene(tmp_path) as scene:
        scene.put("lanes/all.one", of_sink('{"a":1}'))
        assert (await scene.replay("all/one", keep=True)).accepted == 1
        assert len(scene.left("lanes/all.one")) == 1


async def test_a_replay_log_is_gone_after_it_is_read(tmp_path):
    """A log of replayed records that was read to its end is removed at the next start."""
    async with Scene(tmp_path, "disk") as scene:
        scene.put("lanes/all.one", of_sink('{"a":1}'))
        await scene.replay("all/one")
        assert (tmp_path / "spool/logs/tap%3Eall%2Fone").is_dir()
    async with Scene(tmp_path, "disk") as scene:
        assert not (tmp_path / "spool/logs/tap%3Eall%2Fone").exists()
        assert all(not log.replay for log in scene.plan.spool.stats())


@pytest.mark.parametrize(
    ("names", "routes", "error"),
    [(["nobody"], [], NotFoundError), (["/no/such/path"], [], NotFoundError), (["all/one"], ["x"], NotFoundError)],
)
def test_what_is_not_there(tmp_path, names, routes, error):
    """A lane, a path or a route that does not exist is said by name."""
    with pytest.raises(error, match=r"nobody|file or folder|'x'"):
        Request(kind="letters", names=names, routes=routes).supply(Scene(tmp_path).plan)


async def test_files_of_letters_are_no_records(tmp_path):
    """Letters given as records are refused with the right command."""
    async with Scene(tmp_path) as scene:
        path = scene.put("x", of_sink("{}"))
        request = Request(kind="files", names=(str(path),), source="tap")
        supply = request.supply(scene.plan)
        with pytest.raises(UsageError, match="dead letters"):
            await scene.replayer.run(request, Report(supply.unit, supply.total), supply)


async def test_a_lane_that_waits_for_room_is_helped(tmp_path, monkeypatch):
    """A lane whose dead letter is full goes on when a replay takes letters out, even into that lane itself."""
    monkeypatch.setattr("pipeline.engine.supply_letters.KEEP_INTERVAL", 0.05)
    monkeypatch.setattr("pipeline.engine.replay.PATIENCE", 0.05)
    monkeypatch.setattr("pipeline.engine.replay.WINDOW", 8 << 10)
    async with Scene(tmp_path, "disk", "64KiB") as scene:
        lane = next(one for one in scene.plan.lanes if one.id == "all/one")
        old = [of_sink(f'{{"n":{number},"x":"{"x" * 1000}"}}') for number in range(50)]
        await lane.letters.put(old)
        log = LogId("tap", "", "all/one")
        await scene.plan.spool.add(log, [lane])
        lane.add(log)
        await scene.plan.spool.append(Batch([b'{"bad":"%s"}' % (b"x" * 10_000)], log, "event", 1.0, "replay"))
        async with asyncio.timeout(10):
            while lane.busy_with != "waiting for room in the dead letter":
                await asyncio.sleep(0.01)
        report = await scene.replay("all/one")
        assert (report.accepted, report.outcomes["delivered"]) == (50, 50)
        assert [record["n"] for record in scene.kept("one")] == list(range(50))
        assert len(scene.left("lanes/all.one")) == 1


async def test_one_file_by_its_path(tmp_path):
    """The very file that a lane writes to may be named: what is in it goes, and the lane's next letter begins another file."""
    async with Scene(tmp_path) as scene:
        lane = next(one for one in scene.plan.lanes if one.id == "all/one")
        await lane.letters.put([of_sink('{"n":1}')])
        report = await scene.replay(str(scene.folder / "lanes/all.one/000001.jsonl"))
        assert (report.accepted, scene.kept("one")) == (1, [{"n": 1}])
        await lane.letters.put([of_sink('{"n":2}')])
        assert [file.name for file in (scene.folder / "lanes/all.one").iterdir()] == ["000002.jsonl"]
        assert lane.letters.size > 0
