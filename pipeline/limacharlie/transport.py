"""The one path of every REST request: token, time limits, waiting when told to, errors with LimaCharlie's own words."""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import Mapping
from typing import Any

import aiohttp
import orjson

import pipeline
from pipeline.core.clock import Clock
from pipeline.core.errors import (
    AuthenticationError,
    NotFoundError,
    PermissionDeniedError,
    PipelineError,
    RateLimitedError,
    RequestRefusedError,
    TemporaryError,
    UnavailableError,
)
from pipeline.kit.backoff import Backoff
from pipeline.kit.http import FAULTS, clean, client_context, describe, read_body, retry_after
from pipeline.limacharlie.config import LimaCharlieConfig
from pipeline.limacharlie.credentials import Credentials
from pipeline.limacharlie.endpoints import Endpoints
from pipeline.limacharlie.token import Token, Tokens, named_permission

MAX_WAIT = 90.0
"""A request waits at most this many seconds in all for a 429; a longer demand is the caller's to plan."""
MAX_PAUSE = 3600.0
"""No demand of the other side keeps us away longer than this many seconds."""
_TRIES = 4
_MAX_ANSWER = 64 << 20
_MAX_ERROR = 64 << 10
_READ_BUFFER = 1 << 20
"""aiohttp loses the end of a stream when it pauses reading over TLS; with this buffer it need not."""
_UUIDS = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_JWT = re.compile(r"eyJ[\w-]*\.[\w-]+\.[\w-]*")

Form = Mapping[str, str]


class Transport:
    """Sends requests with the organization's token. Use it within one event loop and `close` it."""

    def __init__(self, config: LimaCharlieConfig, endpoints: Endpoints, credentials: Credentials, clock: Clock) -> None:
        self.endpoints = endpoints
        self.credentials = credentials
        self.tokens = Tokens(self._mint, clock, oid=credentials.oid)
        self._config = config
        self.clock = clock
        self._session: aiohttp.ClientSession | None = None
        self._opening = asyncio.Lock()
        self._not_before = 0.0

    async def session(self) -> aiohttp.ClientSession:
        """The HTTP session, made on first use. Raises `ConfigError` when a certificate file cannot be used."""
        async with self._opening:
            if self._session is None:
                # Reading the system's authorities takes long enough to be felt by other connections.
                context = await asyncio.to_thread(client_context, self._config.tls)
                self._session = aiohttp.ClientSession(
                    connector=aiohttp.TCPConnector(ssl=context),
                    headers={"User-Agent": f"lc-pipeline/{pipeline.__version__}"},
                    timeout=aiohttp.ClientTimeout(total=None, sock_connect=self._config.connect_timeout),
                    cookie_jar=aiohttp.DummyCookieJar(),
                    read_bufsize=_READ_BUFFER,
                )
            return self._session

    async def close(self) -> None:
        """Release the connections. Safe to call twice."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def request(
        self,
        method: str,
        path: str,
        *,
        form: Form | None = None,
        query: Form | None = None,
        headers: Form | None = None,
        base: str | None = None,
        authenticated: bool = True,
        repeatable: bool | None = None,
        timeout: float | None = None,
    ) -> Any:
        """Send a request and return the decoded JSON of the answer ({} for an empty or non-JSON one).

        ``path`` follows ``base`` (default: the REST API). ``form`` travels in the body, for every method. A ``repeatable`` request
        (default: a GET) is tried again after a temporary failure; a 429 is waited for in any case, because it did nothing.

        Raises `AuthenticationError`, `PermissionDeniedError`, `NotFoundError`, `RequestRefusedError`, `RateLimitedError` or
        `UnavailableError`.
        """
        repeatable = method == "GET" if repeatable is None else repeatable
        url = (base or self.endpoints.api) + path
        cause = f"{method} {_UUIDS.sub('*', path)}"
        backoff = Backoff(base=0.5, cap=10.0)
        pause = Backoff(base=5.0, cap=60.0)
        waited = 0.0
        token: Token | None = None
        renewed = False
        while True:
            waited += await self._hold(MAX_WAIT - waited)
            if authenticated and token is None:
                token = await self.tokens.get()
            sent = {**(headers or {}), **({"Authorization": f"Bearer {token.text}"} if token else {})}
            failure: PipelineError
            try:
                status, answered, body = await self._send(method, url, form, query, sent, timeout)
            except TemporaryError as error:
                failure = error
            else:
                if 200 <= status < 300:
                    return _decode(body)
                text = self.error_text(body)
                failure = self.failure(status, answered, text, where=cause)
                if status == 401 and token is not None:
                    another = None if renewed else await self.tokens.after_refusal(token, cause, text)
                    if another is not None:
                        token, renewed = another, True
                        continue
                    self.tokens.deny(token, cause, text)
                    failure = self.denied(text, where=cause)
            if isinstance(failure, RateLimitedError):
                self._not_before = self.clock.monotonic() + (failure.after or pause.next())
                if waited < MAX_WAIT and (failure.after or 0.0) <= MAX_WAIT - waited:
                    continue
            elif isinstance(failure, TemporaryError) and repeatable and backoff.tries < _TRIES - 1:
                await asyncio.sleep(backoff.next())
                continue
            raise failure

    async def _hold(self, most: float) -> float:
        """Wait while LimaCharlie asked these credentials to be quiet; return the seconds waited. Raises `RateLimitedError`."""
        wait = self._not_before - self.clock.monotonic()
        if wait <= 0:
            return 0.0
        if wait > most:
            raise RateLimitedError("LimaCharlie asked for a pause that is not over yet.", after=wait)
        # All who wait would otherwise come back in the same instant.
        wait += random.uniform(0.0, 0.1 * wait + 0.1)
        await asyncio.sleep(wait)
        return wait

    async def _send(
        self, method: str, url: str, form: Form | None, query: Form | None, headers: Form, timeout: float | None
    ) -> tuple[int, Mapping[str, str], bytes]:
        session = await self.session()
        problem = ""
        try:
            async with asyncio.timeout(timeout or self._config.timeout):
                async with session.request(
                    method, url, data=form, params=query, headers=headers, allow_redirects=False
                ) as response:
                    limit = _MAX_ANSWER if response.status < 300 else _MAX_ERROR
                    return response.status, response.headers, await read_body(response, limit)
        except FAULTS as fault:
            problem = describe(fault)
        # Outside of the handler, so that the fault (it holds the request and its token) is not chained to what is raised.
        raise UnavailableError(f"LimaCharlie cannot be reached: {problem}.", where=url)

    async def _mint(self) -> str:
        """Trade the key for a token, narrowed to the organization where one is set."""
        owner = self.credentials
        form = {"secret": owner.api_key.get_secret_value()}
        if owner.oid:
            form["oid"] = owner.oid
        if owner.uid:
            form["uid"] = owner.uid
        url = self.endpoints.jwt
        status, headers, body = await self._send("POST", url, form, None, {}, self._config.timeout)
        answer = _decode(body)
        if 200 <= status < 300:
            jwt = answer.get("jwt") if isinstance(answer, dict) else None
            if not isinstance(jwt, str) or not jwt or not jwt.isascii() or not jwt.isprintable():
                raise UnavailableError("The token service answered without a token.", where=url)
            return jwt
        text = self.error_text(body)
        if status in (400, 401, 403, 404):
            raise AuthenticationError(
                f"LimaCharlie refuses the credentials ({status}: {text or 'no reason given'}).",
                where=owner.origin,
                fix="Check oid, uid and api_key: the key may be revoked, or of another organization or user.",
            )
        raise self.failure(status, headers, text, where=url)

    def error_text(self, body: bytes) -> str:
        """LimaCharlie's own words in an answer, fit for a log."""
        answer = _decode(body)
        error = answer.get("error") if isinstance(answer, dict) else None
        return self.scrub(error if isinstance(error, str) else body.decode("utf-8", "replace"))

    def scrub(self, text: str) -> str:
        """Make the other side's text fit for a log, without our secrets should it repeat them."""
        token = self.tokens.current
        for secret in (self.credentials.api_key.get_secret_value(), token.text if token else ""):
            if secret:
                text = text.replace(secret, "[secret]")
        return clean(_JWT.sub("[secret]", text))

    def denied(self, text: str, *, where: str) -> PermissionDeniedError:
        """The error for a 401 that a fresh token gets too: the key is good, for it was traded for a token, but not enough."""
        permission = named_permission(text) or "for this"
        return PermissionDeniedError(
            f"LimaCharlie answered 401: {text or 'no reason given'}.",
            where=where,
            fix=f"Give the API key the permission {permission}.",
        )

    def failure(self, status: int, headers: Mapping[str, str], text: str, *, where: str) -> PipelineError:
        """The typed error for an answer that is not a success."""
        reason = f"LimaCharlie answered {status}: {text or 'no reason given'}."
        after = retry_after(headers, self.clock.now(), most=MAX_PAUSE)
        if status == 429:
            period = headers.get("X-RateLimit-Period", "")
            if after is None and period.isascii() and period.isdigit():
                after = min(float(period), MAX_PAUSE)
            return RateLimitedError(reason, where=where, after=after)
        if status == 413:
            narrow = self.credentials.uid is not None and self.credentials.oid is None
            return RequestRefusedError(
                reason,
                where=where,
                fix="The user's token covers too many organizations: set oid, which narrows it to one."
                if narrow
                else "",
            )
        if status == 401:
            return AuthenticationError(reason, where=where, fix="Check the API key.")
        if status == 403:
            permission = named_permission(text)
            return PermissionDeniedError(
                reason, where=where, fix=f"Give the API key the permission {permission}." if permission else ""
            )
        if status == 404:
            return NotFoundError(reason, where=where)
        if status == 408 or status >= 500:
            return UnavailableError(reason, where=where, after=after)
        if 300 <= status < 400:
            return RequestRefusedError(
                reason, where=where, fix="Redirects are not followed: they would carry the key elsewhere."
            )
        return RequestRefusedError(reason, where=where)


def _decode(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except ValueError:
        return {}
