"""What an organization says of itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pipeline.core.errors import NotFoundError, UnavailableError
from pipeline.limacharlie.answers import Doc, table, text
from pipeline.limacharlie.transport import Transport


@dataclass(frozen=True, slots=True)
class Identity:
    """Who LimaCharlie takes us for."""

    name: str
    """The key's or user's name, "" where LimaCharlie does not tell."""
    permissions: frozenset[str]
    """Permissions in the organization."""


@dataclass(frozen=True, slots=True)
class OrgInfo:
    """What LimaCharlie keeps of an organization."""

    oid: str
    name: str
    doc: Doc
    """All of it: ``sensor_version``, ``sensor_quota``, ``n_outputs``, ``n_rules`` …"""


class Organization:
    """Addresses, identity, and what is counted. All raise what `Transport.request` raises."""

    def __init__(self, transport: Transport, oid: str) -> None:
        self._transport = transport
        self._oid = oid
        self._urls: dict[str, str] | None = None

    async def urls(self) -> dict[str, str]:
        """The organization's hosts by service (``ai``, ``search``, ``hooks`` …), without scheme; asked for once."""
        if self._urls is None:
            answer = await self._transport.request("GET", f"/orgs/{self._oid}/url", authenticated=False)
            found = answer.get("url") if isinstance(answer, dict) else None
            if not isinstance(found, dict):
                raise UnavailableError(
                    "LimaCharlie did not list the organization's addresses.", where=f"/orgs/{self._oid}/url"
                )
            self._urls = {str(name): host for name, host in found.items() if isinstance(host, str) and host}
        return self._urls

    async def service(self, name: str) -> str:
        """The address of a service, with its scheme: the configured one, else the organization's own. Raises `NotFoundError`."""
        fixed = self._transport.endpoints.service(name)
        if fixed:
            return fixed
        host = (await self.urls()).get(name)
        if not host:
            raise NotFoundError(f"The organization has no address for {name}.", where=f"limacharlie.endpoints.{name}")
        return host.rstrip("/") if host.startswith(("https://", "http://")) else f"https://{host.rstrip('/')}"

    async def who(self) -> Identity:
        """Who we are and what we may do, for a key of the organization and for a user's."""
        answer: Any = await self._transport.request("GET", "/who")
        if not isinstance(answer, dict):
            raise UnavailableError("LimaCharlie did not say who we are.", where="/who")
        permissions = answer.get("perms")
        by_org = answer.get("user_perms")
        if isinstance(by_org, dict):
            permissions = by_org.get(self._oid)
        return Identity(
            name=str(answer.get("ident") or ""),
            permissions=frozenset(map(str, permissions)) if isinstance(permissions, list) else frozenset(),
        )

    async def info(self) -> OrgInfo:
        """Name, versions and counts."""
        doc = await self._ask("/orgs")
        return OrgInfo(text(doc, "oid") or self._oid, text(doc, "name"), doc)

    async def usage(self) -> Doc:
        """What is billed, by day and kind, as LimaCharlie writes it."""
        return await self._ask("/usage")

    async def quota_usage(self) -> Doc:
        """How much of the sensor quota is used, as LimaCharlie writes it."""
        return await self._ask("/quota_usage")

    async def mitre(self) -> Doc:
        """Which ATT&CK techniques the rules cover, as a layer for the ATT&CK navigator."""
        return await self._ask("/mitre")

    async def _ask(self, path: str) -> Doc:
        path = f"{path}/{self._oid}"
        return table(await self._transport.request("GET", path), path)
