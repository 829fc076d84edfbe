"""HTTP for operators: metrics, health and a live page. Read-only; binds to loopback unless told otherwise."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import orjson
from aiohttp import web
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from pipeline.core.errors import ConfigError
from pipeline.core.types import Listen
from pipeline.engine.observe import Observation, Observed
from pipeline.engine.runner import Runner, Service
from pipeline.kit import log as logs


class _Pages:
    """Answers for what is observed."""

    def __init__(self, observed: Observed) -> None:
        self._observed = observed
        self._page = Path(__file__).with_name("live.html").read_text(encoding="utf-8")

    async def metrics(self, _: web.Request) -> web.Response:
        body = await self._observed.metrics()
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def healthz(self, _: web.Request) -> web.Response:
        """Alive: the event loop answers."""
        return web.Response(text="ok\n")

    async def readyz(self, _: web.Request) -> web.Response:
        ready, body = await self._observed.health()
        return web.json_response(body, status=200 if ready else 503, dumps=lambda value: orjson.dumps(value).decode())

    async def state(self, _: web.Request) -> web.Response:
        """What the live page shows, as JSON."""
        body = await self._observed.state()
        return web.json_response(body, dumps=lambda value: orjson.dumps(value).decode())

    async def live(self, _: web.Request) -> web.Response:
        headers = {
            "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'"
        }
        return web.Response(text=self._page, content_type="text/html", headers=headers)


DEFAULT = Listen("127.0.0.1", 9600)
"""Where the server listens when the configuration does not say."""


def serve(asked: Listen | None) -> Service:
    """A service for `Runner`: the admin server. Raises as `pages`."""

    def service(runner: Runner) -> contextlib.AbstractAsyncContextManager[None]:
        return pages(Observation(runner), asked)

    return service


@contextlib.asynccontextmanager
async def pages(observed: Observed, asked: Listen | None) -> AsyncIterator[None]:
    """Serve what is observed.

    Where an address was asked for and cannot be bound, raises ConfigError; the default address is only tried.
    """
    listen = asked or DEFAULT
    answers = _Pages(observed)
    app = web.Application(client_max_size=1 << 16)
    app.add_routes([
        web.get("/metrics", answers.metrics),
        web.get("/healthz", answers.healthz),
        web.get("/readyz", answers.readyz),
        web.get("/state", answers.state),
        web.get("/", answers.live),
    ])  # fmt: skip
    web_runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
    await web_runner.setup()
    try:
        site = web.TCPSite(web_runner, listen.host or None, listen.port)
        try:
            await site.start()
        except OSError as error:
            problem = ConfigError(
                f"the admin server cannot listen on {listen}: {error.strerror or error}",
                where="admin.listen",
                fix="Choose another address, or stop what uses this one; port 0 picks a free one.",
            )
            if asked is not None:
                raise problem from error
            logs.get(component="admin").warning("There is no admin server.", error=str(problem))
        else:
            host, port = web_runner.addresses[0][:2]
            logs.get(component="admin").info("Serving metrics and health.", url=f"http://{Listen(host, port)}/")
        yield
    finally:
        await web_runner.cleanup()
