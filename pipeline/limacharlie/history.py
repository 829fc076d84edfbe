"""What LimaCharlie keeps: events of a sensor, detections, and the audit trail. This is what a gap is filled from."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from pipeline.limacharlie.answers import Doc, flag, pages, raw_pages, segment, sensor_id, table
from pipeline.limacharlie.times import Period, When
from pipeline.limacharlie.transport import Transport


class History:
    """Needs ``insight.evt.get``, ``insight.det.get`` and ``audit.get``. All raise what `Transport.request` raises.

    Ranges are of LimaCharlie's whole seconds; ``start`` and ``end`` are read when a method is called (`UsageError` for a bad one).
    ``limit`` ends the walk after so many records.
    """

    def __init__(self, transport: Transport, oid: str) -> None:
        self._transport = transport
        self._path = f"/insight/{oid}"

    def events(
        self,
        sid: str,
        start: When = "24h",
        end: When = "now",
        *,
        event_type: str | None = None,
        forward: bool = True,
        limit: int | None = None,
    ) -> AsyncIterator[Doc]:
        """Walk through a sensor's events, oldest first unless ``forward`` is False."""
        options = {"is_forward": flag(forward)}
        if event_type:
            options["event_type"] = event_type
        return self._walk(f"{self._path}/{sensor_id(sid)}", "events", start, end, options, limit)

    def detections(
        self, start: When = "24h", end: When = "now", *, category: str | None = None, limit: int | None = None
    ) -> AsyncIterator[Doc]:
        """Walk through detections."""
        options = {"cat": category} if category else {}
        return self._walk(f"{self._path}/detections", "detects", start, end, options, limit)

    async def detection(self, detect_id: str) -> Doc:
        """One detection. Raises `NotFoundError`."""
        path = f"{self._path}/detections/{segment(detect_id)}"
        return table(await self._transport.request("GET", path), path)

    def audit(
        self,
        start: When = "24h",
        end: When = "now",
        *,
        event_type: str | None = None,
        sid: str | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[Doc]:
        """Walk through the audit trail."""
        options = {"event_type": event_type} if event_type else {}
        if sid:
            options["sid"] = sensor_id(sid)
        return self._walk(f"{self._path}/audit", "events", start, end, options, limit)

    def raw_events(
        self, sid: str, start: When, end: When, *, event_type: str | None = None
    ) -> AsyncIterator[list[bytes]]:
        """A sensor's events, page by page, as they are kept: the bytes of each."""
        options = {"is_forward": flag(value=True)} | ({"event_type": event_type} if event_type else {})
        return self._raw(f"{self._path}/{sensor_id(sid)}", "events", start, end, options)

    def raw_detections(self, start: When, end: When, *, category: str | None = None) -> AsyncIterator[list[bytes]]:
        """Detections, page by page, as they are kept."""
        return self._raw(f"{self._path}/detections", "detects", start, end, {"cat": category} if category else {})

    def raw_audit(self, start: When, end: When) -> AsyncIterator[list[bytes]]:
        """The audit trail, page by page, as it is kept."""
        return self._raw(f"{self._path}/audit", "events", start, end, {})

    def _raw(self, path: str, key: str, start: When, end: When, options: dict[str, str]) -> AsyncIterator[list[bytes]]:
        query = {**Period.of(start, end, self._transport.clock.now()).query(), "is_compressed": "true", **options}

        async def fetch(cursor: str) -> Any:
            return await self._transport.request("GET", path, query=query | {"cursor": cursor})

        return raw_pages(fetch, key, path)

    def _walk(
        self, path: str, key: str, start: When, end: When, options: dict[str, str], limit: int | None
    ) -> AsyncIterator[Doc]:
        query = {**Period.of(start, end, self._transport.clock.now()).query(), "is_compressed": "true", **options}
        if limit is not None:
            query["limit"] = str(limit)

        async def fetch(cursor: str) -> Any:
            return await self._transport.request("GET", path, query=query | {"cursor": cursor})

        return pages(fetch, key, path, limit=limit)
