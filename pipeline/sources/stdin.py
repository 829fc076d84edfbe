"""Source `stdin`: JSON lines from the standard input."""

from __future__ import annotations

import asyncio
import os
import select
from typing import ClassVar

from pipeline.core.config import SourceConfig
from pipeline.core.source import Outlet, Source
from pipeline.sources.lines import Lines

_CHUNK = 1 << 18
_PIPE_MAX = 1 << 20


class StdinConfig(SourceConfig):
    """Read JSON lines from the standard input until it ends."""


class StdinSource(Source[StdinConfig]):
    any_org: ClassVar[bool] = True
    fd: ClassVar[int] = 0

    async def run(self, outlet: Outlet) -> None:
        lines = Lines(self.config, outlet)
        while not self.stopping.is_set():
            chunk = await self._read()
            if chunk is None:
                break
            if not chunk:
                await outlet.send(lines.end())
                return
            await outlet.send(lines.feed(chunk))
        await outlet.send(lines.feed(self._rest()) + lines.end())

    async def _read(self) -> bytes | None:
        """What is there, as soon as something is; b"" at the end, None when the source is stopping."""
        loop = asyncio.get_running_loop()
        ready = asyncio.Event()
        try:
            loop.add_reader(self.fd, ready.set)
        except (PermissionError, ValueError):
            # A regular file cannot be waited for.
            return await asyncio.to_thread(os.read, self.fd, _CHUNK)
        waits = [asyncio.ensure_future(event.wait()) for event in (ready, self.stopping)]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            loop.remove_reader(self.fd)
            for wait in waits:
                wait.cancel()
        return os.read(self.fd, _CHUNK) if ready.is_set() else None

    def _rest(self) -> bytes:
        """What the kernel holds already, as much as a pipe can."""
        found = b""
        while len(found) < _PIPE_MAX and select.select([self.fd], [], [], 0)[0]:
            chunk = os.read(self.fd, _CHUNK)
            if not chunk:
                break
            found += chunk
        return found
