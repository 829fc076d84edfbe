"""Sources with an outlet that keeps what it is sent."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any, cast

import pytest
import structlog

from pipeline.core.batch import Receipt
from pipeline.core.component import Context, Report
from pipeline.kit.clock import SystemClock


class Sent:
    """Implements `Outlet` and lets a test wait for what arrives."""

    waiting = False

    def __init__(self) -> None:
        self.records: list[bytes] = []
        self.refused: list[tuple[bytes, str]] = []
        self.counted: list[str] = []
        self.failures = 0
        self._news = asyncio.Event()

    async def send(self, raws: Sequence[bytes], **_named: str | None) -> Receipt:
        if raws and self.failures:
            self.failures -= 1
            raise OSError("the spool is broken")
        self.records += raws
        self._news.set()
        return Receipt(len(raws))

    def refuse(self, raw: bytes, reason: str) -> None:
        self.refused.append((raw, reason))

    def count(self, name: str) -> None:
        self.counted.append(name)

    async def until(self, count: int) -> list[bytes]:
        while len(self.records) < count:
            self._news.clear()
            await self._news.wait()
        return self.records


class Bench:
    def __init__(self, root: Path) -> None:
        self.root = root
        self.sent = Sent()
        self.stopping = asyncio.Event()
        self.logged: list[Any] = []
        self.tasks: list[asyncio.Task[None]] = []
        self.sources: list[Any] = []

    def source(self, source_class: Any, config_class: Any, **config: Any) -> Any:
        context = Context("in", structlog.get_logger(), SystemClock(), cast("Report", self.sent), self.stopping)
        source = source_class(config_class.model_validate({"type": "file", **config}), context)
        self.sources.append(source)
        return source

    def start(self, source: Any) -> asyncio.Task[None]:
        task = asyncio.ensure_future(source.run(self.sent))
        self.tasks.append(task)
        return task


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    bench = Bench(tmp_path)
    with structlog.testing.capture_logs() as logged:
        bench.logged = logged
        yield bench
        bench.stopping.set()
        if bench.tasks:
            await asyncio.wait(bench.tasks)
        for source in bench.sources:
            await source.close()
