"""The local LimaCharlie: all services on one port, put together, started and stopped."""

from __future__ import annotations

import asyncio
import contextlib
import os
import tempfile
from pathlib import Path
from typing import Any

import orjson
from aiohttp import web
from aiohttp.typedefs import Handler

from pipeline.emulator.access import Access
from pipeline.emulator.ai import ai_services
from pipeline.emulator.certificates import server_context
from pipeline.emulator.connections import Scope
from pipeline.emulator.control import ControlService
from pipeline.emulator.dialer import Dialer
from pipeline.emulator.errors import ErrorService
from pipeline.emulator.faults import Faults, route_of
from pipeline.emulator.front import Peer
from pipeline.emulator.hub import Hub
from pipeline.emulator.jwt import JwtService, Tokens
from pipeline.emulator.ledger import Ledger
from pipeline.emulator.outputs import OutputService
from pipeline.emulator.panel import Panel
from pipeline.emulator.rest import Rest
from pipeline.emulator.scenario import Scenario
from pipeline.emulator.state import Cloud, Settings
from pipeline.emulator.streams import StreamService
from pipeline.emulator.websocket import WebSocketService
from pipeline.kit.log import get

STOP_GRACE = 3.0
"""Seconds that peers have to close in order when the emulator stops."""

BACKLOG = 1024
MAX_BODY = 64 << 20

log = get(component="emulator")


class Emulator:
    """Listens and works between `start` and `stop`.

    Raises `ValueError` for an unusable scenario and `OSError` when it cannot write its ledger.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._scenario = Scenario(settings.scenario)
        cloud = Cloud(settings)
        tokens, faults = Tokens(cloud), Faults()
        access = Access(cloud, tokens)
        self.hub = Hub(cloud, Ledger(settings.ledger))
        self._dialer = Dialer(self.hub)
        rest = Rest(cloud, access, self.hub.live)
        self.panel = Panel(self.hub, tokens, faults, self._dialer, rest)
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._ca: Path | None = None
        self._server: asyncio.Server | None = None
        self._tasks: list[asyncio.Task[None]] = []
        app = web.Application(middlewares=[self._guard], client_max_size=MAX_BODY)
        app.on_response_prepare.append(self._prepared)
        for service in (
            JwtService(tokens, rest.replay.serve),
            *rest.services,
            OutputService(access, self._dialer),
            ErrorService(access),
            ControlService(self.panel),
            *ai_services(self.panel.ai, access, tokens),
            WebSocketService(self.hub, access, faults),
            # last, for its path takes any word
            StreamService(self.hub, access, faults),
        ):
            app.add_routes(service.routes())
        self._runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=1.0)

    @property
    def url(self) -> str:
        assert self._server is not None
        host, port = self._server.sockets[0].getsockname()[:2]
        if host in ("0.0.0.0", "::"):  # noqa: S104 - compared, not bound
            host = "127.0.0.1" if host == "0.0.0.0" else "::1"  # noqa: S104 - same
        shown = f"[{host}]" if ":" in host else host
        return f"{'https' if self.settings.tls else 'http'}://{shown}:{port}"

    def ready(self) -> dict[str, Any]:
        """What a client needs to know, as in the ready file."""
        cloud = self.hub.cloud
        return {
            "url": self.url,
            "ca": None if self._ca is None else str(self._ca),
            "oid": cloud.first.oid,
            "api_key": cloud.first.api_key,
            "uid": cloud.uid,
            "user_api_key": cloud.user_api_key,
            "ingestion_key": cloud.ingestion_key,
            "pid": os.getpid(),
            "orgs": [{"name": org.name, "oid": org.oid, "api_key": org.api_key} for org in cloud.orgs.values()],
        }

    async def start(self) -> None:
        """Listen and begin; raises `OSError` where that cannot be."""
        context = None
        if self.settings.tls:
            self._folder = tempfile.TemporaryDirectory(prefix="lc-emulator-")
            context, self._ca = server_context(Path(self._folder.name), self.settings.host)
        await self._runner.setup()
        http = self._runner.server
        assert http is not None
        self._server = await asyncio.get_running_loop().create_server(
            lambda: Peer(http()), self.settings.host, self.settings.port, ssl=context, backlog=BACKLOG
        )
        # their own tasks, not a group's: each ends on its own terms at the stop
        self._tasks = [
            asyncio.create_task(work)
            for work in (
                self.hub.live.run(),
                self.panel.rest.agents.run(),
                self._dialer.run(),
                self._scenario.run(self.panel),
                self.panel.ai.run(),
            )
        ]
        if self.settings.ready_file is not None:
            _write_atomically(self.settings.ready_file, orjson.dumps(self.ready()))
        log.info("The local LimaCharlie listens.", url=self.url, oid=self.hub.cloud.first.oid, ca=self._ca)

    async def work(self, stop: asyncio.Event) -> None:
        """Wait for the event, or until a background task breaks, and raise what broke it."""
        asked = asyncio.create_task(stop.wait())
        waiting = {asked, *self._tasks}
        try:
            while not asked.done():
                done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
        finally:
            asked.cancel()

    async def stop(self) -> None:
        """End all connections in order, wait a little for their peers, and close; may be called again."""
        if self._server is not None:
            self._server.close()
        self.hub.stop()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STOP_GRACE):
                await self.hub.ledger.all_ended()
        for connection in self.hub.within(Scope()):
            connection.close("abort")
        for task in self._tasks:
            task.cancel()
        results = await asyncio.gather(*self._tasks, return_exceptions=True)
        self.hub.ledger.close()
        await self._runner.cleanup()
        if self._folder is not None:
            self._folder.cleanup()
        for result in results:
            if isinstance(result, Exception):
                raise result

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Faults first; and what is not served is a JSON error at once."""
        if request.path.startswith("/_emulator/"):
            return await handler(request)
        if self.hub.stopping.is_set():
            return web.json_response({"error": "the emulator stops"}, status=503)
        answer = await self.panel.faults.before(request)
        if answer is not None:
            return answer
        try:
            return await handler(request)
        except web.HTTPException as error:
            if error.content_type == "application/json":
                raise
            return web.json_response({"error": error.reason}, status=error.status)

    async def _prepared(self, request: web.Request, response: web.StreamResponse) -> None:
        if not request.path.startswith("/_emulator/"):
            template, _ = route_of(request)
            self.panel.requests[f"{request.method} {template}"][str(response.status)] += 1
            await self.panel.faults.decorate(request, response)


def _write_atomically(path: Path, data: bytes) -> None:
    part = path.with_name(path.name + ".part")
    part.write_bytes(data)
    part.replace(path)
