"""AI sessions of an organization, as rules and keys start them, and what they used."""

from __future__ import annotations

from aiohttp import web

from pipeline.emulator.access import refuse
from pipeline.emulator.ai_access import Callers, body_of, limited, page_of
from pipeline.emulator.ai_run import run
from pipeline.emulator.ai_session import Session
from pipeline.emulator.ai_sessions import PROFILE_FIELDS
from pipeline.emulator.ai_state import MAX_SESSIONS, PROVIDERS, Ai

ORGANIZATION = "org:"
"""Prefix of the owner of an organization's sessions."""


class OrgSessionService:
    def __init__(self, ai: Ai, callers: Callers) -> None:
        self._ai = ai
        self._callers = callers

    def routes(self) -> list[web.RouteDef]:
        return [
            web.post("/v1/api/sessions", self.create),
            web.get("/v1/org/sessions", self.list),
            web.get("/v1/org/sessions/{session}", self.get),
            web.delete("/v1/org/sessions/{session}", self.terminate),
            web.get("/v1/org/sessions/{session}/history", self.history),
            web.get("/v1/org/usage/identities", self.identities),
            web.get("/v1/org/usage/identities/{identity:.+}", self.usage),
        ]

    async def create(self, request: web.Request) -> web.Response:
        oid, grant = self._callers.org(request, "ai_agent.operate")
        owner = ORGANIZATION + oid
        limited(self._ai.account(owner).creations)
        body = await body_of(
            request, prompt=str, anthropic_key=str, provider=str, credentials=dict, name=str,
            idempotent_key=str, profile=dict, trigger_source=str, lc_api_key=str, lc_uid=str,
        )  # fmt: skip
        if not body.get("prompt"):
            raise refuse(web.HTTPBadRequest, "prompt is required")
        if body.get("credentials") is not None and body.get("anthropic_key"):
            raise refuse(web.HTTPBadRequest, "credentials and anthropic_key exclude each other")
        if not body.get("credentials") and not body.get("anthropic_key"):
            raise refuse(web.HTTPBadRequest, "anthropic_key is required")
        provider = body.get("provider") or "anthropic"
        if provider not in PROVIDERS:
            raise refuse(web.HTTPBadRequest, f"provider is one of {', '.join(PROVIDERS)}")
        key = body.get("idempotent_key")
        for known in self._ai.sessions.values():
            if key and (known.owner, known.idempotent_key) == (owner, key):
                return _started(known)
        if self._ai.active(owner) >= MAX_SESSIONS:
            raise refuse(web.HTTPConflict, f"maximum concurrent sessions ({MAX_SESSIONS}) reached")
        session = Session(
            owner=owner,
            kind="api",
            oid=oid,
            identity=grant.key.name,
            name=body.get("name") or "",
            prompt=body["prompt"],
            profile={name: value for name, value in (body.get("profile") or {}).items() if name in PROFILE_FIELDS},
            provider=provider,
            lc_auth_type="org_api_key",
            idempotent_key=key,
        )
        self._ai.open(session, run)
        return _started(session)

    async def list(self, request: web.Request) -> web.Response:
        oid, _ = self._callers.org(request, "ai_agent.get")
        return web.json_response(page_of(request, [one for one in self._ai.sessions.values() if one.oid == oid]))

    async def get(self, request: web.Request) -> web.Response:
        return web.json_response({"session": self._callers.org_session(request, "ai_agent.get").shown()})

    async def terminate(self, request: web.Request) -> web.Response:
        self._ai.finish(self._callers.org_session(request, "ai_agent.operate"), "org_api_requested")
        return web.json_response({"terminated": True})

    async def history(self, request: web.Request) -> web.Response:
        return web.json_response({"messages": self._callers.org_session(request, "ai_agent.get").history()})

    async def identities(self, request: web.Request) -> web.Response:
        oid, _ = self._callers.org(request, "ai_agent.get")
        found = sorted({session.identity for session in self._ai.sessions.values() if session.oid == oid})
        return web.json_response({"identities": found})

    async def usage(self, request: web.Request) -> web.Response:
        oid, _ = self._callers.org(request, "ai_agent.get")
        identity = request.match_info["identity"]
        hours: dict[str, dict[str, float]] = {}
        for session in self._ai.sessions.values():
            if (session.oid, session.identity) == (oid, identity):
                hour = hours.setdefault(session.created_at[:13] + ":00:00Z", {})
                for name in ("input_tokens", "output_tokens", "cost_usd"):
                    hour[name] = hour.get(name, 0) + getattr(session, name)
        return web.json_response({"identity": identity, "usage": [{"hour": at, **sums} for at, sums in hours.items()]})


def _started(session: Session) -> web.Response:
    answer = {"session_id": session.id, "status": session.status, "created_at": session.created_at}
    return web.json_response(answer, status=201)
