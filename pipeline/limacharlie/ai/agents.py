"""Agents: definitions in the hive ``ai_agent`` that sessions of the organization are started from, as a rule's action does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from pipeline.core.errors import NotFoundError
from pipeline.limacharlie.ai.service import AiService
from pipeline.limacharlie.ai.sessions import OrgSessions, SessionInfo
from pipeline.limacharlie.answers import Doc, text
from pipeline.limacharlie.hive import Hive

_AGENT = "hive://ai_agent/"
_SECRET = "hive://secret/"  # noqa: S105 - where secrets are, not one
_SETTINGS = (
    "allowed_tools",
    "denied_tools",
    "permission_mode",
    "model",
    "max_turns",
    "max_budget_usd",
    "task_budget_tokens",
    "ttl_seconds",
    "one_shot",
    "plugins",
)
"""Fields of a definition that are the session's profile as they are."""
_BEDROCK = ("access_key_id", "secret_access_key", "session_token", "bearer_token")
_VERTEX = ("project_id", "region")


class Agents:
    """Needs ``hive.get``-like permissions for the definition and the secrets it names, besides those of `OrgSessions`."""

    def __init__(self, service: AiService) -> None:
        self._service = service
        self._sessions = OrgSessions(service)
        self._definitions = Hive(service.transport, "ai_agent", service.oid)
        self._secrets = Hive(service.transport, "secret", service.oid)

    async def start(
        self,
        agent: str,
        *,
        prompt: str | None = None,
        data: Any = None,
        name: str | None = None,
        idempotent_key: str | None = None,
        repeatable: bool | None = None,
        **settings: Any,
    ) -> SessionInfo:
        """Begin a session from a definition, named plainly or as ``hive://ai_agent/NAME``.

        What is given replaces what the definition says; ``settings`` are fields of a profile, ``environment`` is merged. ``data`` is
        added to the prompt as JSON. Our own API key is not handed on: the definition's ``lc_api_key_secret`` is. Raises
        `NotFoundError` for an unknown definition or secret, and what `OrgSessions.start` raises.
        """
        definition = (await self._definitions.get(agent.removeprefix(_AGENT))).data or {}
        words = prompt if prompt is not None else text(definition, "prompt")
        if data is not None:
            shown = orjson.dumps(data, option=orjson.OPT_INDENT_2, default=str).decode()
            words += f"\n\nEvent data:\n```json\n{shown}\n```"
        environment = {**_table(definition.get("environment")), **_table(settings.pop("environment", None))}
        profile = {key: definition[key] for key in _SETTINGS if key in definition}
        profile |= {key: value for key, value in settings.items() if value is not None}
        if environment:
            profile["environment"] = await self._resolved(environment)
        if servers := _table(definition.get("mcp_servers")):
            profile["mcp_servers"] = {key: await self._server(_table(server)) for key, server in servers.items()}
        return await self._sessions.start(
            words,
            name=name or text(definition, "name") or None,
            idempotent_key=idempotent_key,
            repeatable=repeatable,
            profile=profile,
            lc_api_key=await self._secret(text(definition, "lc_api_key_secret")) or None,
            lc_uid=await self._secret(text(definition, "lc_uid_secret")) or None,
            **await self._payer(definition),
        )

    async def _payer(self, definition: Doc) -> dict[str, Any]:
        """Who pays, in the order in which LimaCharlie's own tools look for it."""
        provider = text(definition, "provider") or None
        if credentials := _table(definition.get("credentials")):
            return {"provider": provider, "credentials": await self._resolved(credentials)}
        if key := text(definition, "anthropic_secret"):
            return {"provider": provider, "anthropic_key": await self._secret(key)}
        if bedrock := _table(definition.get("bedrock")):
            found = {name: bedrock[f"{name}_secret"] for name in _BEDROCK if bedrock.get(f"{name}_secret")}
            found |= {"auth": "bedrock", **({"region": bedrock["region"]} if bedrock.get("region") else {})}
            return {"provider": provider or "anthropic", "credentials": await self._resolved(found)}
        if vertex := _table(definition.get("vertex")):
            found = {"auth": "vertex", **{name: vertex[name] for name in _VERTEX if vertex.get(name)}}
            if vertex.get("service_account_json_secret"):
                found["service_account_json"] = vertex["service_account_json_secret"]
            return {"provider": provider or "anthropic", "credentials": await self._resolved(found)}
        return {"provider": provider}

    async def _server(self, server: Doc) -> Doc:
        secret = {key: await self._resolved(_table(server[key])) for key in ("headers", "env") if server.get(key)}
        return {**server, **secret}

    async def _resolved(self, values: Mapping[str, Any]) -> dict[str, str]:
        return {key: await self._secret(str(value)) for key, value in values.items()}

    async def _secret(self, value: str) -> str:
        """The secret that ``hive://secret/NAME`` names; any other text as it is."""
        if not value.startswith(_SECRET):
            return value
        name = value.removeprefix(_SECRET)
        found = text((await self._secrets.get(name)).data or {}, "secret")
        if not found:
            raise NotFoundError(f"The secret {name!r} is empty.", where=_SECRET + name, fix="Store it again.")
        return found


def _table(value: Any) -> Doc:
    return value if isinstance(value, dict) else {}
