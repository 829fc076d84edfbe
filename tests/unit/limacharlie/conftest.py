"""A REST service that answers as a test says, on a real socket."""

from __future__ import annotations

import asyncio
import base64
import gzip
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import orjson
import pytest
from aiohttp import web
from multidict import MultiMapping

from pipeline.core.errors import PipelineError
from pipeline.kit.backoff import Backoff
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

    def __init__(self, request: web.Request, form: MultiMapping[Any], body: bytes) -> None:
        self.method = request.method
        self.path = request.raw_path
        self.route = f"{request.method} {request.rel_url.raw_path}"
        self.query = dict(request.query)
        self.form = {key: str(value) for key, value in form.items()}
        self.fields = [(key, str(value)) for key, value in form.items()]
        self.body = body
        self.token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        self.headers = request.headers

    @property
    def json(self) -> Any:
        return orjson.loads(self.body)


class Service:
    """Gives ``answers`` one after another (the last one for ever), tokens at ``/``, and remembers what was asked.

    What ``routes`` has for ``GET /v1/path`` goes before ``answers``.
    """

    def __init__(self) -> None:
        self.url = ""
        self.answers: list[Answer] = [lambda _: web.json_response({"ok": True})]
        self.routes: dict[str, list[Answer]] = {}
        self.asked: list[Asked] = []
        self.mints: list[dict[str, str]] = []
        self.mint: Callable[[dict[str, str]], web.Response] = lambda _: web.json_response({"jwt": self.token()})
        self.claims: dict[str, Any] = {"oid": [OID], "perms": ["output.list"]}

    def token(self) -> str:
        return jwt(exp=time.time() + 3600, n=len(self.mints), **self.claims)

    async def handle(self, request: web.Request) -> web.Response:
        body = await request.read()
        form = await request.post()
        if request.path == "/" and form:
            self.mints.append({key: str(value) for key, value in form.items()})
            return self.mint(self.mints[-1])
        asked = Asked(request, form, body)
        self.asked.append(asked)
        answers = self.routes.get(asked.route, self.answers)
        answer = answers[0] if len(answers) == 1 else answers.pop(0)
        return answer(asked) if callable(answer) else answer

    def reply(self, *docs: Any) -> None:
        """Answer with these documents, one after another."""
        self.answers = [lambda _, doc=doc: web.json_response(doc) for doc in docs]

    def route(self, route: str, *docs: Any) -> None:
        """Answer one route with these documents."""
        self.routes[route] = [lambda _, doc=doc: web.json_response(doc) for doc in docs]

    @staticmethod
    def refusal(status: int, text: str = "", **headers: str) -> Callable[[Asked], web.Response]:
        """An answer that is not a success."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        return lambda _: web.json_response({"error": text}, status=status, headers=sent)

    @staticmethod
    def packed(value: Any) -> str:
        """Base64 of gzip of JSON, as pages travel."""
        return base64.b64encode(gzip.compress(orjson.dumps(value))).decode()


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    service = Service()
    app = web.Application(client_max_size=64 << 20)
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


@pytest.fixture
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits between tries take no time."""
    monkeypatch.setattr(Backoff, "next", lambda self: setattr(self, "tries", self.tries + 1) or 0.0)


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
