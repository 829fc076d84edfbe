"""Profiles: what sessions may do and spend."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from pipeline.core.errors import UnavailableError
from pipeline.limacharlie.ai.errors import DefaultProfileError, TooManyProfilesError
from pipeline.limacharlie.ai.service import AiService
from pipeline.limacharlie.answers import Doc, segment, table, tables, text

_PATH = "/v1/profiles"
_FULL = {409: (TooManyProfilesError, "Delete one first: there may be ten.")}
_DEFAULT = dict.fromkeys((400, 403, 409), (DefaultProfileError, "Make another one the default first."))


@dataclass(frozen=True, slots=True)
class Profile:
    """A profile; its settings are in ``doc``, as on the wire (its MCP servers' headers may hold keys)."""

    id: str
    name: str
    is_default: bool
    doc: Doc = field(repr=False)

    @classmethod
    def read(cls, answer: Any) -> Profile:
        """Read one of a list, or ``{"profile": {…}}``. Raises `UnavailableError`."""
        doc = table(answer, _PATH)
        inner = doc.get("profile")
        doc = inner if isinstance(inner, dict) else doc
        if not text(doc, "id"):
            raise UnavailableError("LimaCharlie's answer has no profile in it.", where=_PATH)
        return cls(text(doc, "id"), text(doc, "name"), doc.get("is_default") is True, doc)


class Profiles:
    """Settings are keywords with their names on the wire. All methods raise what `AiService.request` raises.

    ``allowed_tools``, ``denied_tools``, ``permission_mode``, ``provider``, ``model``, ``max_turns``, ``max_budget_usd``,
    ``mcp_servers``, ``is_default`` and others.
    """

    def __init__(self, service: AiService) -> None:
        self._service = service

    async def list(self) -> Sequence[Profile]:
        """All profiles."""
        return [Profile.read(doc) for doc in tables(await self._service.request("GET", _PATH), "profiles", _PATH)]

    async def get(self, profile_id: str) -> Profile:
        """One profile. Raises `NotFoundError`."""
        return Profile.read(await self._service.request("GET", _of(profile_id)))

    async def create(self, name: str, **settings: Any) -> Profile:
        """Make one. Raises `TooManyProfilesError`."""
        self._service.conceal(settings)
        return Profile.read(await self._service.request("POST", _PATH, json={"name": name, **settings}, refusals=_FULL))

    async def update(self, profile_id: str, **settings: Any) -> Profile:
        """Change what is given."""
        self._service.conceal(settings)
        return Profile.read(await self._service.request("PUT", _of(profile_id), json=settings, repeatable=True))

    async def delete(self, profile_id: str) -> None:
        """Remove one. Raises `DefaultProfileError` for the default one."""
        await self._service.request("DELETE", _of(profile_id), refusals=_DEFAULT)

    async def set_default(self, profile_id: str) -> None:
        """Make it the one for sessions that name none."""
        await self._service.request("POST", f"{_of(profile_id)}/default", repeatable=True)

    async def capture(self, session_id: str, name: str, description: str = "") -> Profile:
        """Make one of what a session was made with. Raises `TooManyProfilesError`."""
        body = {"name": name, **({"description": description} if description else {})}
        path = f"/v1/sessions/{segment(session_id)}/capture-profile"
        return Profile.read(await self._service.request("POST", path, json=body, refusals=_FULL))


def _of(profile_id: str) -> str:
    return f"{_PATH}/{segment(profile_id)}"
