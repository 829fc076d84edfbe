"""Keys that sensors are installed with."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from pipeline.core.errors import UnavailableError
from pipeline.core.types import Secret
from pipeline.limacharlie import records
from pipeline.limacharlie.answers import Doc, segment, table, text, texts
from pipeline.limacharlie.transport import Transport


@dataclass(frozen=True, slots=True)
class InstallationKey:
    iid: str
    description: str
    tags: tuple[str, ...]
    """What each sensor is tagged with that is installed with it."""
    created_at: float | None
    """Unix seconds."""
    public_ca: bool
    """Whether sensors check LimaCharlie by public authorities instead of its own."""
    key: Secret
    """For sensors."""
    json_key: Secret
    """For adapters and the browser extension."""

    @classmethod
    def parse(cls, doc: Doc, iid: str = "") -> InstallationKey:
        created = records.parse_time(doc.get("created"))
        return cls(
            iid=text(doc, "iid") or iid,
            description=text(doc, "desc"),
            tags=texts(doc.get("tags")),
            created_at=None if created is None else created / 1000,
            public_ca=doc.get("use_public_root_ca") is True,
            key=Secret(text(doc, "key")),
            json_key=Secret(text(doc, "json_key")),
        )


class InstallationKeys:
    """Needs ``ikey.list``, ``ikey.set`` and ``ikey.del``. All raise what `Transport.request` raises."""

    def __init__(self, transport: Transport, oid: str) -> None:
        self._transport = transport
        self._oid = oid
        self._path = f"/installationkeys/{oid}"

    async def list(self) -> dict[str, InstallationKey]:
        """All keys by their id."""
        answer = table(await self._transport.request("GET", self._path), self._path)
        found: Any = table(answer.get(self._oid) or {}, self._path)
        return {iid: InstallationKey.parse(doc, iid) for iid, doc in found.items() if isinstance(doc, dict)}

    async def get(self, iid: str) -> InstallationKey:
        """One key. Raises `NotFoundError`."""
        path = f"{self._path}/{segment(iid)}"
        return InstallationKey.parse(table(await self._transport.request("GET", path), path), iid)

    async def create(self, description: str, *, tags: Iterable[str] = (), public_ca: bool = False) -> str:
        """Make a key and return its id. Not tried again: that could leave a second key behind."""
        form = {"desc": description, "tags": ",".join(tags), "use_public_root_ca": "true" if public_ca else "false"}
        iid = text(table(await self._transport.request("POST", self._path, form=form), self._path), "iid")
        if not iid:
            raise UnavailableError("LimaCharlie did not name the key that it made.", where=self._path)
        return iid

    async def delete(self, iid: str) -> None:
        """Remove a key; sensors that were installed with it stay."""
        await self._transport.request("DELETE", self._path, form={"iid": iid}, repeatable=True)
