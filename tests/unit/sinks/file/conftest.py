"""A file sink with the part of the engine that it talks to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any, cast

import pytest
import structlog

from pipeline.core.batch import LogId
from pipeline.core.component import Context, Report
from pipeline.core.items import Items, Part
from pipeline.sinks.file import FileConfig, FileSink


class MovableClock:
    """Stands where a test puts it."""

    def __init__(self) -> None:
        self.time = 1_800_000_000.0

    def now(self) -> float:
        return self.time

    def monotonic(self) -> float:
        return self.time


class Reported:
    def __init__(self) -> None:
        self.states: list[tuple[str, str, str]] = []

    def state(self, state: str, text: str = "", code: str = "") -> None:
        self.states.append((state, text, code))


class Archive:
    """Makes sinks, keeps the marks that they commit, and knows what was logged."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.clock = MovableClock()
        self.report = Reported()
        self.early_marks: list[dict[str, Any]] = []
        self.logged: list[Any] = []
        self.sinks: list[FileSink] = []

    def make(self, name: str = "{stream}.jsonl", **config: Any) -> FileSink:
        async def commit_mark(mark: Mapping[str, Any]) -> None:
            self.early_marks.append(dict(mark))

        context = Context(
            "archive",
            structlog.get_logger(),
            self.clock,
            cast("Report", self.report),
            asyncio.Event(),
            commit_mark=commit_mark,
        )
        sink = FileSink(FileConfig.model_validate({"type": "file", "path": f"{self.root}/{name}", **config}), context)
        self.sinks.append(sink)
        return sink

    async def opened(
        self, name: str = "{stream}.jsonl", marks: Mapping[str, Any] | None = None, **config: Any
    ) -> FileSink:
        sink = self.make(name, **config)
        await sink.open(marks or {})
        return sink

    def path(self, name: str) -> str:
        return str(self.root / name)

    def text(self, name: str) -> str:
        return (self.root / name).read_text()

    def names(self) -> list[str]:
        return sorted(str(path.relative_to(self.root)) for path in self.root.rglob("*") if path.is_file())


@pytest.fixture
async def archive(tmp_path: Path) -> AsyncIterator[Archive]:
    archive = Archive(tmp_path / "data")
    with structlog.testing.capture_logs() as logged:
        archive.logged = logged
        yield archive
        for sink in archive.sinks:
            await sink.close()


def items(*payloads: bytes, stream: str = "event", at: float = 1_800_000_000.0, values: Any = None) -> Items:
    return Items([Part(payloads, stream, LogId("source", "acme"), at, values=values)])


@pytest.fixture
def part() -> Any:
    return items
