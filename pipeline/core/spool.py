"""The spool keeps accepted records until every lane is past them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal, Protocol

from pipeline.core.batch import Batch, LogId

OnFull = Literal["block", "drop_oldest"]
Start = Literal["oldest", "newest"]
Positions = Mapping[tuple[str, LogId], int]
"""(lane id, log) -> sequence number of the first record that the lane is not past."""
Key = tuple[str | int, ...]
Facts = Mapping[str, Mapping[Key, str | int | bytes | None]]
"""Table of the spool -> key -> value, or None to forget it: what the engine keeps beside positions and marks."""
Marks = Mapping[str, Mapping[str, Any]]
"""Sink id -> delta of its marks."""


NO_FACTS: Facts = MappingProxyType({})
Commit = Callable[[Facts], Awaitable[None]]
"""Has facts of the spool's own committed, and with them, in one step, what lanes noted of records that they skipped."""


class LanePort(Protocol):
    """A lane as the spool sees it."""

    @property
    def id(self) -> str: ...

    @property
    def logs(self) -> Sequence[LogId]: ...

    @property
    def on_full(self) -> OnFull: ...

    def wake(self) -> None:
        """A log that the lane reads has something new."""
        ...

    def hurry(self) -> None:
        """Room is short: write what is collected now instead of waiting for company."""
        ...

    def cursor(self, log: LogId) -> int:
        """The sequence number that the lane reads next; what is before it is in the lane's hand or done."""
        ...

    def skip(self, log: LogId, end: int) -> None:
        """Go on reading at ``end``; what is skipped counts as discarded. What is in hand stays."""
        ...


@dataclass(slots=True)
class LogStats:
    """Counts of one log since the process started."""

    end: int = 0
    """The next record's sequence number."""
    received: int = 0
    """Records appended."""
    bytes: int = 0
    """Bytes that its records hold in the spool now."""


@dataclass(slots=True)
class Restored:
    """What a spool knew when it was opened."""

    positions: dict[tuple[str, LogId], int] = field(default_factory=dict)
    marks: dict[str, dict[str, Any]] = field(default_factory=dict)
    lost: bool = False
    """Whether positions are missing that there were: no lane may count as new."""
    facts: dict[str, dict[Key, Any]] = field(default_factory=dict)
    """What was committed of the engine's tables."""


class Spool(Protocol):
    """A log per source and organization, read by lanes at their own positions."""

    commit_interval: float
    """Seconds between commits; 0 means that a commit costs nothing and is made at once."""
    durable: bool
    """Whether accepted records survive a crash of the process."""
    max_batch: int
    """Bytes of records that a batch may have, unless it is one record: what is larger might never find room."""
    max_hand: int
    """Bytes that a lane with `drop_oldest` may have in its writes: what is being written cannot be given up."""

    async def open(self, logs: Sequence[LogId]) -> Restored:
        """Make or open these logs and return what is known of lanes and sinks."""
        ...

    def attach(self, lanes: Sequence[LanePort], commit: Commit | None = None) -> None:
        """Make the lanes known, before the first append or read; a log that no lane reads keeps nothing.

        ``commit`` is for a spool that is durable; without it, it commits its own facts alone.
        """
        ...

    async def add(self, log: LogId, lanes: Sequence[LanePort]) -> None:
        """Make a log for records that are replayed, which these lanes read from its beginning on, where it does not exist yet.

        Raises UsageError when its name cannot be stored.
        """
        ...

    async def append(self, *batches: Batch) -> None:
        """Store batches of one log and give each its ``first``; what comes together may be stored together.

        Waits while there is no room; order within a log is that of the calls. Cancelled, it has stored those with a ``first``.
        """
        ...

    async def read(self, log: LogId, position: int) -> Batch | None:
        """The batch that holds ``position`` (it may begin earlier), the next one where that is gone, or None at the end."""
        ...

    async def commit(self, positions: Positions, marks: Marks, facts: Facts = NO_FACTS) -> None:
        """Remember these in one step and free what every lane is past. A spool that is not durable lets ``facts`` go."""
        ...

    async def settled(self, log: LogId, end: int) -> None:
        """Return when every lane is past ``end``."""
        ...

    def stats(self) -> Mapping[LogId, LogStats]: ...

    def oldest(self, log: LogId) -> int:
        """The sequence number of the oldest record kept, where a new lane may begin."""
        ...

    def given_up(self, log: LogId, start: int, end: int) -> int:
        """How many of these records, which it no longer has, lanes gave up in an earlier process because it was full."""
        ...

    async def close(self) -> None: ...
