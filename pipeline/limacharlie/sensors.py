"""Sensors: finding them, what is known of each, and taking them off the network."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from typing import Any

from pipeline.core.errors import UnavailableError
from pipeline.limacharlie import records
from pipeline.limacharlie.answers import Doc, sensor_id, table, text, texts, unpack
from pipeline.limacharlie.paths import Paths
from pipeline.limacharlie.platforms import ARCHITECTURES, PLATFORMS
from pipeline.limacharlie.transport import Transport

_AT_ONCE = 500
"""Sensors that one request asks after."""


@dataclass(frozen=True, slots=True)
class Sensor:
    """A sensor as LimaCharlie knows it."""

    sid: str
    hostname: str
    platform: str
    """``windows``, ``linux``, ``okta`` …; a number that has no name as ``0x…``."""
    architecture: str
    tags: frozenset[str]
    alive_at: float | None
    """When it was last heard of, in Unix seconds."""
    isolated: bool
    """Whether it is to be cut off from the network, and LimaCharlie alone may reach it."""
    sealed: bool
    """Whether it is to be protected from being removed."""
    online: bool | None
    """Whether it is connected; None where LimaCharlie was not asked that."""
    doc: Doc = field(repr=False, default_factory=dict)
    """All that LimaCharlie says of it."""

    @classmethod
    def parse(cls, doc: Doc, online: bool | None = None) -> Sensor:
        alive = records.parse_time(doc.get("alive"))
        return cls(
            sid=text(doc, "sid"),
            hostname=text(doc, "hostname"),
            platform=_name(PLATFORMS, doc.get("plat")),
            architecture=_name(ARCHITECTURES, doc.get("arch")),
            tags=frozenset(texts(doc.get("tags"))),
            alive_at=None if alive is None else alive / 1000,
            isolated=bool(doc.get("should_isolate")),
            sealed=bool(doc.get("should_seal")),
            online=found if isinstance(found := doc.get("is_online"), bool) else online,
            doc=doc,
        )


def _name(names: dict[int, str], number: Any) -> str:
    if isinstance(number, str):
        return number
    if not isinstance(number, int):
        return ""
    return names.get(number) or f"0x{number:x}"


class Sensors:
    """Needs ``sensor.list`` and ``sensor.get``, and what each method names. All raise what `Transport.request` raises."""

    def __init__(self, transport: Transport, oid: str, paths: Paths) -> None:
        self._transport = transport
        self._oid = oid
        self._paths = paths

    async def list(
        self,
        selector: str | None = None,
        *,
        with_ip: str | None = None,
        hostname_prefix: str | None = None,
        online_only: bool = False,
        page_size: int | None = None,
        compressed: bool = True,
    ) -> AsyncIterator[Sensor]:
        """Walk through the organization's sensors, page by page; `selector` helps to write a selector.

        ``page_size`` and ``compressed`` change how pages travel and nothing else.
        """
        path = f"/sensors/{self._oid}"
        given = {"selector": selector, "with_ip": with_ip, "with_hostname_prefix": hostname_prefix}
        query = {key: value for key, value in given.items() if value}
        if page_size:
            query["limit"] = str(page_size)
        if online_only:
            query["is_online_only"] = "true"
        if compressed:
            query["is_compressed"] = "true"
        token = ""
        while True:
            page = query | ({"continuation_token": token} if token else {})
            answer = table(await self._transport.request("GET", path, query=page), path)
            for doc in await unpack(answer.get("sensors"), path):
                if isinstance(doc, dict):
                    yield Sensor.parse(doc, online=True if online_only else None)
            following = text(answer, "continuation_token")
            if not following:
                return
            if following == token:
                raise UnavailableError("LimaCharlie's pages do not lead on: the same token came twice.", where=path)
            token = following

    async def get(self, sid: str) -> Sensor:
        """One sensor, with whether it is online. Raises `NotFoundError`."""
        path = self._paths.of(self._paths.sensor, self._oid, sensor_id(sid))
        answer = table(await self._transport.request("GET", path), path)
        info = answer.get("info")
        state = answer.get("online")
        online = answer.get("is_online")
        if not isinstance(online, bool):
            online = isinstance(state, dict) and bool(state) and "error" not in state
        return Sensor.parse(table(answer if info is None else info, path), online=online)

    async def online(self, sids: Iterable[str]) -> dict[str, bool]:
        """Which of these sensors are connected; one that LimaCharlie does not know is not."""
        wanted = [sensor_id(sid) for sid in sids]
        path = f"/online/{self._oid}"
        found: dict[str, bool] = {}
        for start in range(0, len(wanted), _AT_ONCE):
            form = {"sids": wanted[start : start + _AT_ONCE]}
            found |= table(await self._transport.request("POST", path, form=form, repeatable=True, reads=True), path)
        return {sid: found.get(sid) is True for sid in wanted}

    async def online_count(self) -> int:
        """How many sensors are connected."""
        path = f"/online/{self._oid}"
        count = table(await self._transport.request("GET", path), path).get("count")
        if not isinstance(count, int):
            raise UnavailableError("LimaCharlie did not count the sensors.", where=path)
        return count

    async def by_hostname(self, prefix: str) -> dict[str, str]:
        """Hostnames that begin so, by sensor id."""
        path = f"/hostnames/{self._oid}"
        found = table(await self._transport.request("GET", path, query={"hostname": prefix}), path).get("sid")
        if isinstance(found, dict):
            return {sid: name if isinstance(name, str) else "" for sid, name in found.items()}
        entries = found if isinstance(found, list) else []
        return {text(entry, "sid"): text(entry, "hostname") for entry in entries if isinstance(entry, dict)}

    async def isolate(self, sid: str) -> None:
        """Cut a sensor off from the network, except from LimaCharlie, until `rejoin`. Needs ``sensor.task``."""
        await self._switch("POST", sid, "isolation")

    async def rejoin(self, sid: str) -> None:
        """Let a sensor back into the network. Needs ``sensor.task``."""
        await self._switch("DELETE", sid, "isolation")

    async def seal(self, sid: str) -> None:
        """Protect a sensor from being removed on its machine. Needs ``sensor.task``."""
        await self._switch("POST", sid, "seal")

    async def unseal(self, sid: str) -> None:
        """Take the seal off. Needs ``sensor.task``."""
        await self._switch("DELETE", sid, "seal")

    async def delete(self, sid: str) -> None:
        """Remove a sensor from the organization. Needs ``sensor.del``."""
        path = self._paths.of(self._paths.sensor, self._oid, sensor_id(sid))
        await self._transport.request("DELETE", path, repeatable=True)

    async def _switch(self, method: str, sid: str, what: str) -> None:
        await self._transport.request(method, f"/{sensor_id(sid)}/{what}", repeatable=True)
