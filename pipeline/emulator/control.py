"""The emulator's own paths, under ``/_emulator/``."""

from __future__ import annotations

import orjson
from aiohttp import web

from pipeline.emulator.connections import Scope
from pipeline.emulator.knobs import describe, parse
from pipeline.emulator.panel import Panel


class ControlService:
    def __init__(self, panel: Panel) -> None:
        self._panel = panel

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/_emulator/", self.list),
            web.get("/_emulator/requests", self.requests),
            web.get("/_emulator/connections", self.connections),
            web.post("/_emulator/{knob}", self.turn),
        ]

    async def list(self, _request: web.Request) -> web.Response:
        return web.json_response(describe())

    async def requests(self, _request: web.Request) -> web.Response:
        """How often each route was asked, by status."""
        return web.json_response(self._panel.requests)

    async def connections(self, _request: web.Request) -> web.Response:
        """The stream connections that are open, and what was handed to each."""
        found = self._panel.hub.within(Scope())
        rows = [
            {"via": one.via, "oid": one.oid, "stream": one.stream, "name": one.name, "sent": one.sent} for one in found
        ]
        return web.json_response({"connections": rows})

    async def turn(self, request: web.Request) -> web.Response:
        try:
            arguments = orjson.loads(await request.read() or b"{}")
            knob = parse(request.match_info["knob"], arguments)
            return web.json_response(knob.turn(self._panel))
        except LookupError as error:
            return web.json_response({"error": str(error.args[0])}, status=404)
        except ValueError as error:
            return web.json_response({"error": str(error)}, status=400)
