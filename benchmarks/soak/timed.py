"""The file sink, with a clock: a component from outside, as any package may bring one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, Literal

from pipeline.core.component import Context
from pipeline.core.items import Items
from pipeline.core.sink import Mark, Sink
from pipeline.sinks.file import FileConfig, FileSink

Seen = list[tuple[float, int]]
"""Seconds, and how many records took so long."""


class TimedFileConfig(FileConfig):
    """A file sink that notes how long records took from their receipt until they were stored."""

    type: Literal["timed_file"] = "timed_file"  # type: ignore[assignment]  # its own name
    times: Path
    """Where it notes that, one JSON line for each second."""


class TimedFile(FileSink, Sink[TimedFileConfig]):  # type: ignore[misc]  # the second says which config it has
    def __init__(self, config: TimedFileConfig, context: Context) -> None:
        super().__init__(config, context)
        self._times = config.times
        self._output: IO[str] | None = None
        self._second = 0
        self._written: Seen = []
        self._synced: Seen = []
        self._unsynced: Seen = []

    async def open(self, marks: Mapping[str, Any]) -> None:
        if self._output is None:
            self._output = self._times.open("w", buffering=1)
        await super().open(marks)

    async def write(self, items: Items) -> Mark:
        mark = await super().write(items)
        now = self.clock.now()
        received = [(part.received_at, len(part.payloads)) for part in items.parts]
        self._written += [(now - at, count) for at, count in received]
        self._unsynced += received
        self._note(now)
        return mark

    async def sync(self) -> None:
        taken, self._unsynced = self._unsynced, []
        await super().sync()
        now = self.clock.now()
        self._synced += [(now - at, count) for at, count in taken]

    def _note(self, now: float) -> None:
        if int(now) == self._second or self._output is None:
            return
        self._second = int(now)
        line = {"at": self._second, "written": self._written, "synced": self._synced}
        self._output.write(json.dumps(line) + "\n")
        self._written, self._synced = [], []
