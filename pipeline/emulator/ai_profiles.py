"""Profiles of AI sessions."""

from __future__ import annotations

from aiohttp import web

from pipeline.emulator.access import refuse
from pipeline.emulator.ai_access import Callers, body_of
from pipeline.emulator.ai_session import Doc, new_id, stamp
from pipeline.emulator.ai_sessions import PROFILE_FIELDS
from pipeline.emulator.ai_state import MAX_PROFILES, Account


class ProfileService:
    def __init__(self, callers: Callers) -> None:
        self._callers = callers

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/v1/profiles", self.list),
            web.post("/v1/profiles", self.create),
            web.get("/v1/profiles/{profile}", self.get),
            web.put("/v1/profiles/{profile}", self.update),
            web.delete("/v1/profiles/{profile}", self.delete),
            web.post("/v1/profiles/{profile}/default", self.set_default),
            web.post("/v1/sessions/{session}/capture-profile", self.capture),
        ]

    async def list(self, request: web.Request) -> web.Response:
        return web.json_response({"profiles": list(self._callers.user(request).profiles.values())})

    async def create(self, request: web.Request) -> web.Response:
        return self._add(self._callers.user(request), await body_of(request, is_default=bool, **PROFILE_FIELDS))

    async def get(self, request: web.Request) -> web.Response:
        return web.json_response({"profile": self._find(request)[1]})

    async def update(self, request: web.Request) -> web.Response:
        account, profile = self._find(request)
        body = await body_of(request, is_default=bool, **PROFILE_FIELDS)
        profile.update({name: value for name, value in body.items() if name in PROFILE_FIELDS})
        profile["updated_at"] = stamp()
        if body.get("is_default"):
            _make_default(account, profile)
        return web.json_response({"profile": profile})

    async def delete(self, request: web.Request) -> web.Response:
        account, profile = self._find(request)
        if profile["is_default"]:
            raise refuse(web.HTTPConflict, "the default profile cannot be deleted")
        del account.profiles[profile["id"]]
        return web.json_response({"deleted": True})

    async def set_default(self, request: web.Request) -> web.Response:
        account, profile = self._find(request)
        _make_default(account, profile)
        return web.json_response({"profile": profile})

    async def capture(self, request: web.Request) -> web.Response:
        account, session = self._callers.user(request), self._callers.session(request)
        body = await body_of(request, name=str, description=str)
        return self._add(account, {**session.profile, "name": None, **body})

    def _add(self, account: Account, body: Doc) -> web.Response:
        if not body.get("name"):
            raise refuse(web.HTTPBadRequest, "a profile needs a name")
        if len(account.profiles) >= MAX_PROFILES:
            raise refuse(web.HTTPConflict, f"maximum profiles ({MAX_PROFILES}) reached")
        now = stamp()
        profile = {"id": new_id("profile_"), **{name: body[name] for name in PROFILE_FIELDS if name in body}}
        profile |= {"is_default": False, "created_at": now, "updated_at": now}
        account.profiles[profile["id"]] = profile
        if body.get("is_default") or len(account.profiles) == 1:
            _make_default(account, profile)
        return web.json_response({"profile": profile}, status=201)

    def _find(self, request: web.Request) -> tuple[Account, Doc]:
        account = self._callers.user(request)
        profile = account.profiles.get(request.match_info["profile"])
        if profile is None:
            raise refuse(web.HTTPNotFound, "profile not found")
        return account, profile


def _make_default(account: Account, profile: Doc) -> None:
    for other in account.profiles.values():
        other["is_default"] = other is profile
