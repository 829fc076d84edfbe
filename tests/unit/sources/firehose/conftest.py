"""A running `firehose` on a free port, with an outlet that can be held shut."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import structlog

from pipeline.core.batch import Receipt
from pipeline.core.component import Context, Org
from pipeline.core.types import Secret
from pipeline.emulator.server import Emulator
from pipeline.emulator.state import Settings
from pipeline.kit.clock import SystemClock
from pipeline.limacharlie.client import LimaCharlie
from pipeline.limacharlie.config import LimaCharlieConfig
from pipeline.sources.firehose import Firehose, FirehoseConfig

OID = "8cbe27f4-aaaa-4bbb-8ccc-000000000001"


class GatedOutlet:
    """Takes records at once, or only when `gate` is set; raises what `faulty` has for the organization."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.gate.set()
        self.records: dict[str | None, list[bytes]] = {}
        self.refused: list[tuple[bytes, str]] = []
        self.waiting = False
        self.faulty: dict[str | None, Exception] = {}
        self.largest = 0
        """Records in the largest `send`."""
        self.changed = asyncio.Condition()

    @property
    def all(self) -> list[bytes]:
        return [record for records in self.records.values() for record in records]

    async def send(self, raws: Any, stream: str | None = None, org: str | None = None) -> Receipt:
        self.largest = max(self.largest, len(raws))
        if org in self.faulty:
            raise self.faulty[org]
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            # As the engine's outlet does with what it could not append.
            self.refused += [(raw, "shutdown") for raw in raws]
            raise
        self.records.setdefault(org, []).extend(raws)
        async with self.changed:
            self.changed.notify_all()
        return Receipt(count=len(raws))

    def refuse(self, raw: bytes, reason: str, org: str | None = None) -> None:
        self.refused.append((raw, reason))

    async def until(self, count: int) -> list[bytes]:
        async with asyncio.timeout(10), self.changed:
            await self.changed.wait_for(lambda: len(self.all) >= count)
        return self.all


@dataclass
class Reports:
    states: list[tuple[str, str, str]] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)
    gaps: list[tuple[str, str]] = field(default_factory=list)
    """Those that are over."""
    open_gaps: dict[str, str] = field(default_factory=dict)

    def state(self, state: str, text: str = "", code: str = "") -> None:
        self.states.append((state, text, code))

    def error(self, code: str, count: int = 1) -> None:
        self.errors.append(code)

    def gap_opened(self, start: float, reason: str, *, org: str = "") -> None:
        del start
        self.open_gaps.setdefault(org, reason)

    def gap_closed(self, *, org: str = "") -> None:
        if org in self.open_gaps:
            self.gaps.append((self.open_gaps.pop(org), org))

    def heard(self, now: float, *, org: str = "") -> None:
        """Nothing to remember."""

    def upstream_dropped(self, count: int, *, org: str = "") -> None:
        raise AssertionError

    def count(self, name: str, amount: int = 1) -> None:
        self.counts[name] = self.counts.get(name, 0) + amount


@dataclass
class Lab:
    source: Firehose
    outlet: GatedOutlet
    report: Reports
    stopping: asyncio.Event
    log: list[Any]
    task: asyncio.Task[None]

    @property
    def port(self) -> int:
        assert self.source.address is not None
        return self.source.address.port

    async def connect(
        self, *, tls: bool = True, host: str = "127.0.0.1"
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        context = ssl._create_unverified_context() if tls else None
        return await asyncio.open_connection(host, self.port, ssl=context)

    async def push(self, data: bytes, *, tls: bool = True) -> None:
        """Connect, send all, close in order."""
        reader, writer = await self.connect(tls=tls)
        with contextlib.suppress(ConnectionError):
            writer.write(data)
            await writer.drain()
            if not tls:
                writer.write_eof()
                await reader.read()
        writer.close()
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            await writer.wait_closed()

    async def until(self, condition: Callable[[], Any]) -> None:
        """Wait for what has no event of its own."""
        async with asyncio.timeout(10):
            while not condition():
                await asyncio.sleep(0.005)

    async def stop(self) -> None:
        self.stopping.set()
        async with asyncio.timeout(10):
            await self.task

    async def cancel(self) -> None:
        """End it as the stop timeout does."""
        self.stopping.set()
        self.task.cancel()
        await asyncio.wait([self.task], timeout=10)
        assert self.task.cancelled()


Start = Callable[..., AbstractAsyncContextManager[Lab]]


@pytest.fixture
def start() -> Start:
    """``async with start(orgs=[…], **config) as lab``."""

    @asynccontextmanager
    async def running(orgs: Any = (Org(oid=OID),), **config: Any) -> AsyncIterator[Lab]:
        stopping, report, outlet = asyncio.Event(), Reports(), GatedOutlet()
        log = structlog.testing.LogCapture()
        logger = structlog.wrap_logger(None, processors=[log])
        context = Context(id="hose", log=logger, clock=SystemClock(), report=report, stopping=stopping, orgs=orgs)
        source = Firehose(FirehoseConfig.model_validate({"listen": "127.0.0.1:0", **config}), context)
        await source.open()
        task = asyncio.create_task(source.run(outlet))
        lab = Lab(source, outlet, report, stopping, log.entries, task)
        try:
            yield lab
        finally:
            outlet.gate.set()
            stopping.set()
            async with asyncio.timeout(10):
                if not lab.task.cancelled():
                    await lab.task
            await source.close()

    return running


@pytest.fixture
def record() -> Callable[..., bytes]:
    """A record of an organization: ``record(n, oid=…, size=…)``."""

    def make(number: int = 0, oid: str = OID, size: int = 0) -> bytes:
        return b'{"routing":{"oid":"%s"},"event":{"n":%d,"pad":"%s"}}' % (oid.encode(), number, b"x" * size)

    return make


@pytest.fixture
def openssl() -> Callable[..., subprocess.CompletedProcess[bytes]]:
    def run(port: int, data: bytes, *arguments: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            ["openssl", "s_client", "-quiet", "-no_ign_eof", "-connect", f"127.0.0.1:{port}", *arguments],
            input=data, capture_output=True, timeout=15, check=False,
        )  # fmt: skip

    return run


@pytest.fixture
async def cloud(tmp_path: Path) -> AsyncIterator[list[Org]]:
    """A local LimaCharlie that has 40 records a stream for two organizations, each as an `Org` with its client."""
    async with AsyncExitStack() as stack:
        emulator = Emulator(Settings(port=0, rate=0, events=40, orgs=2, ledger=tmp_path))
        stack.push_async_callback(emulator.stop)
        await emulator.start()
        ready = emulator.ready()
        orgs = []
        for name, entry in zip(("acme", "globex"), ready["orgs"], strict=True):
            config = LimaCharlieConfig(url=ready["url"], oid=entry["oid"], api_key=Secret(entry["api_key"]))
            account = await stack.enter_async_context(LimaCharlie(config, environ={}))
            orgs.append(Org(name, entry["oid"], account))
        yield orgs


@pytest.fixture
async def turn() -> AsyncIterator[Callable[..., Awaitable[None]]]:
    """Turn a knob of the local LimaCharlie: ``await turn(org, "revoke", oid=org.oid)``."""
    async with aiohttp.ClientSession() as client:

        async def post(org: Org, knob: str, **arguments: Any) -> None:
            async with client.post(f"{org.account.config.url}/_emulator/{knob}", json=arguments) as answer:
                assert answer.status == 200, await answer.text()

        yield post


@pytest.fixture
def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port: int = sock.getsockname()[1]
        return port
