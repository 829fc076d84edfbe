"""A running `firehose` on a free port, with an outlet that can be held shut."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import structlog

from pipeline.core.batch import Receipt
from pipeline.core.component import Context, Org
from pipeline.kit.clock import SystemClock
from pipeline.sources.firehose import Firehose, FirehoseConfig

OID = "8cbe27f4-aaaa-4bbb-8ccc-000000000001"


class GatedOutlet:
    """Takes records at once, or only when `gate` is set."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.gate.set()
        self.records: dict[str | None, list[bytes]] = {}
        self.refused: list[tuple[bytes, str]] = []
        self.waiting = False
        self.changed = asyncio.Condition()

    @property
    def all(self) -> list[bytes]:
        return [record for records in self.records.values() for record in records]

    async def send(self, raws: Any, stream: str | None = None, org: str | None = None) -> Receipt:
        await self.gate.wait()
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

    def state(self, state: str, text: str = "", code: str = "") -> None:
        self.states.append((state, text, code))

    def error(self, code: str, count: int = 1) -> None:
        self.errors.append(code)

    def gap(self, start: float, end: float, reason: str, *, org: str = "") -> None:
        assert start <= end
        self.gaps.append((reason, org))

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
                await task
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
