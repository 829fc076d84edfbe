"""A source, a filter and a sink that know `pipeline` only."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import orjson

from pipeline import (
    Duration,
    Event,
    Field,
    Filter,
    FilterConfig,
    Items,
    Outlet,
    RecordPath,
    Sink,
    SinkConfig,
    Source,
    SourceConfig,
)


class HeartbeatConfig(SourceConfig):
    """Emit one record at a fixed interval; for demos and for checking that a route is alive."""

    interval: Duration = Field(1.0, gt=0)
    """Time between two records."""
    beats: int | None = Field(None, gt=0)
    """How many; without end unless set."""


class Heartbeat(Source[HeartbeatConfig]):
    async def run(self, outlet: Outlet) -> None:
        beat = 0
        while not self.stopping.is_set() and beat != self.config.beats:
            beat += 1
            await outlet.send([orjson.dumps({"routing": {"event_type": "HEARTBEAT"}, "event": {"beat": beat}})])
            await self.sleep(self.config.interval)


class ShoutConfig(FilterConfig):
    """Write a text in capitals."""

    path: RecordPath
    """Where the text is."""


class Shout(Filter[ShoutConfig]):
    def apply(self, events: Sequence[Event]) -> Sequence[Event]:
        for event in events:
            text = self.config.path.value(event.doc)
            if isinstance(text, str):
                event.replace(self._with(event.doc, self.config.path.keys, text.upper()))
        return events

    def _with(self, doc: dict[str, object], keys: Sequence[str], value: str) -> dict[str, object]:
        first, *rest = keys
        inner = doc[first]
        return {**doc, first: self._with(inner, rest, value) if rest and isinstance(inner, dict) else value}


class NotebookConfig(SinkConfig):
    """Append every payload to one file."""

    path: Path
    """The file."""


class Notebook(Sink[NotebookConfig]):
    async def write(self, items: Items) -> None:
        lines = b"".join(item.payload + b"\n" for item in items)
        await asyncio.to_thread(self._append, lines)

    def _append(self, lines: bytes) -> None:
        with self.config.path.open("ab") as file:
            file.write(lines)
