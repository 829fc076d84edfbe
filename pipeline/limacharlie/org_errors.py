"""The errors that LimaCharlie keeps for an organization, such as an Output that could not connect."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import quote

from pipeline.core.errors import UnavailableError
from pipeline.kit.http import clean
from pipeline.limacharlie.transport import Transport


@dataclass(frozen=True, slots=True)
class OrgError:
    component: str
    """What failed, like ``outputs/NAME``."""
    text: str
    at: float | None
    """Unix time in seconds."""


class OrgErrors:
    """All raise what `Transport.request` raises."""

    def __init__(self, transport: Transport, oid: str) -> None:
        self._transport = transport
        self._path = f"/errors/{oid}"

    async def list(self) -> Sequence[OrgError]:
        """All errors that are not dismissed."""
        answer = await self._transport.request("GET", self._path)
        found = answer.get("errors") if isinstance(answer, dict) else None
        if found is None:
            return []
        if not isinstance(found, list):
            raise UnavailableError("LimaCharlie did not list the errors.", where=self._path)
        return [
            OrgError(
                component=str(entry.get("component", "")),
                text=clean(str(entry.get("error", ""))),
                at=float(at) / (1000 if at > 1e11 else 1)
                if isinstance(at := entry.get("ts"), int | float) and not isinstance(at, bool)
                else None,
            )
            for entry in found
            if isinstance(entry, dict)
        ]

    async def of_output(self, name: str) -> OrgError | None:
        """The error of one Output, if it has one."""
        return next((error for error in await self.list() if error.component == f"outputs/{name}"), None)

    async def dismiss(self, component: str) -> None:
        """Forget an error."""
        await self._transport.request("DELETE", f"{self._path}/{quote(component, safe='')}", repeatable=True)
