"""Commands with their answers, against a local LimaCharlie whose sensors really answer."""

import asyncio

import orjson
import pytest

from pipeline.core.errors import PermissionDeniedError, RequestRefusedError, UnavailableError, UsageError
from pipeline.emulator.knobs import parse
from pipeline.emulator.server import Emulator
from pipeline.emulator.state import Settings
from pipeline.limacharlie import listener, simple_request
from pipeline.limacharlie.client import LimaCharlie
from pipeline.limacharlie.config import LimaCharlieConfig
from pipeline.limacharlie.simple_request import NoAnswerError, SimpleRequests
from pipeline.limacharlie.tasks import OfflineError


class Lab:
    """An emulator, a client of it, and a sensor that is online."""

    def __init__(self, emulator: Emulator, account: LimaCharlie) -> None:
        self.emulator = emulator
        self.account = account
        self.sid = ""

    def turn(self, knob: str, **arguments):
        return parse(knob, arguments).turn(self.emulator.panel)


@pytest.fixture
async def lab():
    emulator = Emulator(Settings(port=0, rate=0, events=0))
    await emulator.start()
    ready = emulator.ready()
    section = LimaCharlieConfig(oid=ready["oid"], api_key=ready["api_key"], url=ready["url"])
    try:
        async with LimaCharlie(section, environ={}) as account:
            lab = Lab(emulator, account)
            async for sensor in account.sensors.list("plat == windows"):
                if sensor.architecture != "usp_adapter":
                    lab.sid = sensor.sid
                    break
            lab.turn("presence", sensor=lab.sid, online=True)
            yield lab
    finally:
        await emulator.stop()


def kinds(answers):
    return [answer["routing"]["event_type"] for answer in answers]


async def test_one_command_has_one_answer(lab):
    """Without its confirmation, under an investigation of its own below that of all."""
    async with SimpleRequests(lab.account, inv_id="incident") as requests:
        answers = await requests.send(lab.sid, "os_version")
    assert kinds(answers) == ["OS_VERSION_REP"]
    assert answers[0]["routing"]["sid"] == lab.sid
    assert answers[0]["routing"]["investigation_id"].startswith("incident/")


async def test_each_of_several_commands_has_an_answer(lab):
    """As many are waited for as there are commands."""
    async with SimpleRequests(lab.account) as requests:
        answers = await requests.send(lab.sid, "os_version", "netstat")
    assert sorted(kinds(answers)) == ["NETSTAT_REP", "OS_VERSION_REP"]


async def test_a_scan_ends_when_it_says_so(lab):
    """Its last event has the message `done`."""
    async with SimpleRequests(lab.account) as requests:
        answers = await requests.send(lab.sid, "hidden_module_scan -1", until_done=True)
    assert answers[-1]["event"]["ERROR_MESSAGE"] == "done"


async def test_no_answer_may_be_wanted(lab):
    """Some commands have none; then the sensor's confirmation is enough."""
    async with SimpleRequests(lab.account) as requests:
        assert await requests.send(lab.sid, "deny_tree abc", answers=0) == []


async def test_several_requests_share_a_stream(lab):
    """Each gets what answers it."""
    async with SimpleRequests(lab.account) as requests:
        commands = ["os_version", "netstat", "os_services", "os_version"]
        answers = await asyncio.gather(*(requests.send(lab.sid, command) for command in commands))
    expected = [["OS_VERSION_REP"], ["NETSTAT_REP"], ["OS_SERVICES_REP"], ["OS_VERSION_REP"]]
    assert [kinds(each) for each in answers] == expected
    assert len({each[0]["routing"]["investigation_id"] for each in answers}) == 4


async def test_an_investigation_may_have_parts(lab):
    """A stream knows it by the first; nothing else may be taken for an answer."""
    async with SimpleRequests(lab.account, inv_id="incident/7") as requests:
        await lab.account.tasks.send(lab.sid, "netstat", inv_id="incident/7")
        assert kinds(await requests.send(lab.sid, "os_version")) == ["OS_VERSION_REP"]


async def test_an_answer_that_is_late_is_an_error_with_what_came(lab):
    """It says that the sensor has the commands."""
    async with SimpleRequests(lab.account) as requests:
        with pytest.raises(NoAnswerError, match="1 of 2 answers") as caught:
            await requests.send(lab.sid, "os_version", answers=2, timeout=0.3)
    assert caught.value.received
    assert kinds(caught.value.answers) == ["OS_VERSION_REP"]


async def test_a_command_that_is_not_confirmed_is_an_error(lab):
    """The sensor may not have it."""
    lab.turn("tasks", delay=60, lose_confirmations=1)
    async with SimpleRequests(lab.account) as requests:
        with pytest.raises(NoAnswerError, match="did not confirm") as caught:
            await requests.send(lab.sid, "os_version", confirm_timeout=0.3)
    assert not caught.value.received


async def test_an_answer_is_a_confirmation(lab):
    """Where that itself was lost."""
    lab.turn("tasks", lose_confirmations=1)
    async with SimpleRequests(lab.account) as requests:
        assert kinds(await requests.send(lab.sid, "os_version")) == ["OS_VERSION_REP"]


async def test_a_sensor_that_is_offline_is_not_waited_for(lab):
    """Nobody would hear the command."""
    lab.turn("presence", sensor=lab.sid, online=False)
    async with SimpleRequests(lab.account) as requests:
        with pytest.raises(OfflineError):
            await requests.send(lab.sid, "os_version")


async def test_a_refused_command_is_an_error_at_once(lab):
    """In LimaCharlie's words, and the next one works."""
    async with SimpleRequests(lab.account) as requests:
        with pytest.raises(RequestRefusedError, match="unknown command"):
            await requests.send(lab.sid, "no_such_thing")
        assert kinds(await requests.send(lab.sid, "os_version")) == ["OS_VERSION_REP"]


@pytest.mark.parametrize("how", ["clean", "abort", "midline"])
async def test_a_lost_stream_is_opened_again(lab, how, no_pauses):
    """Requests go on over the next one."""
    async with SimpleRequests(lab.account) as requests:
        await requests.send(lab.sid, "os_version")
        lab.turn("close", how=how)
        while requests._listener.live.is_set():
            await asyncio.sleep(0)
        assert kinds(await requests.send(lab.sid, "netstat", answers=1)) == ["NETSTAT_REP"]


async def test_a_missed_answer_is_told_from_none(lab):
    """LimaCharlie says when it drops records, and the error does too."""
    async with SimpleRequests(lab.account) as requests:
        await requests.send(lab.sid, "os_version")
        lab.turn("drop", n=10)
        with pytest.raises(NoAnswerError, match="gaps meanwhile"):
            await requests.send(lab.sid, "os_version", confirm_timeout=0.5)


async def test_one_old_token_is_no_refusal(lab, no_pauses):
    """Another token is tried before the stream counts as refused."""
    lab.turn("stream_error", line="error: unauthorized")
    async with SimpleRequests(lab.account) as requests:
        assert kinds(await requests.send(lab.sid, "os_version")) == ["OS_VERSION_REP"]


async def test_a_refused_stream_is_an_error_for_all(lab, no_pauses):
    """Those that wait already, and those that come later."""
    lab.turn("tasks", delay=60)
    async with SimpleRequests(lab.account) as requests:
        waiting = asyncio.create_task(requests.send(lab.sid, "os_version"))
        while not any(request.received for request in requests._requests.values()):
            await asyncio.sleep(0.01)
        lab.turn("stream_error", line="error: permission denied", times=None)
        lab.turn("close", how="clean")
        with pytest.raises(PermissionDeniedError):
            await waiting
        with pytest.raises(PermissionDeniedError):
            await requests.send(lab.sid, "os_version")


async def test_a_stream_of_the_callers_can_be_used(lab):
    """What it brings is handed in, and what is not for a request is ignored, however it looks."""
    requests = SimpleRequests(lab.account, listen=False)
    lab.turn("tasks", delay=60, lose_confirmations=1)
    waiting = asyncio.create_task(requests.send(lab.sid, "os_version"))
    while not requests._requests:
        await asyncio.sleep(0)
    (key,) = requests._requests
    for line in (b'{"investigation_id"', b'["investigation_id"]', b'{"routing":{"investigation_id":["a"]}}'):
        requests.hear(line)
    answer = {"routing": {"investigation_id": key, "event_type": "OS_VERSION_REP"}, "event": {}}
    requests.hear(orjson.dumps(answer))
    assert await waiting == [answer]


async def test_answers_have_a_bound(lab, monkeypatch):
    """A sensor cannot fill the memory."""
    monkeypatch.setattr(simple_request, "MAX_BYTES", 100)
    async with SimpleRequests(lab.account) as requests:
        with pytest.raises(NoAnswerError, match="more than"):
            await requests.send(lab.sid, "os_processes", until_done=True)


async def test_misuse_is_told(lab):
    """Where answers could never be heard."""
    with pytest.raises(UsageError, match="begins with __"):
        SimpleRequests(lab.account, inv_id="__hidden")
    with pytest.raises(UsageError, match="async with"):
        await SimpleRequests(lab.account).send(lab.sid, "os_version")


async def test_a_stream_that_does_not_come_about_is_an_error(lab, monkeypatch):
    """With the reason, and the command is not sent."""
    monkeypatch.setattr(listener, "READY_TIMEOUT", 0.3)
    lab.turn("instant_close", times=None)
    async with SimpleRequests(lab.account) as requests:
        with pytest.raises(UnavailableError, match="stream of answers is over"):
            await requests.send(lab.sid, "os_version")
