"""AI sessions of a local LimaCharlie in the test's own loop, and a source that follows them."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from pipeline.core.component import Org
from pipeline.emulator.knobs import parse
from pipeline.emulator.server import Emulator
from pipeline.emulator.state import Settings
from pipeline.kit.clock import SystemClock
from pipeline.limacharlie.client import LimaCharlie
from pipeline.limacharlie.config import LimaCharlieConfig
from pipeline.sources.ai_session import AiSession, AiSessionConfig
from pipeline.testing import RecordingOutlet, RecordingReport, context


class Cloud:
    """The emulator with its knobs, and the organization's client."""

    def __init__(self, emulator: Emulator, account: LimaCharlie) -> None:
        self.emulator = emulator
        self.ready = emulator.ready()
        self.account = account

    def turn(self, knob: str, **arguments: Any) -> Any:
        return parse(knob, arguments).turn(self.emulator.panel)

    def transcript(self, session_id: str) -> list[Any]:
        return [json.loads(said.data) for said in self.emulator.panel.ai.sessions[session_id].transcript]

    async def start(self, prompt: str = "list the files", **options: Any) -> str:
        """Begin a session of the organization."""
        profile = {"allowed_tools": ["Bash"], **options.pop("profile", {})}
        found = await self.account.ai.org_sessions.start(prompt, anthropic_key="sk-ant-x", profile=profile, **options)
        return found.id


@pytest.fixture
async def cloud() -> AsyncIterator[Cloud]:
    async with contextlib.AsyncExitStack() as stack:
        emulator = Emulator(Settings(port=0, rate=0))
        await emulator.start()
        stack.push_async_callback(emulator.stop)
        ready = emulator.ready()
        section = LimaCharlieConfig(oid=ready["oid"], api_key=ready["api_key"], url=ready["url"])
        account = await stack.enter_async_context(LimaCharlie(section, environ={}))
        found = Cloud(emulator, account)
        found.turn("ai_timing", start=0.02, pace=0.002)
        yield found


class Following:
    """A source that runs, and what it sent."""

    def __init__(self, source: AiSession, outlet: RecordingOutlet, report: RecordingReport) -> None:
        self.source = source
        self.outlet = outlet
        self.report = report
        self.task = asyncio.create_task(source.run(outlet))

    @property
    def records(self) -> list[dict[str, Any]]:
        return [json.loads(raw) for raw in self.outlet.records]

    def messages(self, session_id: str) -> list[Any]:
        return [record["event"] for record in self.records if record["session"]["id"] == session_id]

    async def until(self, event_type: str, count: int = 1) -> dict[str, Any]:
        """The count-th record of a type."""
        seen = 0
        while True:
            found = [record for record in self.records if record["routing"]["event_type"] == event_type]
            if len(found) >= count:
                return found[count - 1]
            seen = max(seen + 1, len(self.outlet.sent) + 1)
            await self.outlet.wait_for(seen)

    async def stop(self) -> None:
        self.source.stopping.set()
        await asyncio.wait_for(self.task, 10)


@pytest.fixture
async def follow(cloud: Cloud) -> AsyncIterator[Callable[..., Following]]:
    started: list[Following] = []

    def start(**keys: Any) -> Following:
        room = keys.pop("room", None)
        report, outlet = RecordingReport(), RecordingOutlet(room=room)
        org = Org("", cloud.ready["oid"], cloud.account)
        surroundings = context("ai", clock=SystemClock(), report=report, orgs=[org])
        config = AiSessionConfig(**{"poll": 0.1, **keys})
        started.append(Following(AiSession(config, surroundings), outlet, report))
        return started[-1]

    yield start
    for one in started:
        one.task.cancel()
    await asyncio.gather(*(one.task for one in started), return_exceptions=True)
