"""Watching the answers to commands that wait, against the local LimaCharlie."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from pipeline.core.errors import UsageError
from pipeline.emulator.knobs import parse
from pipeline.emulator.server import Emulator
from pipeline.emulator.state import Settings
from pipeline.limacharlie import task_watch
from pipeline.limacharlie.client import LimaCharlie
from pipeline.limacharlie.config import LimaCharlieConfig
from pipeline.limacharlie.task_watch import TaskWatch


class Lab:
    """An emulated cloud with an account, and two sensors that are offline."""

    def __init__(self, cloud: Emulator, account: LimaCharlie, sids: list[str]) -> None:
        self.account = account
        self.sids = sids
        self._cloud = cloud
        for sid in sids:
            self.presence(sid, online=False)

    def presence(self, sid: str, *, online: bool) -> None:
        self.turn("presence", sensor=sid, online=online)

    def turn(self, knob: str, **arguments: Any) -> None:
        parse(knob, arguments).turn(self._cloud.panel)

    async def task(self, *sids: str, context: str = "inc", command: str = "os_version") -> None:
        for sid in sids or self.sids:
            await self.account.reliable_tasking.task(command, sid=sid, context=context)


@pytest.fixture
async def lab() -> AsyncIterator[Lab]:
    cloud = Emulator(Settings(port=0, rate=0, events=0))
    await cloud.start()
    ready = cloud.ready()
    section = LimaCharlieConfig.model_validate({key: ready[key] for key in ("url", "oid", "api_key")})
    async with LimaCharlie(section, environ={}) as account:
        sids = [sensor.sid async for sensor in account.sensors.list("plat == windows")][:2]
        yield Lab(cloud, account, sids)
    await cloud.stop()


async def collect(watch: TaskWatch, timeout: float | None = 10) -> list[tuple[str, str]]:
    """(sensor, type) of the answers."""
    return [(doc["routing"]["sid"], doc["routing"]["event_type"]) async for doc in watch.answers(timeout)]


async def test_it_ends_when_all_have_answered(lab):
    """Each sensor's answer is given when it comes; those of other investigations are not."""
    await lab.task()
    await lab.task(context="inc-2", command="netstat")
    await lab.task(lab.sids[0], context="inc/sub")
    async with TaskWatch(lab.account, "inc") as watch:
        assert 3 == (await watch.look()).wanted
        for sid in lab.sids:
            lab.presence(sid, online=True)
        answers = await collect(watch)
    first, second = lab.sids
    assert sorted([(first, "OS_VERSION_REP")] * 2 + [(second, "OS_VERSION_REP")]) == sorted(answers)
    assert (True, 0) == (watch.progress.complete, watch.progress.gone)


async def test_it_ends_in_time(lab):
    """What has not come by then is missing in the progress."""
    await lab.task()
    async with TaskWatch(lab.account, "inc") as watch:
        await watch.look()
        lab.presence(lab.sids[0], online=True)
        assert 1 == len(await collect(watch, 0.5))
    assert (2, 1, False) == (watch.progress.wanted, watch.progress.answered, watch.progress.complete)


async def test_it_ends_when_the_commands_expire(lab, monkeypatch):
    """Without a time of its own it waits for as long as a command does, and a moment longer."""
    monkeypatch.setattr(task_watch, "GRACE", 0.2)
    await lab.account.reliable_tasking.task("os_version", sid=lab.sids[0], context="inc", ttl=1)
    async with TaskWatch(lab.account, "inc") as watch, asyncio.timeout(5):
        await watch.look()
        assert [] == await collect(watch, None)


async def test_a_command_that_is_taken_back_is_not_waited_for(lab, monkeypatch):
    """One that is out of the queue without a confirmation is told as gone, so that the watch ends."""
    monkeypatch.setattr(task_watch, "LOOK", 0.05)
    await lab.task()
    async with TaskWatch(lab.account, "inc") as watch:
        await watch.look()
        await lab.account.reliable_tasking.untask(sid=lab.sids[0])
        lab.presence(lab.sids[1], online=True)
        assert 1 == len(await collect(watch))
    assert (1, 1, 1) == (watch.progress.wanted, watch.progress.answered, watch.progress.gone)


async def test_a_confirmed_command_is_waited_for(lab, monkeypatch):
    """A sensor that has the command and is at work on it is not taken for gone."""
    monkeypatch.setattr(task_watch, "LOOK", 0.05)
    lab.turn("tasks", delay=0.5)
    await lab.task(lab.sids[0])
    async with TaskWatch(lab.account, "inc") as watch:
        await watch.look()
        lab.presence(lab.sids[0], online=True)
        assert [(lab.sids[0], "OS_VERSION_REP")] == await collect(watch)
    assert 0 == watch.progress.gone


async def test_more_commands_join(lab, monkeypatch):
    """A command that is given meanwhile is waited for as well, and a stream that breaks is opened again."""
    monkeypatch.setattr(task_watch, "LOOK", 0.05)
    await lab.task(lab.sids[0])
    async with TaskWatch(lab.account, "inc") as watch:
        await watch.look()
        answers = asyncio.create_task(collect(watch))
        await lab.task(lab.sids[1], context="inc/more")
        while watch.progress.wanted != 2:
            await asyncio.sleep(0.01)
        lab.turn("close", how="abort")
        while not watch.progress.gaps:
            await asyncio.sleep(0.01)
        await watch._listener.ready()
        for sid in lab.sids:
            lab.presence(sid, online=True)
        assert sorted(lab.sids) == sorted(sid for sid, _ in await answers)
    assert 1 == watch.progress.gaps


async def test_what_is_hidden_cannot_be_watched(lab):
    """LimaCharlie keeps such investigations out of every stream."""
    with pytest.raises(UsageError, match="begins with __"):
        TaskWatch(lab.account, "__x")
