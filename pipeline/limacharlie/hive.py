"""Hives: LimaCharlie's tables of named records, for rules, secrets, lookups, saved queries and more."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from typing import Any

import orjson

from pipeline.core.errors import UnavailableError
from pipeline.kit.backoff import Backoff
from pipeline.limacharlie.answers import Doc, gzip, segment, table, text, texts
from pipeline.limacharlie.failures import ConflictError, TooLargeError
from pipeline.limacharlie.times import milliseconds
from pipeline.limacharlie.transport import Transport

PAGE = 500
"""Records that a page is asked for."""
_TRIES = 5
_LARGE = 32 << 10
"""Data of more bytes travels compressed."""


@dataclass(frozen=True, slots=True)
class HiveRecord:
    """A record: its data, what users say about it, and what LimaCharlie does.

    Writing what users say replaces all of it, so a record that is to keep it is read first (`Hive.update`).
    """

    name: str
    data: Doc | None = field(default=None, repr=False)
    """None where only the rest was asked for; not shown, for it may be a secret."""
    enabled: bool | None = None
    """LimaCharlie takes None as no where anything else below is set, or the record is new."""
    tags: tuple[str, ...] | None = None
    comment: str | None = None
    expires_at: float | None = None
    """When LimaCharlie removes it, in Unix seconds."""
    ui_actions: tuple[Doc, ...] | None = None
    etag: str | None = None
    """The version that was read; a write with it is refused when there is another by then."""
    system: Doc = field(default_factory=dict, repr=False)
    """``created_by``, ``last_author``, ``last_error`` …; its times are in milliseconds."""

    @classmethod
    def parse(cls, name: str, doc: Doc, where: str = "", *, metadata_only: bool = False) -> HiveRecord:
        data = doc.get("data")
        if isinstance(data, str):
            try:
                data = orjson.loads(data)
            except ValueError:
                raise UnavailableError(f"The data of {name!r} is not JSON.", where=where) from None
        user = _table(doc.get("usr_mtd"))
        system = _table(doc.get("sys_mtd"))
        expiry = user.get("expiry")
        actions = user.get("ui_actions")
        return cls(
            name=name,
            data=None if metadata_only or data is None else table(data, where),
            enabled=found if isinstance(found := user.get("enabled"), bool) else None,
            tags=texts(user["tags"]) if isinstance(user.get("tags"), list) else None,
            comment=text(user, "comment") or None,
            expires_at=expiry / 1000 if isinstance(expiry, int | float) and expiry > 0 else None,
            ui_actions=tuple(entry for entry in actions if isinstance(entry, dict))
            if isinstance(actions, list)
            else None,
            etag=text(system, "etag") or None,
            system=system,
        )

    def user_metadata(self) -> Doc:
        """What users say about it, as on the wire; {} where nothing is said."""
        said = {
            "enabled": self.enabled,
            "tags": None if self.tags is None else list(self.tags),
            "comment": self.comment,
            "expiry": None if self.expires_at is None else milliseconds(self.expires_at),
            "ui_actions": None if self.ui_actions is None else list(self.ui_actions),
        }
        return {key: value for key, value in said.items() if value is not None}


class Hive:
    """One hive of the organization. Needs permissions by its kind, like ``dr.list``, ``dr.set``, ``secret.get``.

    All raise what `Transport.request` raises.
    """

    def __init__(self, transport: Transport, name: str, partition: str) -> None:
        self._transport = transport
        self._path = f"/hive/{segment(name)}/{segment(partition)}"
        self._schema = f"/hive/{segment(name)}/schema"

    async def list(self, *, metadata_only: bool = False) -> dict[str, HiveRecord]:
        """All records by name; a hive that is too large for one answer is read in pages."""
        query = {"mtd_only": "true"} if metadata_only else None
        try:
            answer = table(await self._transport.request("GET", self._path, query=query), self._path)
        except TooLargeError:
            return {name: found async for name, found in self.walk(metadata_only=metadata_only)}
        return self._parse(answer, metadata_only=metadata_only)

    async def walk(
        self,
        *,
        metadata_only: bool = False,
        tag_prefix: str | None = None,
        page_size: int = PAGE,
        max_bytes: int | None = None,
    ) -> AsyncIterator[tuple[str, HiveRecord]]:
        """Walk through the records in pages, so that one page at a time is in memory.

        ``max_bytes`` makes LimaCharlie's pages smaller than it would. A service that knows no pages gives all at once.
        """
        query = {"limit": str(page_size)}
        if metadata_only:
            query["mtd_only"] = "true"
        if tag_prefix:
            query["tag_prefix"] = tag_prefix
        if max_bytes:
            query["max_bytes"] = str(max_bytes)
        cursor = ""
        while True:
            page = query | ({"cursor": cursor} if cursor else {})
            answer = table(await self._transport.request("GET", self._path, query=page), self._path)
            records, following = _split(answer)
            for name, found in self._parse(records, metadata_only=metadata_only).items():
                if not tag_prefix or any(tag.startswith(tag_prefix) for tag in found.tags or ()):
                    yield name, found
            if not following:
                return
            if following == cursor:
                raise UnavailableError(
                    "LimaCharlie's pages do not lead on: the same cursor came twice.", where=self._path
                )
            cursor = following

    async def get(self, name: str) -> HiveRecord:
        """One record. Raises `NotFoundError`."""
        path = self._of(name, "/data")
        return HiveRecord.parse(name, table(await self._transport.request("GET", path), path), path)

    async def metadata(self, name: str) -> HiveRecord:
        """One record without its data. Raises `NotFoundError`."""
        path = self._of(name, "/mtd")
        answer = table(await self._transport.request("GET", path), path)
        return HiveRecord.parse(name, answer, path, metadata_only=True)

    async def put(self, record: HiveRecord, *, arl: str | None = None) -> None:
        """Write a record; without data (and ``arl``, an address to take it from) only what users say about it.

        With an etag, raises `ConflictError` where the record is not the one that was read.
        """
        path = self._of(record.name, "/mtd" if record.data is None and arl is None else "/data")
        # With an etag, a repetition after a lost answer would run into its own first try.
        await self._transport.request("POST", path, form=await _form(record, arl), repeatable=record.etag is None)

    async def update(self, name: str, change: Callable[[HiveRecord], HiveRecord | None]) -> HiveRecord | None:
        """Change a record as one step: ``change`` gets it as it is and returns it as it shall be, or None to leave it.

        Where somebody else was faster it is read and changed again, a few times. Returns what was written.
        """
        backoff = Backoff(base=0.2, cap=3.0)
        while True:
            found = await self.get(name)
            changed = change(found)
            if changed is None:
                return None
            try:
                await self.put(replace(changed, name=name, etag=found.etag))
            except ConflictError:
                if backoff.tries >= _TRIES - 1:
                    raise
                await asyncio.sleep(backoff.next())
            else:
                return changed

    async def validate(self, record: HiveRecord) -> Doc:
        """Have a record checked without writing it. Raises `RequestRefusedError` with what is wrong."""
        path = self._of(record.name, "/validate")
        return table(await self._transport.request("POST", path, form=await _form(record), repeatable=True), path)

    async def rename(self, name: str, new_name: str) -> None:
        """Give a record another name."""
        segment(new_name)
        await self._transport.request("POST", self._of(name, "/rename"), query={"new_name": new_name})

    async def delete(self, name: str) -> None:
        """Remove a record. Raises `NotFoundError`."""
        await self._transport.request("DELETE", self._of(name))

    async def schema(self) -> Doc:
        """The JSON Schema of the hive's data."""
        answer = table(await self._transport.request("GET", self._schema), self._schema)
        return found if isinstance(found := answer.get("schema"), dict) else answer

    def _of(self, name: str, what: str = "") -> str:
        return f"{self._path}/{segment(name)}{what}"

    def _parse(self, found: Doc, *, metadata_only: bool) -> dict[str, HiveRecord]:
        return {
            name: HiveRecord.parse(name, doc, self._path, metadata_only=metadata_only)
            for name, doc in found.items()
            if isinstance(doc, dict)
        }


async def _form(record: HiveRecord, arl: str | None = None) -> dict[str, str]:
    form = {}
    if record.data is not None:
        data = orjson.dumps(record.data)
        form = {"gzdata": await gzip(data)} if len(data) > _LARGE else {"data": data.decode()}
    if said := record.user_metadata():
        form["usr_mtd"] = orjson.dumps(said).decode()
    if record.etag is not None:
        form["etag"] = record.etag
    if arl is not None:
        form["arl"] = arl
    return form


def _split(answer: Doc) -> tuple[Doc, str]:
    """Records and next cursor of a page. A text as ``next_cursor`` tells a page from a table of records, which are objects."""
    following = answer.get("next_cursor")
    if isinstance(following, str) or ("next_cursor" in answer and following is None):
        return _table(answer.get("records")), following or ""
    only = answer.get("records")
    if answer.keys() == {"records"} and not _is_record(only):
        return _table(only), ""
    return answer, ""


def _is_record(value: Any) -> bool:
    return isinstance(value, dict) and ("sys_mtd" in value or "usr_mtd" in value)


def _table(value: Any) -> Doc:
    return value if isinstance(value, dict) else {}
