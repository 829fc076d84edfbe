"""The token (JWT) that stands for a key for about an hour: when to get another one, and when another one cannot help."""

from __future__ import annotations

import asyncio
import base64
import copy
import re
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import orjson

from pipeline.core.clock import Clock
from pipeline.core.errors import AuthenticationError, PipelineError, RateLimitedError

LIFETIME = 3600.0
"""Seconds that a token is good for, where it does not say."""
MARGIN = 300.0
"""A token is renewed this many seconds before its end, or at four fifths of a short life."""
DENIAL_MEMORY = 300.0
"""Seconds for which a permission that a fresh token lacked is taken as still missing."""
REFUSAL_WAIT = (10.0, 300.0)
"""Seconds that refused credentials are not tried again: the first time, and at most."""
_MAX_DENIALS = 256
_PERMISSION = re.compile(r"(?<![\w.@/-])[a-z]+(?:\.[a-z_]+){1,3}(?![\w.@/-])")

Mint = Callable[[], Awaitable[str]]


@dataclass(frozen=True, slots=True)
class Token:
    """A JWT and what can be read from it without its key. Its text is in no repr."""

    text: str = field(repr=False)
    until: float
    """When to renew it, on the monotonic clock."""
    permissions: frozenset[str] | None = None
    """Permissions in the organization; None where the token does not say."""


def parse_token(text: str, oid: str | None, clock: Clock) -> Token:
    """Read a JWT's claims without checking its signature; claims that are not understood are taken as absent."""
    claims = _claims(text)
    expires, issued = _number(claims.get("exp")), _number(claims.get("iat"))
    # The difference of two claims does not depend on our clock being right; a clock that runs ahead must not renew each time.
    lifetime = expires - (issued if issued is not None else clock.now()) if expires is not None else LIFETIME
    if lifetime <= 0:
        lifetime = LIFETIME
    return Token(text, clock.monotonic() + lifetime - min(MARGIN, lifetime / 5), _permissions(claims, oid))


def _claims(text: str) -> dict[str, Any]:
    try:
        part = text.split(".")[1]
        claims = orjson.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    except (IndexError, ValueError):
        return {}
    return claims if isinstance(claims, dict) else {}


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _permissions(claims: dict[str, Any], oid: str | None) -> frozenset[str] | None:
    """An organization's key has a list of permissions, a user's key one list for each organization."""
    found = claims.get("perms")
    by_org = claims.get("oid")
    if isinstance(by_org, dict):
        found = by_org.get(oid, []) if oid else None
    return frozenset(map(str, found)) if isinstance(found, list) else None


def named_permission(text: str) -> str | None:
    """Find the permission, like ``output.set``, that LimaCharlie's error text names as missing."""
    if not re.search(r"permi|privil|missing|requir|lack|denied|forbid|unauthorized", text, re.IGNORECASE):
        return None
    found = _PERMISSION.search(text)
    return found[0] if found else None


class Tokens:
    """Holds the current token; one request at a time gets a new one, however many wait for it.

    ``mint`` asks the JWT service and returns a JWT, or raises a `PipelineError`.
    """

    def __init__(self, mint: Mint, clock: Clock, *, oid: str | None = None) -> None:
        self._mint = mint
        self._clock = clock
        self._oid = oid
        self._token: Token | None = None
        self._lock = asyncio.Lock()
        self._failure: PipelineError | None = None
        self._failed_at = 0.0
        self._closed_until = 0.0
        self._refusals = 0
        self._denials: OrderedDict[str, tuple[float, frozenset[str] | None]] = OrderedDict()

    @property
    def current(self) -> Token | None:
        return self._token

    async def get(self) -> Token:
        """Return a token that is good for a while, from memory if there is one.

        Raises `AuthenticationError` (also from memory: refused credentials are asked about ever more rarely), `RateLimitedError`
        or `UnavailableError`.
        """
        token = self._token
        if token is not None and self._clock.monotonic() < token.until:
            return token
        return await self._renew(token)

    async def after_refusal(self, used: Token, cause: str, text: str = "") -> Token | None:
        """Return a token to try again with after ``used`` got a 401, or None when another token cannot help.

        ``cause`` names what was asked for, ``text`` is LimaCharlie's answer. A second token is made only if nobody made one since
        ``used``, and not if the same was denied to a fresh token a short while ago.
        """
        token = self._token
        if token is not None and token is not used:
            return await self.get()
        key = named_permission(text) or cause
        if self._is_denied(key, used):
            return None
        token = await self._renew(used)
        permission = named_permission(text)
        if permission and token.permissions is not None and permission not in token.permissions:
            self.deny(token, cause, text)
            return None
        return token

    def deny(self, used: Token, cause: str, text: str = "") -> None:
        """Remember for a while that a fresh token was refused too: the permission is missing, not the token old."""
        key = named_permission(text) or cause
        if self._is_denied(key, used):
            return
        self._denials[key] = (self._clock.monotonic() + DENIAL_MEMORY, used.permissions)
        self._denials.move_to_end(key)
        while len(self._denials) > _MAX_DENIALS:
            self._denials.popitem(last=False)

    def _is_denied(self, key: str, used: Token) -> bool:
        until, permissions = self._denials.get(key, (0.0, None))
        return self._clock.monotonic() < until and permissions == used.permissions

    async def _renew(self, old: Token | None) -> Token:
        asked = self._clock.monotonic()
        async with self._lock:
            token = self._token
            if token is not None and token is not old:
                return token
            failure = self._failure
            if failure is not None and (self._failed_at >= asked or self._clock.monotonic() < self._closed_until):
                # A copy, because an exception that is raised twice collects the tracebacks of both.
                raise copy.copy(failure)
            try:
                token = parse_token(await self._mint(), self._oid, self._clock)
            except PipelineError as error:
                self._remember(error)
                raise
            self._token, self._failure, self._refusals = token, None, 0
            return token

    def _remember(self, error: PipelineError) -> None:
        self._failed_at = self._clock.monotonic()
        self._failure = copy.copy(error)
        wait = 0.0
        if isinstance(error, AuthenticationError):
            first, most = REFUSAL_WAIT
            wait = min(most, first * 2.0 ** min(self._refusals, 20))
            self._refusals += 1
        elif isinstance(error, RateLimitedError) and error.after:
            wait = error.after
        self._closed_until = self._failed_at + wait
