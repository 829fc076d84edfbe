"""The user's account with AI sessions: registration, and the credentials that pay for the models."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from pipeline.core.errors import RequestRefusedError, UnavailableError
from pipeline.limacharlie.ai.errors import READY, AlreadyRegisteredError, DomainNotAllowedError
from pipeline.limacharlie.ai.service import AiService
from pipeline.limacharlie.answers import segment, table, text

LOGIN_POLL = 2.0
"""Seconds between two questions for a login's address."""
Provider = Literal["openai", "openai/azure", "google", "google/vertex", "openrouter"]

_LOGIN = "/v1/auth/claude"
_REGISTER = {
    403: (DomainNotAllowedError, "Ask LimaCharlie to allow the user's email domain."),
    409: (AlreadyRegisteredError, "Nothing is left to do."),
}


class Registration:
    """A user registers once before the first session. All methods raise what `AiService.request` raises."""

    def __init__(self, service: AiService) -> None:
        self._service = service

    async def register(self) -> str:
        """Register; return when, as RFC 3339. Raises `AlreadyRegisteredError` and `DomainNotAllowedError`."""
        answer = await self._service.request("POST", "/v1/register", refusals=_REGISTER)
        return text(table(answer, "/v1/register"), "registered_at")

    async def deregister(self) -> None:
        """Remove all that is kept of the user: sessions are ended, credentials deleted."""
        await self._service.request("DELETE", "/v1/register", repeatable=True)


@dataclass(frozen=True, slots=True)
class Held:
    """Whether there are credentials of a provider."""

    exists: bool
    kind: str = ""
    """``api_key``, ``oauth`` …; LimaCharlie's documents and tools write them differently."""
    created_at: str = ""


@dataclass(frozen=True, slots=True)
class Login:
    """A login by browser that has begun; visit ``url``, then hand in the code."""

    id: str = field(repr=False)
    url: str = field(repr=False)


class Credentials:
    """Keys are handed on and not kept. All methods raise what `AiService.request` raises, `NotReadyError` before registration."""

    def __init__(self, service: AiService) -> None:
        self._service = service

    async def begin_login(self, *, timeout: float | None = None) -> Login:
        """Begin a login with Claude by browser and wait for its address.

        ``timeout`` in seconds, by default as long as the login is good for. Raises `UnavailableError` when no address comes.
        """
        answer = table(await self._service.request("POST", f"{_LOGIN}/start", refusals=READY), _LOGIN)
        login, lifetime = text(answer, "oauth_session_id"), answer.get("expires_in")
        if not login:
            raise UnavailableError("The login did not begin.", where=_LOGIN)
        self._service.transport.conceal(login)
        try:
            async with asyncio.timeout(timeout or (lifetime if isinstance(lifetime, int) and lifetime > 0 else 300)):
                while True:
                    path = f"{_LOGIN}/url"
                    state = table(await self._service.request("GET", path, query={"session_id": login}), path)
                    # The documents say url_ready, LimaCharlie's own tools ready.
                    if text(state, "status") in ("url_ready", "ready") and text(state, "url"):
                        return Login(login, text(state, "url"))
                    if text(state, "status") == "failed":
                        raise RequestRefusedError("The login failed.", where=_LOGIN, fix="Begin another one.")
                    await asyncio.sleep(LOGIN_POLL)
        except TimeoutError:
            pass
        raise UnavailableError("The login's address did not come in time.", where=_LOGIN, fix="Begin another one.")

    async def finish_login(self, login: Login, code: str) -> None:
        """Hand in the code that the browser showed. Raises `RequestRefusedError` where it is not accepted."""
        self._service.transport.conceal(code)
        path = f"{_LOGIN}/code"
        body = {"session_id": login.id, "code": code}
        answer = table(await self._service.request("POST", path, json=body, refusals=READY), path)
        if answer.get("success") is False:
            raise RequestRefusedError("The code was not accepted.", where=path, fix="Begin another login.")

    async def store_claude_key(self, api_key: str) -> None:
        """Store an Anthropic API key."""
        self._service.transport.conceal(api_key)
        await self._service.request(
            "POST", f"{_LOGIN}/apikey", json={"api_key": api_key}, refusals=READY, repeatable=True
        )

    async def claude(self) -> Held:
        """What is held for Claude."""
        path = f"{_LOGIN}/status"
        answer = table(await self._service.request("GET", path), path)
        kind = text(answer, "credential_type")
        return Held(answer.get("has_credentials") is True, kind, text(answer, "created_at"))

    async def delete_claude(self) -> None:
        """Forget Claude's credentials."""
        await self._service.request("DELETE", _LOGIN, repeatable=True)

    async def all(self) -> Mapping[str, Held]:
        """What is held, by provider: ``anthropic``, ``openai``, ``google``, ``openrouter``."""
        path = "/v1/credentials"
        found = table(await self._service.request("GET", path), path).get("providers")
        return {
            str(name): Held(doc.get("has_credentials") is True, text(doc, "type"), text(doc, "created_at"))
            for name, doc in (found.items() if isinstance(found, dict) else ())
            if isinstance(doc, dict)
        }

    async def store(self, provider: Provider, **secrets: str) -> None:
        """Store what a provider needs.

        ``api_key``; for azure also ``endpoint``, ``deployment_name`` and ``api_version``; for vertex ``project_id``, ``region`` and
        ``service_account_json`` instead.
        """
        self._service.conceal(secrets)
        path = "/".join(["/v1/credentials", *map(segment, provider.split("/"))])
        await self._service.request("POST", path, json=secrets, refusals=READY, repeatable=True)

    async def delete(self, provider: Literal["openai", "google", "openrouter"]) -> None:
        """Forget a provider's credentials."""
        await self._service.request("DELETE", f"/v1/credentials/{segment(provider)}", repeatable=True)
