"""What the engine gives a component, made for tests: a clock that stands, a report and an outlet that remember."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from pipeline.core.batch import Receipt
from pipeline.core.clock import Clock
from pipeline.core.component import Context, Org, Report, State
from pipeline.kit import log as logs


class FakeClock:
    """Implements `pipeline.Clock`; moves only by `advance`. It does not move the sleeping of the event loop."""

    def __init__(self, now: float = 1_700_000_000.0) -> None:
        self._now = now
        self._passed = 0.0

    def now(self) -> float:
        return self._now + self._passed

    def monotonic(self) -> float:
        return self._passed

    def advance(self, seconds: float) -> None:
        """Let ``seconds`` (0 or more) pass."""
        self._passed += max(0.0, seconds)


class RecordingReport:
    """Implements `pipeline.Report`; remembers what it was told."""

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock
        self.states: list[tuple[State, str, str]] = []
        """(state, text, code), the oldest first."""
        self.errors: dict[str, int] = {}
        self.gaps: list[tuple[float, float, str, str]] = []
        """(start, end, reason, org) of those that are over."""
        self.open_gaps: dict[str, tuple[float, str]] = {}
        """Organization -> start and reason."""
        self.heard_until: dict[str, float] = {}
        self.dropped: dict[str, int] = {}
        """Organization -> records that the other side said it dropped."""
        self.counts: dict[str, int] = {}

    def state(self, state: State, text: str = "", code: str = "") -> None:
        self.states.append((state, text, code))

    def error(self, code: str, count: int = 1) -> None:
        self.errors[code] = self.errors.get(code, 0) + count

    def gap(self, start: float, end: float, reason: str, *, org: str = "", records: int = 0) -> None:
        del records
        self.gaps.append((start, end, reason, org))

    def gap_opened(self, start: float, reason: str, *, org: str = "") -> None:
        self.open_gaps.setdefault(org, (start, reason))

    def gap_closed(self, *, org: str = "") -> None:
        if org in self.open_gaps:
            start, reason = self.open_gaps.pop(org)
            self.gaps.append((start, self._clock.now() if self._clock else start, reason, org))

    def heard(self, when: float, *, org: str = "") -> None:
        self.heard_until[org] = when

    def upstream_dropped(self, count: int, *, org: str = "") -> None:
        self.dropped[org] = self.dropped.get(org, 0) + count

    def count(self, name: str, amount: int = 1) -> None:
        self.counts[name] = self.counts.get(name, 0) + amount


def context(
    name: str = "tested",
    *,
    clock: Clock | None = None,
    report: Report | None = None,
    orgs: Sequence[Org] = (Org(),),
    commit_mark: Callable[[Mapping[str, Any]], Awaitable[None]] | None = None,
) -> Context:
    """Make the surroundings of one component: a `FakeClock` and a `RecordingReport` unless given, and a fresh ``stopping``."""
    clock = clock or FakeClock()
    return Context(
        name,
        logs.get(component=name),
        clock,
        report or RecordingReport(clock),
        asyncio.Event(),
        tuple(orgs),
        commit_mark,
    )


class RecordingOutlet:
    """Implements `pipeline.Outlet`; remembers what a source sent, in order. Judges nothing."""

    def __init__(self, *, room: int | None = None) -> None:
        self.sent: list[tuple[bytes, str | None, str | None]] = []
        """(record, stream, org) as the source gave them; None stands for the source's own."""
        self.refused: list[tuple[bytes, str, str | None]] = []
        """(record, reason, org)."""
        self._room = room
        self._waiting = 0
        self._changed = asyncio.Condition()

    @property
    def records(self) -> list[bytes]:
        return [raw for raw, _, _ in self.sent]

    @property
    def waiting(self) -> bool:
        return self._waiting > 0

    async def send(self, raws: Sequence[bytes], stream: str | None = None, org: str | None = None) -> Receipt:
        """Remember records; with a ``room``, wait like a full spool once there are that many, until `make_room`."""
        raws = list(raws)
        if not raws:
            return Receipt()
        async with self._changed:
            if not self._has_room():
                self._waiting += 1
                self._changed.notify_all()
                try:
                    await self._changed.wait_for(self._has_room)
                finally:
                    self._waiting -= 1
            self.sent.extend((raw, stream, org) for raw in raws)
            self._changed.notify_all()
        return Receipt(count=len(raws))

    def refuse(self, raw: bytes, reason: str, org: str | None = None) -> None:
        self.refused.append((raw, reason, org))

    async def make_room(self, records: int | None = None) -> None:
        """Let ``records`` more in, or all from now on."""
        async with self._changed:
            self._room = None if records is None else len(self.sent) + records
            self._changed.notify_all()

    async def wait_for(self, count: int) -> None:
        """Return when at least ``count`` records were sent."""
        async with self._changed:
            await self._changed.wait_for(lambda: len(self.sent) >= count)

    async def wait_until_full(self) -> None:
        """Return when a `send` waits for room."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._waiting > 0)

    def _has_room(self) -> bool:
        return self._room is None or len(self.sent) < self._room
