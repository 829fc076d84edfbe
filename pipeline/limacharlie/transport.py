"""The one path of every REST request: token, time limits, waiting when told to, errors with LimaCharlie's own words."""

from __future__ import annotations

import asyncio
import io
import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

import aiohttp
import orjson
import structlog

import pipeline
from pipeline.core.clock import Clock
from pipeline.core.errors import (
    AuthenticationError,
    PermissionDeniedError,
    PipelineError,
    RateLimitedError,
    TemporaryError,
    UnavailableError,
)
from pipeline.kit.backoff import Backoff
from pipeline.kit.http import FAULTS, clean, client_context, describe, read_body
from pipeline.limacharlie.config import LimaCharlieConfig
from pipeline.limacharlie.credentials import Credentials
from pipeline.limacharlie.endpoints import Endpoints
from pipeline.limacharlie.failures import SLOWER, failure
from pipeline.limacharlie.throttle import Throttle
from pipeline.limacharlie.token import Token, Tokens, named_permission

MAX_WAIT = 90.0
"""A request waits at most this many seconds in all for a 429; a longer demand is the caller's to plan."""
_NOTABLE = 1.0
"""A pause that is longer, in seconds, is worth a line in the log."""
_TRIES = 4
_MAX_ANSWER = 64 << 20
_MAX_ERROR = 64 << 10
_LARGE = 64 << 10
_PROXY = "A proxy may have put a page of its own in its place, or the configured address is another service's."
_NO_JSON = object()
_READ_BUFFER = 1 << 20
"""aiohttp loses the end of a stream when it pauses reading over TLS; with this buffer it need not."""
_UUIDS = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_JWT = re.compile(r"eyJ[\w-]*\.[\w-]+\.[\w-]*")

Texts = Mapping[str, str]
Form = Mapping[str, str | Sequence[str]]
"""Fields of a form; a field with several values is sent once for each."""
Explain = Callable[[int, PipelineError], PipelineError]
"""A service's own, more telling error for a status, made from the one that would be raised."""


@dataclass(frozen=True, slots=True)
class _Request:
    method: str
    url: str
    query: Texts | None = None
    data: bytes | None = field(default=None, repr=False)
    headers: Texts = field(default_factory=dict, repr=False)
    timeout: float | None = None


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
        self._throttles: dict[str, Throttle] = {}
        self._secrets: set[str] = set()

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

    def conceal(self, secret: str) -> None:
        """Keep one more secret that requests carry, besides our key and token, out of what `scrub` lets through."""
        self._secrets.add(secret)

    async def request(
        self,
        method: str,
        path: str,
        *,
        form: Form | None = None,
        json: Any = None,
        content: bytes | None = None,
        query: Texts | None = None,
        headers: Texts | None = None,
        base: str | None = None,
        authenticated: bool = True,
        repeatable: bool | None = None,
        reads: bool | None = None,
        timeout: float | None = None,
        raw: bool = False,
        explain: Explain | None = None,
    ) -> Any:
        """Send a request and return the decoded JSON of the answer ({} for an empty or non-JSON one), or with ``raw`` its bytes.

        ``path`` follows ``base`` (default: the REST API). One of ``form``, ``json`` and ``content`` travels in the body, for every
        method. A ``repeatable`` request (default: a GET) is tried again after a temporary failure; a 429 is waited for in any case,
        because it did nothing. One that ``reads`` (default: a GET) lives from its answer, and no JSON is a failure; a write takes any
        text for a yes, but not a web page, which a proxy put there. ``timeout`` is for each try, in seconds (default: the configured
        one). ``explain`` may put another error in the place of one for a status that is not a success.

        Raises `AuthenticationError`, `PermissionDeniedError`, `NotFoundError`, `RequestRefusedError`, `RateLimitedError` or
        `UnavailableError`.
        """
        repeatable = method == "GET" if repeatable is None else repeatable
        reads = method == "GET" if reads is None else reads
        base = base or self.endpoints.api
        cause = f"{method} {_UUIDS.sub('*', path)}"
        throttle = self._throttles.setdefault(base, Throttle(self.clock))
        data, kind = await _body(form, json, content)
        backoff = Backoff(base=0.5, cap=10.0)
        waited = 0.0
        token: Token | None = None
        renewed = False
        refused: RateLimitedError | None = None
        while True:
            waited += await self._hold(throttle, MAX_WAIT - waited, refused)
            if authenticated and token is None:
                token = await self.tokens.get()
            sent = {**kind, **(headers or {}), **({"Authorization": f"Bearer {token.text}"} if token else {})}
            failed: PipelineError
            try:
                status, answered, body = await self._send(_Request(method, base + path, query, data, sent, timeout))
            except TemporaryError as error:
                failed = error
            else:
                throttle.learn(answered)
                if 200 <= status < 300:
                    throttle.answered()
                    if raw:
                        return body
                    is_needed = reads or body.lstrip().startswith(b"<")
                    answer = _decode(body, _NO_JSON if body and is_needed else {})
                    if answer is not _NO_JSON:
                        return answer
                    failed = UnavailableError("LimaCharlie's answer is not JSON.", where=cause, fix=_PROXY)
                else:
                    text = self.error_text(body)
                    failed = self.failure(status, answered, text, where=cause)
                    if explain is not None:
                        failed = explain(status, failed)
                if status == 401 and token is not None:
                    another = None if renewed else await self.tokens.after_refusal(token, cause, text)
                    if another is not None:
                        token, renewed = another, True
                        continue
                    self.tokens.deny(token, cause, text)
                    failed = self.denied(text, where=cause)
            if isinstance(failed, RateLimitedError):
                self._pause(throttle, failed)
                refused = failed
                if waited < MAX_WAIT and (failed.after or 0.0) <= MAX_WAIT - waited:
                    continue
            elif isinstance(failed, TemporaryError) and repeatable and backoff.tries < _TRIES - 1:
                await asyncio.sleep(backoff.next())
                continue
            raise failed

    def _pause(self, throttle: Throttle, refused: RateLimitedError) -> None:
        """Have all requests of the service wait, and say so once for all that were refused together."""
        is_news = throttle.wait() <= 0
        throttle.pause(refused.after)
        if is_news and (wait := throttle.wait()) > _NOTABLE:
            structlog.get_logger(__name__).warning(
                "LimaCharlie asks us to slow down; requests wait.", seconds=round(wait, 1), error=refused.what
            )

    async def _hold(self, throttle: Throttle, most: float, refused: RateLimitedError | None) -> float:
        """Wait for our turn, which is counted as taken; return the seconds waited.

        Raises `RateLimitedError` where it is too far: ``refused``, if this request was told so itself.
        """
        wait = throttle.wait()
        if wait > most:
            if refused is not None:
                refused.after = wait
                raise refused
            what = "The rate limit is used up, or LimaCharlie asked for a pause that is not over yet."
            raise RateLimitedError(what, after=wait, fix=SLOWER)
        throttle.leave(wait)
        if wait <= 0:
            return 0.0
        # All who wait would otherwise come back in the same instant.
        wait += random.uniform(0.0, 0.1 * wait + 0.1)
        await asyncio.sleep(wait)
        return wait

    async def _send(self, request: _Request) -> tuple[int, Mapping[str, str], bytes]:
        session = await self.session()
        problem = ""
        try:
            async with asyncio.timeout(request.timeout or self._config.timeout):
                async with session.request(
                    request.method,
                    request.url,
                    # Large ones in pieces, or else they would hold up the event loop; anew for each try.
                    data=io.BytesIO(request.data) if request.data and len(request.data) > _LARGE else request.data,
                    params=request.query,
                    headers=request.headers,
                    allow_redirects=False,
                ) as response:
                    limit = _MAX_ANSWER if response.status < 300 else _MAX_ERROR
                    return response.status, response.headers, await read_body(response, limit)
        except FAULTS as fault:
            problem = describe(fault)
        # Outside of the handler, so that the fault (it holds the request and its token) is not chained to what is raised.
        raise UnavailableError(f"LimaCharlie cannot be reached: {problem}.", where=request.url)

    async def _mint(self) -> str:
        """Trade the key for a token, narrowed to the organization where one is set."""
        owner = self.credentials
        form: dict[str, str] = {"secret": owner.api_key.get_secret_value()}
        if owner.oid:
            form["oid"] = owner.oid
        if owner.uid:
            form["uid"] = owner.uid
        url = self.endpoints.jwt
        data, kind = await _body(form, None, None)
        status, headers, body = await self._send(_Request("POST", url, data=data, headers=kind))
        answer = _decode(body, {})
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
        answer = _decode(body, {})
        error = answer.get("error") if isinstance(answer, dict) else None
        return self.scrub(error if isinstance(error, str) else body.decode("utf-8", "replace")).removesuffix(".")

    def scrub(self, text: str) -> str:
        """Make the other side's text fit for the end of a sentence in a log, without our secrets should it repeat them."""
        token = self.tokens.current
        for secret in (self.credentials.api_key.get_secret_value(), token.text if token else "", *self._secrets):
            if secret:
                text = text.replace(secret, "[secret]")
        return clean(_JWT.sub("[secret]", text)).rstrip(".")

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
        narrow = self.credentials.uid is not None and self.credentials.oid is None
        return failure(status, headers, text, where=where, now=self.clock.now(), narrow=narrow)


async def _body(form: Form | None, json: Any, content: bytes | None) -> tuple[bytes | None, Texts]:
    if json is not None:
        return orjson.dumps(json), {"Content-Type": "application/json"}
    if content is not None:
        return content, {"Content-Type": "application/octet-stream"}
    if form is None:
        return None, {}
    fields = [(key, text) for key, texts in form.items() for text in ([texts] if isinstance(texts, str) else texts)]
    if sum(len(text) for _, text in fields) > _LARGE:
        # Escaping megabytes takes long enough to be felt by other connections.
        encoded = await asyncio.to_thread(urlencode, fields)
    else:
        encoded = urlencode(fields)
    return encoded.encode(), {"Content-Type": "application/x-www-form-urlencoded"}


def _decode(body: bytes, otherwise: Any) -> Any:
    try:
        return orjson.loads(body)
    except ValueError:
        return otherwise
