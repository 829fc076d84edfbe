"""The unit of travel: a batch of raw records that share a source, an organization and a stream."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from pipeline.core.lines import Lines

MAX_RECORDS = 256
"""Records in one batch at most."""
MAX_BYTES = 1 << 20
"""Bytes of records in one batch at most, unless it holds a single larger record."""

Origin = Literal["live", "replay", "backfill"]


@dataclass(frozen=True, slots=True)
class LogId:
    """Names one log of the spool: a source and, where organizations are configured, an organization (else "").

    Records that are replayed have logs of their own, so that they get to whom they are for and to nobody else: ``replay`` is
    ``ROUTE`` (through its filters into all its sinks), ``ROUTE/SINK/filtered`` (through its filters into this one),
    ``ROUTE/SINK`` (into this one as they are) or ``ROUTE/SINK/changed`` (the same, and filters had changed them before).
    """

    source: str
    org: str = ""
    replay: str = ""

    def __str__(self) -> str:
        name = f"{self.source}/{self.org}" if self.org else self.source
        return f"{name}>{self.replay}" if self.replay else name

    @property
    def key(self) -> tuple[str, str]:
        """Two texts that stand for it where it is stored; `of` understands them."""
        return (f"{self.source}>{self.replay}" if self.replay else self.source, self.org)

    @classmethod
    def of(cls, source: object, org: object) -> LogId:
        """The log of a `key`."""
        name, _, replay = str(source).partition(">")
        return cls(name, str(org), replay)

    @property
    def filtered(self) -> bool:
        """Whether filters decide about its records."""
        return not self.replay or "/" not in self.replay or self.replay.endswith("/filtered")

    @property
    def changed(self) -> bool:
        """Whether filters had changed its records before they came into it."""
        return self.replay.endswith("/changed")

    def is_for(self, route: str, sink: str) -> bool:
        """Whether a lane reads it because of ``replay``."""
        to, _, rest = self.replay.partition("/")
        return to == route and rest.partition("/")[0] in ("", sink)


class Batch:
    """Raw records as one read gave them, in one block that never changes."""

    __slots__ = ("first", "log", "origin", "received_at", "records", "stream")

    def __init__(
        self,
        records: Sequence[bytes],
        log: LogId,
        stream: str,
        received_at: float,
        origin: Origin = "live",
        *,
        first: int = -1,
    ) -> None:
        """``records`` hold no LF."""
        self.records = Lines.of(records)
        self.log = log
        self.stream = stream
        self.received_at = received_at
        """Unix time in seconds."""
        self.origin: Origin = origin
        self.first = first
        """Sequence number of the first record in its log, given by the spool on append."""

    def __repr__(self) -> str:
        return f"Batch({self.records!r}, {self.log}, {self.stream!r}, {self.origin}, first={self.first})"

    @property
    def size(self) -> int:
        """Bytes of all records together."""
        return self.records.size

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
