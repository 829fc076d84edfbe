"""Who calls the AI services, and their way of saying no."""

from __future__ import annotations

from typing import Any

import orjson
from aiohttp import web

from pipeline.emulator.access import Access, refuse
from pipeline.emulator.ai_session import Doc, Session, Window
from pipeline.emulator.ai_state import Account, Ai
from pipeline.emulator.jwt import Grant, RefusedError, Tokens


class Callers:
    """A user is known by the token's user; a key of an organization counts as a user of its own."""

    def __init__(self, ai: Ai, access: Access, tokens: Tokens) -> None:
        self._ai = ai
        self._access = access
        self._tokens = tokens

    def grant(self, request: web.Request, *, query: bool = False) -> Grant:
        """What the token in the header (or, with ``query``, in ``?token=``) allows; raises 401."""
        token = request.query.get("token", "") if query else ""
        if not token:
            return self._access.bearer(request)
        grant = self._tokens.check(token)
        if grant is None:
            raise refuse(web.HTTPUnauthorized, "unauthorized: invalid or expired token")
        return grant

    def user(self, request: web.Request) -> Account:
        """The account of the caller; raises 401."""
        return self._ai.account(owner_of(self.grant(request)))

    def session(self, request: web.Request) -> Session:
        """The session in the path, which is the caller's own; raises 401, 403 and 404."""
        account = self.user(request)
        session = self._ai.sessions.get(request.match_info["session"])
        if session is None:
            raise refuse(web.HTTPNotFound, "session not found")
        if session.owner != account.owner:
            raise refuse(web.HTTPForbidden, "session belongs to a different user")
        return session

    def org(self, request: web.Request, permission: str) -> tuple[str, Grant]:
        """The organization in X-LC-OID, by a token or by a raw API key; raises 400 and 401."""
        oid = request.headers.get("X-LC-OID", "")
        if not oid:
            raise refuse(web.HTTPBadRequest, "missing X-LC-OID")
        scheme, _, secret = request.headers.get("Authorization", "").partition(" ")
        grant: Grant | None = None
        if scheme.lower() == "bearer" and "." in secret:
            grant = self._access.bearer(request)
        elif scheme.lower() == "bearer":
            try:
                form = {"oid": oid, "secret": secret.strip(), "uid": request.headers.get("X-LC-UID", "")}
                grant = self._tokens.check(self._tokens.mint(form))
            except RefusedError as error:
                raise refuse(web.HTTPUnauthorized, f"unauthorized: {error}") from None
        if grant is None or oid not in grant.permissions:
            raise refuse(web.HTTPUnauthorized, "unauthorized: no access to the organization")
        if grant.missing(oid, (permission,)):
            raise refuse(web.HTTPUnauthorized, f"unauthorized: missing permission {permission}")
        return oid, grant

    def org_session(self, request: web.Request, permission: str) -> Session:
        """The session in the path, which is the organization's; raises 400, 401 and 404."""
        oid, _ = self.org(request, permission)
        session = self._ai.sessions.get(request.match_info["session"])
        if session is None or session.oid != oid:
            raise refuse(web.HTTPNotFound, "session not found")
        return session


def owner_of(grant: Grant) -> str:
    return grant.key.uid or f"{grant.key.oid}/{grant.key.name}"


def limited(window: Window) -> None:
    """Count one; raises 429 with the seconds to wait."""
    wait = window.take()
    if wait > 0:
        error = refuse(web.HTTPTooManyRequests, "rate limit exceeded")
        error.headers["Retry-After"] = str(int(wait) + 1)
        error.headers["X-RateLimit-Quota"] = str(window.limit)
        error.headers["X-RateLimit-Period"] = str(int(window.seconds))
        raise error


async def body_of(request: web.Request, **kinds: type | tuple[type, ...]) -> Doc:
    """The JSON object in the body ({} for none), whose fields have these types if they are there; raises 400."""
    data = await request.read()
    try:
        body: Any = orjson.loads(data) if data else {}
    except ValueError:
        raise refuse(web.HTTPBadRequest, "the body is not JSON") from None
    if not isinstance(body, dict):
        raise refuse(web.HTTPBadRequest, "the body is not a JSON object")
    for name, kind in kinds.items():
        if body.get(name) is not None and not isinstance(body[name], kind):
            raise refuse(web.HTTPBadRequest, f"{name} has the wrong type")
    return body


def page_of(request: web.Request, found: list[Session]) -> Doc:
    """A page of sessions, newest first, as status, limit and cursor ask for; raises 400."""
    status, cursor = request.query.get("status", ""), request.query.get("cursor", "")
    limit = request.query.get("limit", "50")
    if status not in ("", "starting", "running", "ended"):
        raise refuse(web.HTTPBadRequest, "status is starting, running or ended")
    if not limit.isdecimal() or not 1 <= int(limit) <= 200:
        raise refuse(web.HTTPBadRequest, "limit is 1 to 200")
    rows = [session for session in reversed(found) if status in ("", session.status)]
    if cursor:
        ids = [session.id for session in rows]
        if cursor not in ids:
            raise refuse(web.HTTPBadRequest, "unknown cursor")
        rows = rows[ids.index(cursor) + 1 :]
    shown = rows[: int(limit)]
    answer: Doc = {"sessions": [session.shown() for session in shown]}
    if len(rows) > len(shown):
        answer["next_cursor"] = shown[-1].id
    return answer
