"""A REST service that answers as a test says, on a real socket."""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import orjson
import pytest
from aiohttp import web

from pipeline.core.errors import PipelineError
from pipeline.limacharlie.client import LimaCharlie
from pipeline.limacharlie.config import LimaCharlieConfig

OID = "8cbe27f4-bfa1-4afb-ba19-138cd51389cd"
KEY = "sEcReT-key-0123456789"


def jwt(**claims: Any) -> str:
    """An unsigned token with these claims."""
    return "e30." + base64.urlsafe_b64encode(orjson.dumps(claims)).decode().rstrip("=") + ".c2ln"


class Clock:
    """Time that only a test moves."""

    def __init__(self) -> None:
        self.time = 1_700_000_000.0

    def now(self) -> float:
        return self.time

    def monotonic(self) -> float:
        return self.time - 1_600_000_000.0


Answer = web.Response | Callable[["Asked"], web.Response]


class Asked:
    """A request as it came."""

    def __init__(self, request: web.Request, form: dict[str, str]) -> None:
        self.method = request.method
        self.path = request.raw_path
        self.form = form
        self.token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        self.headers = request.headers


class Service:
    """Gives ``answers`` one after another (the last one for ever), tokens at ``/``, and remembers what was asked."""

    def __init__(self) -> None:
        self.url = ""
        self.answers: list[Answer] = [lambda _: web.json_response({"ok": True})]
        self.asked: list[Asked] = []
        self.mints: list[dict[str, str]] = []
        self.mint: Callable[[dict[str, str]], web.Response] = lambda _: web.json_response({"jwt": self.token()})
        self.claims: dict[str, Any] = {"oid": [OID], "perms": ["output.list"]}

    def token(self) -> str:
        return jwt(exp=time.time() + 3600, n=len(self.mints), **self.claims)

    async def handle(self, request: web.Request) -> web.Response:
        form = {key: str(value) for key, value in (await request.post()).items()}
        if request.path == "/":
            self.mints.append(form)
            return self.mint(form)
        self.asked.append(Asked(request, form))
        answer = self.answers[0] if len(self.answers) == 1 else self.answers.pop(0)
        return answer(self.asked[-1]) if callable(answer) else answer


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    service = Service()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", service.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    service.url = site.name
    yield service
    await runner.cleanup()


@pytest.fixture
async def account(service: Service) -> AsyncIterator[LimaCharlie]:
    async with LimaCharlie(LimaCharlieConfig(oid=OID, api_key=KEY, url=service.url), environ={}) as account:
        yield account


@pytest.fixture
def clock() -> Clock:
    return Clock()


class Mint:
    """The token service without a network: counts, and fails where a test says so."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.claims: dict[str, Any] = {"oid": [OID], "perms": ["output.list"]}
        self.life = 3600.0
        self.count = 0
        self.error: PipelineError | None = None

    async def __call__(self) -> str:
        await asyncio.sleep(0)
        self.count += 1
        if self.error:
            raise self.error
        return jwt(exp=self.clock.now() + self.life, n=self.count, **self.claims)


@pytest.fixture
def mint(clock: Clock) -> Mint:
    return Mint(clock)
