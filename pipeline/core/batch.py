"""The unit of travel: a batch of raw records that share a source, an organization and a stream."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

MAX_RECORDS = 256
"""Records in one batch at most."""
MAX_BYTES = 1 << 20
"""Bytes of records in one batch at most, unless it holds a single larger record."""

Origin = Literal["live", "replay", "backfill"]


@dataclass(frozen=True, slots=True)
class LogId:
    """Names one log of the spool: a source and, where organizations are configured, an organization (else "")."""

    source: str
    org: str = ""

    def __str__(self) -> str:
        return f"{self.source}/{self.org}" if self.org else self.source


@dataclass(slots=True, eq=False)
class Batch:
    """Raw records as one read gave them. ``records`` are never changed once the batch exists."""

    records: Sequence[bytes]
    log: LogId
    stream: str
    received_at: float
    """Unix time in seconds."""
    origin: Origin = "live"
    size: int = -1
    """Bytes of all records together."""
    first: int = -1
    """Sequence number of the first record in its log, given by the spool on append."""

    def __post_init__(self) -> None:
        if self.size < 0:
            self.size = sum(map(len, self.records))

    @property
    def end(self) -> int:
        """The sequence number after the last record."""
        return self.first + len(self.records)

    @property
    def org(self) -> str:
        return self.log.org


class Settling(Protocol):
    """What a receipt asks whether the lanes are past its records: the spool."""

    async def settled(self, log: LogId, end: int) -> None: ...


@dataclass(slots=True, eq=False)
class Receipt:
    """What `Outlet.send` returns: the records are accepted (appended to the spool); `settled` waits for the lanes."""

    count: int = 0
    """Records that were accepted."""
    refused: int = 0
    """Records that intake refused (they are in the source's dead letter)."""
    _place: tuple[Settling, LogId, int] | None = field(default=None, repr=False)

    def wait_for(self, spool: Settling, log: LogId, end: int) -> None:
        """Say where the last of the records is; the outlet does."""
        self._place = (spool, log, end)

    async def settled(self) -> None:
        """Return when every lane has stored, filtered, dead-lettered or discarded all of these records."""
        if self._place is not None:
            spool, log, end = self._place
            await spool.settled(log, end)
