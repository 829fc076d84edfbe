"""Keys that artifacts and webhooks are sent in with; they open nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.core.types import Secret
from pipeline.limacharlie.answers import table
from pipeline.limacharlie.transport import Transport


class IngestionKeys:
    """Needs ``ingestkey.ctrl``. All raise what `Transport.request` raises."""

    def __init__(self, transport: Transport, oid: str) -> None:
        self._transport = transport
        self._path = f"/insight/{oid}/ingestion_keys"

    async def list(self) -> Mapping[str, Secret]:
        """The keys by name."""
        answer = table(await self._transport.request("GET", self._path), self._path)
        return {name: Secret(_value(found)) for name, found in table(answer.get("keys") or {}, self._path).items()}

    async def create(self, name: str) -> Secret:
        """Make a key, and return it ("" where LimaCharlie does not show it; `list` does). A second call replaces the first key."""
        answer = table(await self._transport.request("POST", self._path, form={"name": name}), self._path)
        return Secret(_value(answer) or _value(answer.get(name)))

    async def delete(self, name: str) -> None:
        """Revoke a key."""
        # Unlike everywhere else, in the query.
        await self._transport.request("DELETE", self._path, query={"name": name}, repeatable=True)


def _value(found: Any) -> str:
    """A key stands alone, or in an object beside other things."""
    if isinstance(found, dict):
        found = found.get("key") or found.get("ingestion_key") or found.get("value")
    return found if isinstance(found, str) else ""
