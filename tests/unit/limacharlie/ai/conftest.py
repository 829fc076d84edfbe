"""AI sessions of a local LimaCharlie in the test's own loop."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from pipeline.emulator.knobs import parse
from pipeline.emulator.server import Emulator
from pipeline.emulator.state import Settings
from pipeline.limacharlie.ai.client import Ai
from pipeline.limacharlie.ai.live import LiveSession
from pipeline.limacharlie.ai.message import Message
from pipeline.limacharlie.ai.sessions import SessionInfo
from pipeline.limacharlie.client import LimaCharlie
from pipeline.limacharlie.config import LimaCharlieConfig

CLAUDE_KEY = "sk-ant-api03-very-secret"


class Cloud:
    """The emulator, its knobs, and clients of it."""

    def __init__(self, emulator: Emulator, stack: contextlib.AsyncExitStack) -> None:
        self.emulator = emulator
        self.ready = emulator.ready()
        self._stack = stack

    def turn(self, knob: str, **arguments: Any) -> Any:
        return parse(knob, arguments).turn(self.emulator.panel)

    async def client(self, **config: Any) -> LimaCharlie:
        """The user's client; with `api_key` that of another key."""
        given = {"oid": self.ready["oid"], "uid": self.ready["uid"], "api_key": self.ready["user_api_key"]} | config
        section = LimaCharlieConfig(**{"url": self.ready["url"], "tls": {"ca": self.ready["ca"]}} | given)
        return await self._stack.enter_async_context(LimaCharlie(section, environ={}))

    def transcript(self, session_id: str) -> list[bytes]:
        return [said.data for said in self.emulator.panel.ai.sessions[session_id].transcript]

    def requests(self, path: str) -> int:
        return sum(sum(counts.values()) for name, counts in self.emulator.panel.requests.items() if path in name)


@pytest.fixture
async def cloud(request: pytest.FixtureRequest) -> AsyncIterator[Cloud]:
    """A test that has ``tls`` among its keywords gets one over TLS."""
    async with contextlib.AsyncExitStack() as stack:
        emulator = Emulator(Settings(port=0, rate=0, tls="tls" in request.keywords))
        await emulator.start()
        stack.push_async_callback(emulator.stop)
        found = Cloud(emulator, stack)
        found.turn("ai_timing", start=0.02, pace=0.002)
        yield found


@pytest.fixture
async def lc(cloud: Cloud) -> LimaCharlie:
    """A client of a user who is registered, with credentials."""
    cloud.turn("ai_account")
    return await cloud.client()


@pytest.fixture
def ai(lc: LimaCharlie) -> Ai:
    return lc.ai


Running = Callable[..., Awaitable[SessionInfo]]


@pytest.fixture
def running(ai: Ai) -> Running:
    """Creates a session and waits until it runs."""

    async def create(**options: Any) -> SessionInfo:
        info = await ai.sessions.create(**options)
        while info.status == "starting":
            await asyncio.sleep(0.01)
            info = await ai.sessions.get(info.id)
        return info

    return create


class Reader:
    """Takes the messages of a session as they come, so that a test can wait for one."""

    def __init__(self, live: LiveSession) -> None:
        self.got: list[Message] = []
        self._news = asyncio.Condition()
        self.task = asyncio.create_task(self._read(live))

    async def _read(self, live: LiveSession) -> None:
        async for message in live.messages():
            async with self._news:
                self.got.append(message)
                self._news.notify_all()

    async def until(self, kind: str, count: int = 1) -> Message:
        """The count-th message of a type."""

        def found() -> list[Message]:
            return [message for message in self.got if message.type == kind]

        async with self._news:
            await self._news.wait_for(lambda: len(found()) >= count)
        return found()[count - 1]

    @property
    def types(self) -> list[str]:
        return [message.type for message in self.got]

    @property
    def raw(self) -> list[bytes]:
        return [message.raw for message in self.got]


@pytest.fixture
async def read() -> AsyncIterator[Callable[[LiveSession], Reader]]:
    readers: list[Reader] = []

    def start(live: LiveSession) -> Reader:
        readers.append(Reader(live))
        return readers[-1]

    yield start
    for reader in readers:
        reader.task.cancel()
    await asyncio.gather(*(reader.task for reader in readers), return_exceptions=True)
