"""Credentials of AI providers: Claude by browser or key, and the others."""

from __future__ import annotations

import time

from aiohttp import web

from pipeline.emulator.access import refuse
from pipeline.emulator.ai_access import Callers, body_of
from pipeline.emulator.ai_session import new_id, stamp
from pipeline.emulator.ai_state import PROVIDERS, Account

LOGIN_TIME = 300
"""Seconds that a login by browser may take."""

NEEDED = {
    "openai": ("api_key",),
    "openai/azure": ("endpoint", "deployment_name", "api_version", "api_key"),
    "google": ("api_key",),
    "google/vertex": ("project_id", "region", "service_account_json"),
    "openrouter": ("api_key",),
}


class CredentialService:
    def __init__(self, callers: Callers) -> None:
        self._callers = callers

    def routes(self) -> list[web.RouteDef]:
        return [
            web.post("/v1/auth/claude/start", self.start),
            web.get("/v1/auth/claude/url", self.url),
            web.post("/v1/auth/claude/code", self.code),
            web.post("/v1/auth/claude/apikey", self.apikey),
            web.get("/v1/auth/claude/status", self.status),
            web.delete("/v1/auth/claude", self.forget_claude),
            web.get("/v1/credentials", self.all),
            web.post("/v1/credentials/{provider:.+}", self.store),
            web.delete("/v1/credentials/{provider}", self.forget),
        ]

    async def start(self, request: web.Request) -> web.Response:
        account = self._account(request)
        login = new_id("oauth_")
        # the first question for its address finds it not ready yet, as the cloud's browser needs a moment
        account.logins = {login: time.monotonic() + LOGIN_TIME, f"{login}/pending": 0.0}
        message = "Poll /auth/claude/url for the OAuth URL"
        return web.json_response({"oauth_session_id": login, "expires_in": LOGIN_TIME, "message": message})

    async def url(self, request: web.Request) -> web.Response:
        account = self._account(request)
        login = self._login(account, request.query.get("session_id"))
        if account.logins.pop(f"{login}/pending", None) is not None:
            return web.json_response({"status": "pending", "message": "Waiting for OAuth URL to be generated"})
        url = f"https://console.anthropic.com/oauth/authorize?code=true&state={login}"
        return web.json_response({"status": "url_ready", "url": url, "message": "Visit the URL to authorize"})

    async def code(self, request: web.Request) -> web.Response:
        account = self._account(request)
        body = await body_of(request, session_id=str, code=str)
        login = self._login(account, body.get("session_id"))
        if not body.get("code"):
            raise refuse(web.HTTPBadRequest, "missing code")
        del account.logins[login]
        _keep(account, "anthropic", "oauth")
        message = "Claude credentials stored successfully"
        return web.json_response({"success": True, "status": "completed", "message": message})

    async def apikey(self, request: web.Request) -> web.Response:
        account = self._account(request)
        body = await body_of(request, api_key=str)
        if not str(body.get("api_key", "")).startswith("sk-ant-"):
            raise refuse(web.HTTPBadRequest, "invalid API key: Anthropic keys start with sk-ant-")
        _keep(account, "anthropic", "api_key")
        return web.json_response({"success": True, "message": "API key stored successfully"})

    async def status(self, request: web.Request) -> web.Response:
        found = self._callers.user(request).credentials.get("anthropic")
        if found is None:
            return web.json_response({"has_credentials": False})
        answer = {"has_credentials": True, "credential_type": found["type"], "created_at": found["created_at"]}
        return web.json_response(answer)

    async def forget_claude(self, request: web.Request) -> web.Response:
        self._callers.user(request).credentials.pop("anthropic", None)
        return web.json_response({"success": True})

    async def all(self, request: web.Request) -> web.Response:
        held = self._callers.user(request).credentials
        providers = {
            name: {"has_credentials": True, **held[name]} if name in held else {"has_credentials": False}
            for name in PROVIDERS
        }
        return web.json_response({"providers": providers})

    async def store(self, request: web.Request) -> web.Response:
        account = self._account(request)
        where = request.match_info["provider"]
        if where not in NEEDED:
            raise refuse(web.HTTPNotFound, "unknown provider")
        body = await body_of(request)
        missing = [name for name in NEEDED[where] if not isinstance(body.get(name), str) or not body[name]]
        if missing:
            raise refuse(web.HTTPBadRequest, f"missing {', '.join(missing)}")
        provider, _, variant = where.partition("/")
        _keep(account, provider, variant or "api_key")
        return web.json_response({"success": True})

    async def forget(self, request: web.Request) -> web.Response:
        provider = request.match_info["provider"]
        if provider not in PROVIDERS:
            raise refuse(web.HTTPNotFound, "unknown provider")
        self._callers.user(request).credentials.pop(provider, None)
        return web.json_response({"success": True})

    def _account(self, request: web.Request) -> Account:
        account = self._callers.user(request)
        if account.registered_at is None:
            raise refuse(web.HTTPForbidden, "user is not registered")
        return account

    def _login(self, account: Account, login: object) -> str:
        if not isinstance(login, str) or account.logins.get(login, 0.0) < time.monotonic():
            raise refuse(web.HTTPNotFound, "unknown or expired OAuth session")
        return login


def _keep(account: Account, provider: str, kind: str) -> None:
    account.credentials[provider] = {"type": kind, "created_at": stamp()}
