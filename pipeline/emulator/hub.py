"""What every service that streams needs: settings, ledger, live records, and the connections that are open."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from pipeline.emulator.connections import Connection, Scope, Shapes
from pipeline.emulator.ledger import Ledger
from pipeline.emulator.live import Live
from pipeline.emulator.state import Cloud, Settings


class Hub:
    def __init__(self, cloud: Cloud, ledger: Ledger) -> None:
        self.cloud = cloud
        self.ledger = ledger
        self.live = Live(cloud, ledger)
        self.shapes = Shapes()
        self.stopping = asyncio.Event()
        self._open: set[Connection] = set()

    @property
    def settings(self) -> Settings:
        return self.cloud.settings

    @contextmanager
    def open(self, connection: Connection) -> Iterator[None]:
        """Make a connection known, so that knobs and the stop reach it."""
        self._open.add(connection)
        if self.stopping.is_set():
            connection.close("clean")
        try:
            yield
        finally:
            self._open.discard(connection)

    def within(self, scope: Scope) -> list[Connection]:
        return [connection for connection in self._open if connection.within(scope)]

    def stop(self) -> None:
        """End all connections in order."""
        self.stopping.set()
        for connection in self._open:
            connection.close("clean")

    async def sleep(self, seconds: float) -> None:
        """Wait, but not past the stop."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.stopping.wait()
