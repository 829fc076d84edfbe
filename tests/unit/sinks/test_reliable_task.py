"""The tasking sink against the local LimaCharlie: one task for a record, whatever happens in between."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import orjson
import pytest
import structlog.testing

from pipeline.core.component import Org
from pipeline.core.errors import Partial, Rejected, RetryLater
from pipeline.core.items import Items
from pipeline.emulator.server import Emulator
from pipeline.emulator.state import Settings
from pipeline.kit.clock import SystemClock
from pipeline.limacharlie.client import LimaCharlie
from pipeline.limacharlie.config import LimaCharlieConfig
from pipeline.sinks.reliable_task import ReliableTaskConfig, ReliableTaskSink
from pipeline.testing import FakeClock, RecordingReport, context, make_items


class Bench:
    """A sink with an account in an emulated cloud; its marks survive `crash`."""

    def __init__(self, cloud: Emulator, account: LimaCharlie, offline: str, online: str) -> None:
        self.account = account
        self.offline = offline
        self.online = online
        self.marks: dict[str, Any] = {}
        self.report = RecordingReport()
        self.keys: dict[str, Any] = {"lookup_delay": 0}
        self.clock: Any = SystemClock()
        self._url = cloud.ready()["url"]
        self.sink = self.make()

    def make(self) -> ReliableTaskSink:
        keys = {"type": "reliable_task", "task": "os_version", "context": "triage", "confirm": True, **self.keys}
        surroundings = context(
            "tasks",
            clock=self.clock,
            report=self.report,
            orgs=[Org("", self.account.oid, self.account)],
            commit_mark=self.commit,
        )
        return ReliableTaskSink(ReliableTaskConfig.model_validate(keys), surroundings)

    async def commit(self, mark: Any) -> None:
        for key, value in orjson.loads(orjson.dumps(mark)).items():
            if value is None:
                self.marks.pop(key, None)
            else:
                self.marks[key] = value

    async def crash(self, **keys: Any) -> None:
        """What was not committed is forgotten."""
        self.keys |= keys
        self.sink = self.make()
        await self.sink.open(dict(self.marks))

    def detection(self, number: int, *, sid: str | None = None, **more: Any) -> bytes:
        routing = {"sid": sid or self.offline, "event_id": "e"}
        return orjson.dumps({"cat": "x", "detect": {}, "detect_id": f"d-{number}", "routing": routing, **more})

    async def write(self, *payloads: bytes, org: str = "") -> dict[int, RetryLater | Rejected]:
        """Write, commit what the write returns, and say what was not done."""
        items: Items = make_items(payloads, stream="detect", org=org)
        try:
            await self.commit(await self.sink.write(items))
        except Partial as partial:
            return partial.failures
        return {}

    async def turn(self, knob: str, **arguments: Any) -> None:
        async with aiohttp.ClientSession() as session:
            answer = await session.post(f"{self._url}/_emulator/{knob}", json=arguments)
            assert 200 == answer.status, await answer.text()

    async def queued(self) -> list[str]:
        return sorted(task.context for task in await self.account.reliable_tasking.list())


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    cloud = Emulator(Settings(port=0, rate=0))
    await cloud.start()
    ready = cloud.ready()
    section = LimaCharlieConfig.model_validate({key: ready[key] for key in ("url", "oid", "api_key")})
    async with LimaCharlie(section, environ={}) as account:
        await account.extensions.subscribe("ext-reliable-tasking")
        sids = [sensor.sid async for sensor in account.sensors.list("plat == windows")]
        states = await account.sensors.online(sids)
        bench = Bench(cloud, account, *(next(sid for sid in sids if states[sid] is want) for want in (False, True)))
        await bench.crash()
        yield bench
    await cloud.stop()


async def test_each_record_is_one_task(bench):
    """Every detection's sensor gets the command with the detection's id in its context; copies get none."""
    assert {} == await bench.write(bench.detection(1), bench.detection(2), bench.detection(1))
    assert {} == await bench.write(bench.detection(2))
    await bench.crash()
    assert {} == await bench.write(bench.detection(1))
    [first, second] = await bench.account.reliable_tasking.list()
    assert ["triage/d-1", "triage/d-2"] == await bench.queued()
    assert {bench.offline} == {first.sid, second.sid}
    assert "os_version" == first.command
    assert (2, 3) == (bench.report.counts["sent"], bench.report.counts["known"])


async def test_nothing_is_sent_without_confirmation(bench):
    """A dry run sends nothing, marks nothing, and takes the records as delivered."""
    await bench.crash(confirm=False, rate_limit={"tasks": 2, "per": "1h"})
    with structlog.testing.capture_logs() as lines:
        assert {} == await bench.write(*map(bench.detection, range(5)))
    assert [] == await bench.queued()
    assert {} == bench.marks
    assert {"dry_run": 5} == bench.report.counts
    said = [line for line in lines if line["event"] == "Would send a task."]
    assert ["triage/d-0", "triage/d-1"] == [line["context"] for line in said], "as many as would be sent"
    assert {("os_version", bench.offline)} == {(line["command"], line["sid"]) for line in said}


async def test_a_crash_after_the_call_sends_nothing_again(bench):
    """A task whose answer was never booked is found in the queue and not sent again."""
    await bench.sink.write(make_items([bench.detection(1)]))  # what it returns is lost
    assert [{"at"}] == [set(mark) for mark in bench.marks.values()]
    await bench.crash()
    assert {} == await bench.write(bench.detection(1))
    assert ["triage/d-1"] == await bench.queued()
    assert {"sent": 1, "found": 1} == bench.report.counts


async def test_a_task_that_the_sensor_had_is_found_in_its_history(bench):
    """A task that is out of the queue because its sensor confirmed it is not sent again."""
    record = bench.detection(1, sid=bench.online)
    await bench.sink.write(make_items([record]))
    assert [] == await bench.queued()
    await bench.crash()
    assert {} == await bench.write(record)
    assert {"sent": 1, "found": 1} == bench.report.counts
    events = bench.account.history.events(bench.online, event_type="CLOUD_NOTIFICATION")
    assert 1 == len([event async for event in events])


async def test_a_crash_before_the_call_sends_it_later(bench):
    """An intent without a task is carried out, once LimaCharlie would show the task if there were one."""
    bench.clock = clock = FakeClock(SystemClock().now())
    await bench.crash(lookup_delay=60)
    await bench.sink._intents.begin("/triage/d-1")
    await bench.crash()
    [verdict] = (await bench.write(bench.detection(1))).values()
    assert isinstance(verdict, RetryLater)
    assert 59 < verdict.after <= 60
    assert [] == await bench.queued()
    clock.advance(61)
    assert {} == await bench.write(bench.detection(1))
    assert ["triage/d-1"] == await bench.queued()


async def test_an_answer_that_got_lost_is_looked_up(bench):
    """After a 504 the task is looked for, not there, and sent; one that is there is not."""
    await bench.turn("respond", route="extension", status=504)
    [verdict] = (await bench.write(bench.detection(1))).values()
    assert isinstance(verdict, RetryLater)
    assert {} == await bench.write(bench.detection(1))
    assert ["triage/d-1"] == await bench.queued()


async def test_without_a_way_to_know_the_record_goes_to_the_dead_letter(bench):
    """A task for a selector that is not in the queue may have been sent: only `if_unknown: repeat` sends it again."""
    selector = f"sid == '{bench.online}'"
    await bench.crash(selector=selector)
    await bench.sink.write(make_items([bench.detection(1)]))
    await bench.crash()
    [verdict] = (await bench.write(bench.detection(1))).values()
    assert "outcome_unknown" == verdict.reason
    await bench.crash(if_unknown="repeat")
    assert {} == await bench.write(bench.detection(1))
    assert 2 == bench.report.counts["sent"]


async def test_no_history_no_answer(bench):
    """A key that may not read the history cannot tell, and does not guess."""
    record = bench.detection(1, sid=bench.online)
    await bench.sink.write(make_items([record]))
    await bench.turn("respond", route="insight", status=401, times=None)
    await bench.crash()
    [verdict] = (await bench.write(record)).values()
    assert "outcome_unknown" == verdict.reason


async def test_one_who_is_not_subscribed_is_told(bench):
    """Without the subscription everything waits, asks once for all records of a write, and says what to do."""
    await bench.account.extensions.unsubscribe("ext-reliable-tasking")
    failures = await bench.write(bench.detection(1), bench.detection(2))
    assert [True, True] == [isinstance(verdict, RetryLater) for verdict in failures.values()]
    assert "not subscribed" in failures[0].what
    assert "ext-reliable-tasking" in failures[0].fix
    assert "permission" == failures[0].__cause__.code
    assert {} == bench.marks
    await bench.account.extensions.subscribe("ext-reliable-tasking")
    assert {} == await bench.write(bench.detection(1), bench.detection(2))
    assert ["triage/d-1", "triage/d-2"] == await bench.queued()


@pytest.mark.parametrize(
    ("payload", "keys", "reason"),
    [
        (b"{", {}, "undecodable"),
        (b"[]", {}, "undecodable"),
        (b'{"routing":{}}', {}, "no_sensor_id"),
        (b'{"routing":{"sid":"x or plat == windows"}}', {}, "no_sensor_id"),
        (b'{"routing":{"sid":"00000000-0000-0000-0000-000000000001"}}', {}, "no_sensor"),
        (
            b'{"routing":{"sid":"00000000-0000-0000-0000-000000000001"}}',
            {"task": "file_get {event/PATH}"},
            "missing_value",
        ),
        (b'{"event":{"PATH":"-x"}}', {"task": "file_get {event/PATH}"}, "unsafe_value"),
        (b'{"event":{"NAME":"x"}}', {"selector": "nonsense == {event/NAME}"}, "refused"),
    ],
)
async def test_a_record_that_makes_no_task_is_rejected_alone(bench, payload, keys, reason):
    """It goes to the dead letter with the reason; the others of its write get their tasks."""
    await bench.crash(**keys)
    good = bench.detection(1, event={"PATH": "/x", "NAME": "y"})
    failures = await bench.write(payload, *([good] if "selector" not in keys else []))
    assert [(0, reason)] == [(index, verdict.reason) for index, verdict in failures.items()]
    assert (["triage/d-1"] if "selector" not in keys else []) == await bench.queued()


async def test_a_record_of_nobody_is_rejected(bench):
    """A record of an organization that the configuration does not name has no account."""
    [verdict] = (await bench.write(bench.detection(1), org="other")).values()
    assert "no_org" == verdict.reason


async def test_a_hostile_value_stays_a_value(bench):
    """The command in the queue is the template's, with what the record said as one quoted word."""
    await bench.crash(task="file_get {event/PATH}")
    path = "/tmp/x; restart' && os_kill_process -p 1 #"
    assert {} == await bench.write(bench.detection(1, event={"PATH": path}))
    [task] = await bench.account.reliable_tasking.list()
    assert f'file_get "{path}"' == task.command


async def test_a_record_without_an_id_is_known_by_its_content(bench):
    """The context ends in a hash where the record has no id that fits."""
    plain = orjson.dumps({"routing": {"sid": bench.offline}, "event": {"a": 1}})
    odd = orjson.dumps({"routing": {"sid": bench.offline, "event_id": "../x y"}})
    assert {} == await bench.write(plain, odd, plain)
    assert [7 + 32] * 2 == [len(name) for name in await bench.queued()]


async def test_the_rate_limit_holds(bench):
    """What the limit does not allow in time is offered again later; a stop ends the waiting at once."""
    await bench.crash(rate_limit={"tasks": 1, "per": "1h"})
    failures = await bench.write(bench.detection(1), bench.detection(2))
    assert [1] == list(failures)
    assert 3500 < failures[1].after <= 3600
    await bench.crash(rate_limit={"tasks": 1, "per": "20s"})
    assert {} == await bench.write(bench.detection(2))
    waiting = asyncio.create_task(bench.write(bench.detection(3)))
    await asyncio.sleep(0)
    bench.sink.stopping.set()
    assert [RetryLater] == [type(verdict) for verdict in (await waiting).values()]
    assert ["triage/d-1", "triage/d-2"] == await bench.queued()


async def test_check_tells_what_is_missing(bench):
    """`validate --connect` finds a subscription that is missing, and sends nothing."""
    await bench.sink.check()
    await bench.account.extensions.unsubscribe("ext-reliable-tasking")
    with pytest.raises(Exception, match="not subscribed"):
        await bench.sink.check()
    await bench.account.extensions.subscribe("ext-reliable-tasking")
    assert [] == await bench.queued()


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        ({"task": "os_verson"}, "os_version"),
        ({"task": "file_get"}, "lacks its arguments"),
        ({"selector": "*"}, "all sensors"),
        ({"context": "__hidden"}, "context"),
        ({"context": "a/b"}, "context"),
    ],
)
def test_mistakes_are_found_when_the_configuration_is_read(keys, text):
    """An unknown command, all sensors, a context that would be hidden."""
    with pytest.raises(ValueError, match=text.replace("*", r"\*")):
        ReliableTaskConfig.model_validate({"type": "reliable_task", "task": "os_version", **keys})
