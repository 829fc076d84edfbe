"""What was generated, kept for the calls that look back."""

from __future__ import annotations

import itertools
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from pipeline.emulator.records import Record

KEPT_RECORDS = 100_000
"""The newest records of each stream of each organization …"""
KEPT_BYTES = 128 << 20
"""… as long as they are not larger; all organizations share what is eight times this."""


class Entry(NamedTuple):
    """A record at its place: by time, and those of the same millisecond in the order in which they were made."""

    time_ms: int
    number: int
    record: Record


class _Stream:
    def __init__(self, kept_bytes: int) -> None:
        self._entries: deque[Entry] = deque()
        self._bytes = 0
        self._kept_bytes = kept_bytes
        self._numbers = itertools.count()

    def add(self, records: Iterable[Record]) -> None:
        for record in records:
            self._entries.append(Entry(record.time_ms, next(self._numbers), record))
            self._bytes += len(record.raw)
        while len(self._entries) > KEPT_RECORDS or self._bytes > self._kept_bytes:
            self._bytes -= len(self._entries.popleft().record.raw)

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._entries)


class History:
    """The newest records by organization and stream."""

    def __init__(self, orgs: int) -> None:
        kept_bytes = min(KEPT_BYTES, 8 * KEPT_BYTES // max(orgs, 1))
        self._streams: dict[tuple[str, str], _Stream] = defaultdict(lambda: _Stream(kept_bytes))

    def add(self, oid: str, stream: str, records: Iterable[Record]) -> None:
        self._streams[oid, stream].add(records)

    def find(self, oid: str, stream: str, holds: Callable[[Record], bool]) -> list[Entry]:
        """Return the records for which a test holds, oldest first."""
        return sorted(entry for entry in self._streams[oid, stream] if holds(entry.record))

    def between(self, oid: str, stream: str, start: int, end: int) -> list[Entry]:
        """Return the records of a time in Unix seconds, both included, oldest first."""
        first, last = start * 1000, end * 1000 + 999
        return self.find(oid, stream, lambda record: first <= record.time_ms <= last)

    def one(self, oid: str, stream: str, record_id: str) -> Record | None:
        """Return the newest record with this id."""
        found: Sequence[Entry] = self.find(oid, stream, lambda record: record.id == record_id)
        return found[-1].record if found else None
