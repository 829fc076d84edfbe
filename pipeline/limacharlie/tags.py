"""Tags of sensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.core.errors import UsageError
from pipeline.limacharlie import records
from pipeline.limacharlie.answers import segment, sensor_id, table, texts
from pipeline.limacharlie.paths import Paths
from pipeline.limacharlie.transport import Transport


@dataclass(frozen=True, slots=True)
class Tag:
    name: str
    added_by: str = ""
    added_at: float | None = None
    """Unix seconds, where LimaCharlie tells."""


class Tags:
    """Needs ``sensor.list`` and ``sensor.tag``. All raise what `Transport.request` raises."""

    def __init__(self, transport: Transport, oid: str, paths: Paths) -> None:
        self._transport = transport
        self._oid = oid
        self._paths = paths

    async def all(self) -> Sequence[str]:
        """All tags that sensors of the organization have."""
        path = f"/tags/{self._oid}"
        return texts(table(await self._transport.request("GET", path), path).get("tags"))

    async def sensors(self, tag: str) -> dict[str, frozenset[str]]:
        """The sensors that have this tag, each with all of its tags."""
        path = f"/tags/{self._oid}/{segment(tag)}"
        answer = table(await self._transport.request("GET", path), path)
        return {sid: frozenset(texts(tags)) for sid, tags in answer.items()}

    async def of(self, sid: str) -> dict[str, Tag]:
        """A sensor's tags by name."""
        path = self._path(sid)
        found: Any = table(await self._transport.request("GET", path), path).get("tags")
        if isinstance(found, dict):
            found = found.get(sid, found.get(sid.lower(), {}))
        if isinstance(found, dict):
            return {name: _tag(name, row) for name, row in found.items()}
        return {name: Tag(name) for name in texts(found)}

    async def add(self, sid: str, *tags: str, ttl: float | None = None) -> None:
        """Tag a sensor, for ``ttl`` seconds or for good."""
        form: dict[str, str | Sequence[str]] = {"tags": _named(tags)}
        if ttl is not None:
            if not ttl >= 1:
                raise UsageError("A tag lasts at least one second.")
            form["ttl"] = str(int(ttl))
        await self._transport.request("POST", self._path(sid), form=form, repeatable=True)

    async def remove(self, sid: str, *tags: str) -> None:
        """Take tags off a sensor."""
        named = _named(tags)
        form = {"tag": named[0]} if len(named) == 1 else {"tags": ",".join(named)}
        await self._transport.request("DELETE", self._path(sid), form=form, repeatable=True)

    def _path(self, sid: str) -> str:
        return self._paths.of(self._paths.tags, self._oid, sensor_id(sid))


def _named(tags: tuple[str, ...]) -> tuple[str, ...]:
    if not tags or not all(tag.strip() and "," not in tag for tag in tags):
        raise UsageError("A tag is a text without commas, and at least one is needed.")
    return tags


def _tag(name: str, row: Any) -> Tag:
    """A tag's row is ``[sid, tag, added by, added at]``."""
    if not isinstance(row, list) or len(row) < 4:
        return Tag(name)
    added = records.parse_time(row[3])
    return Tag(name, str(row[2] or ""), None if added is None else added / 1000)
