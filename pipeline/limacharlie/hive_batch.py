"""Many reads and writes of hives in one request."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import orjson

from pipeline.core.errors import PipelineError, UnavailableError, UsageError
from pipeline.limacharlie.answers import Doc, table, tables
from pipeline.limacharlie.failures import failure
from pipeline.limacharlie.hive import HiveRecord
from pipeline.limacharlie.transport import Transport

_PATH = "/hive"
_TIMEOUT = 300.0
"""Seconds; a batch may take long."""
MAX_BATCH = 500
"""Operations of one request."""


@dataclass(frozen=True, slots=True)
class BatchAnswer:
    """What became of one operation."""

    name: str
    record: HiveRecord | None = field(default=None, repr=False)
    """What was read; None for a write."""
    error: PipelineError | None = None
    """Why it failed; None where it did not."""


class HiveBatch:
    """Collects operations on hives of one organization, and runs them in order. They are no transaction: each fails alone."""

    def __init__(self, transport: Transport, partition: str) -> None:
        self._transport = transport
        self._partition = partition
        self._requests: list[tuple[str, str, str]] = []
        """What is done, to which name, and the request."""

    def get(self, hive: str, name: str) -> None:
        self._add("get_record", hive, name)

    def metadata(self, hive: str, name: str) -> None:
        self._add("get_record_mtd", hive, name)

    def put(self, hive: str, record: HiveRecord) -> None:
        """Write a record; without data only what users say about it."""
        system = {"etag": record.etag} if record.etag else None
        said = record.user_metadata() or None
        if record.data is None:
            self._add("set_record_mtd", hive, record.name, usr_mtd=said or {}, sys_mtd=system or {})
        else:
            self._add("set_record", hive, record.name, record={"data": record.data, "usr_mtd": said, "sys_mtd": system})

    def delete(self, hive: str, name: str) -> None:
        self._add("delete_record", hive, name)

    async def run(self) -> list[BatchAnswer]:
        """Send them, and return an answer for each, in order. Raises what `Transport.request` raises for the whole."""
        if not self._requests:
            return []
        form = {"request": [request for _, _, request in self._requests]}
        answer = await self._transport.request("POST", _PATH, form=form, timeout=_TIMEOUT)
        answers = tables(answer, "responses", _PATH)
        if len(answers) != len(self._requests):
            raise UnavailableError("LimaCharlie did not answer each operation of the batch.", where=_PATH)
        return [self._parse(action, name, doc) for (action, name, _), doc in zip(self._requests, answers, strict=True)]

    def _add(self, action: str, hive: str, name: str, **content: Any) -> None:
        if len(self._requests) >= MAX_BATCH:
            raise UsageError(f"A batch has at most {MAX_BATCH} operations.")
        record_id = {"hive": {"name": hive, "partition": self._partition}, "name": name, "guid": ""}
        request = orjson.dumps({action: {"record_id": record_id, **content}}).decode()
        self._requests.append((action, name, request))

    def _parse(self, action: str, name: str, doc: Doc) -> BatchAnswer:
        problem = doc.get("error")
        if problem:
            reason = self._transport.scrub(str(problem))
            error = failure(400, {}, reason, where=f"{action} {name}", now=self._transport.clock.now())
            return BatchAnswer(name, error=error)
        if not action.startswith("get"):
            return BatchAnswer(name)
        data = table(doc.get("data") or {}, _PATH)
        return BatchAnswer(name, HiveRecord.parse(name, data, _PATH, metadata_only=action == "get_record_mtd"))
