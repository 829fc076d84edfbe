"""The hives: named records with etags, in as many collections as there are kinds of configuration."""

from __future__ import annotations

import hashlib
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

HIVES: dict[str, tuple[str, ...]] = {
    "dr-general": ("detect", "respond"),
    "dr-managed": ("detect", "respond"),
    "dr-service": ("detect", "respond"),
    "fp": ("detection",),
    "secret": ("secret",),
    "lookup": (),
    "yara": ("rule",),
    "query": ("query",),
    "extension_config": (),
    "extension_definition": (),
    "cloud_sensor": (),
    "external_adapter": (),
    "playbook": (),
    "model": (),
    "note": (),
    "sop": (),
    "org_notes": (),
    "ai_agent": (),
    "ai_skill": (),
    "ai_memory": (),
}
"""Every hive, and what its records must have."""

MAX_RECORD = 4 << 20
"""Bytes of one record's data."""
MAX_RECORDS = 10_000
"""Records in one hive of one organization."""
MAX_QUERY = 1024
"""Bytes of a saved query."""


class HiveError(Exception):
    """A call to a hive fails; `code` is LimaCharlie's name for it."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(f"lc_error_code:{code} - {text}")
        self.code = code


@dataclass
class Record:
    """One record. Times are Unix milliseconds."""

    guid: str
    data: dict[str, Any]
    created_by: str
    created_at: int
    author: str = ""
    modified: int = 0
    etag: str = ""
    usr_mtd: dict[str, Any] = field(default_factory=dict)

    def shown(self, *, data: bool = True) -> dict[str, Any]:
        return {
            "data": self.data if data else {},
            "usr_mtd": self.usr_mtd,
            "sys_mtd": {
                "etag": self.etag,
                "created_at": self.created_at,
                "created_by": self.created_by,
                "guid": self.guid,
                "last_author": self.author,
                "last_mod": self.modified,
                "last_error": "",
                "last_error_ts": 0,
            },
        }

    @property
    def enabled(self) -> bool:
        return bool(self.usr_mtd["enabled"])


class Hive:
    """One hive of one organization."""

    def __init__(self, name: str, oid: str) -> None:
        self.name = name
        self.oid = oid
        self._records: dict[str, Record] = {}

    def __iter__(self) -> Iterator[tuple[str, Record]]:
        return iter(sorted(self._records.items()))

    def get(self, key: str) -> Record:
        """Return a record; raises `HiveError`."""
        if key not in self._records:
            raise HiveError("RECORD_NOT_FOUND", f"no record {key[:80]} in {self.name}")
        return self._records[key]

    def find(self, key: str) -> Record | None:
        return self._records.get(key)

    def check(self, data: dict[str, Any]) -> None:
        """Raises `HiveError` for data that this hive does not take."""
        missing = [name for name in HIVES[self.name] if data.get(name) is None]
        if missing:
            raise HiveError("INVALID_RECORD", f"{self.name} records need {', '.join(missing)}")
        if len(orjson.dumps(data)) > MAX_RECORD:
            raise HiveError("RECORD_TOO_LARGE", f"more than {MAX_RECORD} bytes")
        if self.name == "query" and len(str(data["query"]).encode()) > MAX_QUERY:
            raise HiveError("INVALID_RECORD", f"a query has at most {MAX_QUERY} bytes")

    def set(
        self, key: str, author: str, data: dict[str, Any] | None, usr_mtd: dict[str, Any] | None, etag: str = ""
    ) -> Record:
        """Create or change a record; what is not given stays. Raises `HiveError`, also when the etag is not the current one."""
        if not key:
            raise HiveError("INVALID_RECORD", "a record needs a name")
        record = self._records.get(key)
        if etag and (record is None or record.etag != etag):
            raise HiveError("ETAG_MISMATCH", f"record {key[:80]} was changed by someone else")
        if data is not None:
            self.check(data)
        now = int(time.time() * 1000)
        if record is None:
            if data is None:
                raise HiveError("RECORD_NOT_FOUND", f"no record {key[:80]} in {self.name}")
            if len(self._records) >= MAX_RECORDS:
                raise HiveError("TOO_MANY_RECORDS", f"{self.name} has {MAX_RECORDS} records")
            record = Record(guid=str(uuid.uuid4()), data=data, created_by=author, created_at=now, usr_mtd=_metadata({}))
        if data is not None:
            record.data = data
        if usr_mtd is not None:
            record.usr_mtd = _metadata(usr_mtd)
        record.author, record.modified = author, now
        record.etag = hashlib.sha256(f"{uuid.uuid4()}".encode()).hexdigest()
        self._records[key] = record
        return record

    def rename(self, key: str, new: str) -> Record:
        record = self.get(key)
        if not new or new in self._records:
            raise HiveError("INVALID_RECORD", f"the name {new[:80]!r} is not free")
        self._records[new] = self._records.pop(key)
        return record

    def delete(self, key: str) -> None:
        self.get(key)
        del self._records[key]


class Hives:
    """All hives of all organizations."""

    def __init__(self) -> None:
        self._hives: dict[tuple[str, str], Hive] = {}

    def of(self, name: str, oid: str) -> Hive:
        """Return one hive of an organization; raises `HiveError` for a name that is none."""
        if name not in HIVES:
            raise HiveError("UNKNOWN_HIVE", f"no hive {name[:80]}")
        return self._hives.setdefault((name, oid), Hive(name, oid))


def rules_of(hives: Hives, oid: str) -> int:
    """Return the number of detection rules of an organization."""
    return sum(len(list(hives.of(name, oid))) for name in ("dr-general", "dr-managed", "dr-service"))


def _metadata(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the user's part of a record's metadata: what is not given is empty, and a record is not enabled by itself."""
    return {
        "enabled": bool(given.get("enabled", False)),
        "expiry": given.get("expiry") or 0,
        "tags": given.get("tags") or [],
        "comment": given.get("comment") or "",
    } | ({"ui_actions": given["ui_actions"]} if given.get("ui_actions") else {})
