"""HTTP for operators: metrics, health and a live page. Read-only; binds to loopback unless told otherwise."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import orjson
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from pipeline.core.errors import ConfigError
from pipeline.core.types import Listen
from pipeline.engine.observe import Observation, Observed
from pipeline.engine.runner import Runner, Service
from pipeline.kit import log as logs
from pipeline.kit.pages import Answer, Pages

_JSON = "application/json; charset=utf-8"
_POLICY = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'"
}


class _Answers:
    """Answers for what is observed."""

    def __init__(self, observed: Observed) -> None:
        self._observed = observed
        self._page = Path(__file__).with_name("live.html").read_bytes()

    async def metrics(self) -> Answer:
        return Answer(await self._observed.metrics(), CONTENT_TYPE_LATEST)

    async def healthz(self) -> Answer:
        """Alive: the event loop answers."""
        return Answer(b"ok\n", "text/plain; charset=utf-8")

    async def readyz(self) -> Answer:
        ready, body = await self._observed.health()
        return Answer(orjson.dumps(body), _JSON, 200 if ready else 503)

    async def state(self) -> Answer:
        """What the live page shows, as JSON."""
        return Answer(orjson.dumps(await self._observed.state()), _JSON)

    async def live(self) -> Answer:
        return Answer(self._page, "text/html; charset=utf-8", headers=_POLICY)


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
    answers = _Answers(observed)
    log = logs.get(component="admin")
    server = Pages(
        {
            "/metrics": answers.metrics,
            "/healthz": answers.healthz,
            "/readyz": answers.readyz,
            "/state": answers.state,
            "/": answers.live,
        },
        log,
    )
    try:
        try:
            host, port = await server.start(listen.host or None, listen.port)
        except OSError as error:
            problem = ConfigError(
                f"the admin server cannot listen on {listen}: {error.strerror or error}",
                where="admin.listen",
                fix="Choose another address, or stop what uses this one; port 0 picks a free one.",
            )
            if asked is not None:
                raise problem from error
            log.warning("There is no admin server.", error=str(problem))
        else:
            log.info("Serving metrics and health.", url=f"http://{Listen(host, port)}/")
        yield
    finally:
        await server.stop()
