"""The one path of requests to the AI service: its host, who asks, and what its refusals mean."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.limacharlie.ai.errors import Refusals, explain
from pipeline.limacharlie.organization import Organization
from pipeline.limacharlie.transport import Texts, Transport

SECRETS = frozenset(
    (
        "anthropic_key",
        "api_key",
        "lc_api_key",
        "org_api_key",
        "service_account_json",
        "credentials",
        "headers",
        "env",
        "environment",
    )
)
"""Fields of bodies whose texts, at any depth, are secrets."""
SHORT = 8
"""A text with fewer characters may be part of any word, and is no secret."""


class AiService:
    """Raises what `Transport.request` raises, and in place of it the errors of `pipeline.limacharlie.ai.errors`."""

    def __init__(self, transport: Transport, organization: Organization, oid: str) -> None:
        self.transport = transport
        self.oid = oid
        self._organization = organization

    async def base(self) -> str:
        """The address of the service: the configured one, else what the organization's list says."""
        return await self._organization.service("ai")

    def identity(self) -> dict[str, str]:
        """Headers of requests for the organization's sessions."""
        uid = self.transport.credentials.uid
        return {"X-LC-OID": self.oid, **({"X-LC-UID": uid} if uid else {})}

    def conceal(self, body: Mapping[str, Any]) -> None:
        """Keep what is secret in a body out of errors, should the other side repeat it."""
        for name, value in body.items():
            if name in SECRETS:
                self._conceal(value)
            elif isinstance(value, Mapping):
                self.conceal(value)

    def _conceal(self, value: Any) -> None:
        if isinstance(value, str) and len(value) >= SHORT:
            self.transport.conceal(value)
        elif isinstance(value, Mapping):
            for each in value.values():
                self._conceal(each)

    async def request(
        self,
        method: str,
        path: str,
        *,
        json: Mapping[str, Any] | None = None,
        query: Texts | None = None,
        org: bool = False,
        refusals: Refusals | None = None,
        repeatable: bool | None = None,
    ) -> Any:
        """Send a request, with ``org`` in the name of the organization; return the decoded answer."""
        return await self.transport.request(
            method,
            path,
            json=json,
            query=query,
            headers=self.identity() if org else None,
            base=await self.base(),
            repeatable=repeatable,
            explain=explain(refusals or {}),
        )
