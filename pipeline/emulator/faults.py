"""The faults that are armed now, and what they do to a request."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import orjson
from aiohttp import web

ROUTES = {
    "/": "jwt",
    "/jwt": "jwt",
    "/{oid}": "stream",
    "/stream/{oid}": "stream",
    "/stream-tmp/{oid}": "stream",
    "/v1/orgs/{oid}/url": "url",
    "/ws": "stream",
    "/stream/ws": "stream",
    "/{oid}/{name}/{secret}": "hooks",
}
"""Short names of routes for knobs; the others are called after their first word, or that which follows /v1/."""


def route_of(request: web.Request) -> tuple[str, str]:
    """A request's path template, and the short name of its route; both ``unknown`` where nothing is served."""
    resource = request.match_info.route.resource
    if resource is None:
        return "unknown", "unknown"
    template = resource.canonical
    word = template.removeprefix("/v1/").removeprefix("/").partition("/")[0]
    return template, ROUTES.get(template) or ("sensor" if word == "{sid}" else word)


@dataclass
class Armed:
    """One fault, for `times` matching requests (None: until cleared)."""

    route: str | None = None
    oid: str | None = None
    stream: str | None = None
    times: int | None = 1


@dataclass
class Answer(Armed):
    status: int = 500
    body: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Delay(Armed):
    seconds: float = 0.0


@dataclass
class Header(Armed):
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Opening(Armed):
    """A stream that ends right after its 200, with or without a line of text."""

    line: str = ""


A = TypeVar("A", bound=Armed)


class Rules(Generic[A]):
    """Faults of one sort; the oldest that matches is used, and used up."""

    def __init__(self) -> None:
        self._armed: list[A] = []

    def arm(self, fault: A) -> None:
        self._armed.append(fault)

    def clear(self) -> None:
        self._armed.clear()

    def use(self, *, route: str, oid: str | None, stream: str | None = None) -> A | None:
        for fault in self._armed:
            asked = ((fault.route, route), (fault.oid, oid), (fault.stream, stream))
            if all(want is None or want == have for want, have in asked):
                if fault.times is not None:
                    fault.times -= 1
                    if fault.times <= 0:
                        self._armed.remove(fault)
                return fault
        return None


class Faults:
    def __init__(self) -> None:
        self.answers: Rules[Answer] = Rules()
        self.delays: Rules[Delay] = Rules()
        self.held: Rules[Delay] = Rules()
        self.headers: Rules[Header] = Rules()
        self.openings: Rules[Opening] = Rules()
        self.connect_delay: float | None = None
        """Seconds before `connected`; None is the default of the mode."""

    def clear(self) -> None:
        for rules in (self.answers, self.delays, self.held, self.headers, self.openings):
            rules.clear()
        self.connect_delay = None

    def opening(self, *, oid: str, stream: str) -> Opening | None:
        return self.openings.use(route="stream", oid=oid, stream=stream)

    async def before(self, request: web.Request) -> web.Response | None:
        """Delay a request, and answer it in place of its service, as armed."""
        _, route = route_of(request)
        oid = request.match_info.get("oid")
        delay = self.delays.use(route=route, oid=oid)
        if delay is not None:
            await asyncio.sleep(delay.seconds)
        answer = self.answers.use(route=route, oid=oid)
        if answer is None:
            return None
        body = answer.body.encode() if answer.body is not None else orjson.dumps({"error": f"emulated {answer.status}"})
        headers = {"Content-Type": "application/json", **answer.headers}
        return web.Response(status=answer.status, body=body, headers=headers)

    async def decorate(self, request: web.Request, response: web.StreamResponse) -> None:
        """Add the armed headers to an answer, and hold it back where that is armed."""
        _, route = route_of(request)
        held = self.held.use(route=route, oid=request.match_info.get("oid"))
        if held is not None:
            await asyncio.sleep(held.seconds)
        extra = self.headers.use(route=route, oid=request.match_info.get("oid"))
        if extra is not None:
            response.headers.update(extra.headers)
