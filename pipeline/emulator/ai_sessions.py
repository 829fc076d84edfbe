"""AI sessions of a user: registration, sessions, forks."""

from __future__ import annotations

from aiohttp import web

from pipeline.emulator.access import refuse
from pipeline.emulator.ai_access import Callers, body_of, limited, page_of
from pipeline.emulator.ai_run import run
from pipeline.emulator.ai_session import Doc, Session, stamp
from pipeline.emulator.ai_state import MAX_SESSIONS, PROVIDERS, Account, Ai

LIFETIME_DAYS = 3

PROFILE_FIELDS: dict[str, type | tuple[type, ...]] = {
    "name": str,
    "description": str,
    "allowed_tools": list,
    "denied_tools": list,
    "permission_mode": str,
    "provider": str,
    "model": str,
    "max_turns": int,
    "max_budget_usd": (int, float),
    "task_budget_tokens": int,
    "ttl_seconds": (int, float),
    "one_shot": bool,
    "plugins": list,
    "environment": dict,
    "mcp_servers": dict,
}
"""What a profile holds."""


class SessionService:
    def __init__(self, ai: Ai, callers: Callers) -> None:
        self._ai = ai
        self._callers = callers

    def routes(self) -> list[web.RouteDef]:
        return [
            web.post("/v1/register", self.register),
            web.delete("/v1/register", self.deregister),
            web.get("/v1/sessions", self.list),
            web.post("/v1/sessions", self.create),
            web.get("/v1/sessions/{session}", self.get),
            web.delete("/v1/sessions/{session}", self.terminate),
            web.delete("/v1/sessions/{session}/record", self.delete),
            web.get("/v1/sessions/{session}/history", self.history),
            web.get("/v1/sessions/{session}/fork-preflight", self.preflight),
            web.post("/v1/sessions/{session}/fork", self.fork),
        ]

    async def register(self, request: web.Request) -> web.Response:
        account = self._callers.user(request)
        limited(account.registrations)
        if account.registered_at is not None:
            raise refuse(web.HTTPConflict, "user already registered")
        account.registered_at = stamp()
        return web.json_response({"registered": True, "registered_at": account.registered_at})

    async def deregister(self, request: web.Request) -> web.Response:
        account = self._callers.user(request)
        for session in [session for session in self._ai.sessions.values() if session.owner == account.owner]:
            self._ai.finish(session, "user_requested")
            del self._ai.sessions[session.id]
        account.registered_at = None
        account.credentials.clear()
        account.profiles.clear()
        return web.json_response({"deregistered": True})

    async def list(self, request: web.Request) -> web.Response:
        owner = self._callers.user(request).owner
        return web.json_response(page_of(request, [one for one in self._ai.sessions.values() if one.owner == owner]))

    async def create(self, request: web.Request) -> web.Response:
        account = self._callers.user(request)
        limited(account.creations)
        body = await body_of(
            request, lc_credentials=dict, profile_id=str, initial_prompt=str, idempotent_key=str, **PROFILE_FIELDS
        )
        given = {name: body[name] for name in PROFILE_FIELDS if body.get(name) is not None}
        profile = {**self._profile(account, body.get("profile_id")), **given}
        provider = self._provider(account, profile)
        key = body.get("idempotent_key")
        for known in self._ai.sessions.values():
            if key and (known.owner, known.idempotent_key) == (account.owner, key):
                return web.json_response({"session": known.shown()}, status=201)
        if self._ai.active(account.owner) >= MAX_SESSIONS:
            raise refuse(web.HTTPConflict, f"maximum concurrent sessions ({MAX_SESSIONS}) reached")
        credentials = body.get("lc_credentials") or {}
        session = Session(
            owner=account.owner,
            identity=account.owner,
            name=str(given.get("name", "")),
            prompt=str(body.get("initial_prompt") or ""),
            profile=profile,
            provider=provider,
            lc_auth_type=str(credentials.get("type") or "jwt"),
            idempotent_key=key,
        )
        self._ai.open(session, run)
        return web.json_response({"session": session.shown()}, status=201)

    async def get(self, request: web.Request) -> web.Response:
        return web.json_response({"session": self._callers.session(request).shown()})

    async def terminate(self, request: web.Request) -> web.Response:
        session = self._callers.session(request)
        self._ai.finish(session, "user_requested")
        return web.json_response({"terminated": True})

    async def delete(self, request: web.Request) -> web.Response:
        session = self._callers.session(request)
        if session.status != "ended":
            raise refuse(web.HTTPConflict, "only an ended session can be deleted")
        del self._ai.sessions[session.id]
        return web.json_response({"deleted": True})

    async def history(self, request: web.Request) -> web.Response:
        return web.json_response({"messages": self._callers.session(request).history()})

    async def preflight(self, request: web.Request) -> web.Response:
        account, source = self._source(request)
        profile = self._profile(account, request.query.get("profile_id"))
        used = sorted(source.profile.get("mcp_servers") or {})
        reason = "" if source.status == "ended" else "the session is still active"
        if not reason and not source.archived:
            reason = "the workspace archive is no longer available"
        return web.json_response(
            {
                "source_session_id": source.id,
                "source_session_type": source.kind,
                "source_status": source.status,
                "source_name": source.name,
                "source_lifetime_days": LIFETIME_DAYS,
                "default_fork_name": _fork_name(source),
                "source_mcp_servers": used,
                "missing_mcps": [name for name in used if name not in (profile.get("mcp_servers") or {})],
                "is_forkable": not reason,
                "is_forkable_reason": reason,
                "history_available": bool(source.transcript),
            }
        )

    async def fork(self, request: web.Request) -> web.Response:
        account, source = self._source(request)
        body = await body_of(request, name=str, profile_id=str, initial_prompt=str, acknowledge_missing_tools=list)
        profile = dict(self._profile(account, body.get("profile_id")))
        if source.forking:
            raise refuse(web.HTTPConflict, "a create, fork or resume is already in progress")
        if source.status != "ended":
            raise refuse(web.HTTPConflict, "the source is not in a forkable state")
        if not source.archived:
            raise refuse(web.HTTPGone, "the source workspace archive is no longer available")
        accepted = {*(profile.get("mcp_servers") or {}), *map(str, body.get("acknowledge_missing_tools") or [])}
        missing = [name for name in sorted(source.profile.get("mcp_servers") or {}) if name not in accepted]
        if missing:
            raise refuse(web.HTTPPreconditionFailed, f"MCP servers missing from the profile: {', '.join(missing)}")
        if self._ai.active(account.owner) >= MAX_SESSIONS:
            raise refuse(web.HTTPTooManyRequests, f"maximum concurrent sessions ({MAX_SESSIONS}) reached")
        session = Session(
            owner=account.owner,
            identity=account.owner,
            name=str(body.get("name") or _fork_name(source)),
            prompt=str(body.get("initial_prompt") or ""),
            profile=profile,
            provider=self._provider(account, profile),
            forked_from=source.id,
            files=dict(source.files),
        )
        for said in source.transcript:
            if b'"type":"session_end"' not in said.data[:40]:
                session.keep(said.data)
        self._ai.open(session, run)
        return web.json_response({"session": session.shown()}, status=201)

    def _source(self, request: web.Request) -> tuple[Account, Session]:
        """The caller's account and the session to fork: the caller's own, or one of an organization that allows it."""
        grant = self._callers.grant(request)
        account = self._callers.user(request)
        source = self._ai.sessions.get(request.match_info["session"])
        if source is None:
            raise refuse(web.HTTPNotFound, "session not found")
        if source.kind == "api":
            assert source.oid is not None
            if grant.missing(source.oid, ("ai_agent.set",)):
                raise refuse(web.HTTPForbidden, "forking an organization's session needs the permission ai_agent.set")
        elif source.owner != account.owner:
            raise refuse(web.HTTPForbidden, "session belongs to a different user")
        return account, source

    def _profile(self, account: Account, profile_id: object) -> Doc:
        """What a named or default profile says; raises 400 for an unknown one."""
        profile = account.profiles.get(str(profile_id)) if profile_id else account.default_profile
        if profile_id and profile is None:
            raise refuse(web.HTTPBadRequest, "unknown profile")
        return {name: value for name, value in (profile or {}).items() if name in PROFILE_FIELDS and name != "name"}

    def _provider(self, account: Account, profile: Doc) -> str:
        """The provider of a session to be; raises 400 and 403."""
        provider = str(profile.get("provider") or "anthropic")
        if provider not in PROVIDERS:
            raise refuse(web.HTTPBadRequest, f"provider is one of {', '.join(PROVIDERS)}")
        if account.registered_at is None:
            raise refuse(web.HTTPForbidden, "user is not registered")
        if provider not in account.credentials:
            name = "Claude" if provider == "anthropic" else provider
            raise refuse(web.HTTPForbidden, f"no {name} credentials")
        return provider


def _fork_name(source: Session) -> str:
    return f"Fork of {source.name or source.id}"
