"""The people who may use an organization, and what each may do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pipeline.limacharlie.answers import Doc, table, texts
from pipeline.limacharlie.transport import Transport

Role = Literal["Owner", "Administrator", "Operator", "Viewer", "Basic"]


class Users:
    """Needs ``user.ctrl``. All raise what `Transport.request` raises."""

    def __init__(self, transport: Transport, oid: str) -> None:
        self._transport = transport
        self._path = f"/orgs/{oid}/users"

    async def list(self) -> Sequence[str]:
        """The users' email addresses."""
        return texts(table(await self._transport.request("GET", self._path), self._path).get("users"))

    async def invite(self, email: str, role: Role | None = None) -> Doc:
        """Add a user; without a role it has no permission at all. Somebody without an account gets an invitation."""
        form = {"email": email, "invite_missing": "true"} | ({"role": role} if role else {})
        return table(await self._transport.request("POST", self._path, form=form), self._path)

    async def remove(self, email: str) -> None:
        """Take a user's access away."""
        await self._transport.request("DELETE", self._path, form={"email": email}, repeatable=True)

    async def permissions(self) -> Mapping[str, frozenset[str]]:
        """The permissions that each user has of its own; those that a group gives are not among them."""
        path = f"{self._path}/permissions"
        found: Any = table(await self._transport.request("GET", path), path).get("user_permissions")
        return {email: frozenset(texts(granted)) for email, granted in table(found or {}, path).items()}

    async def grant(self, email: str, permission: str) -> None:
        """Give a user one permission, like ``sensor.task``."""
        form = {"email": email, "perm": permission}
        await self._transport.request("POST", f"{self._path}/permissions", form=form, repeatable=True)

    async def revoke(self, email: str, permission: str) -> None:
        """Take one permission from a user."""
        form = {"email": email, "perm": permission}
        await self._transport.request("DELETE", f"{self._path}/permissions", form=form, repeatable=True)

    async def set_role(self, email: str, role: Role) -> frozenset[str]:
        """Replace all of a user's own permissions by those of a role; returns them."""
        path = f"{self._path}/role"
        answer = await self._transport.request("PUT", path, json={"email": email, "role": role}, repeatable=True)
        return frozenset(texts(table(answer, path).get("permissions")))
