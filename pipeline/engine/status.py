"""How each component is: what sources and sinks report, kept for metrics, health and the log."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from pipeline.core.batch import LogId
from pipeline.core.clock import Clock
from pipeline.core.component import State
from pipeline.engine.gaps import Gap, GapLedger
from pipeline.kit.log import Logger


class Status:
    """Implements `pipeline.core.component.Report` for one component (and one organization, where it has one)."""

    def __init__(
        self,
        component: str,
        kind: str,
        org: str,
        log: Logger,
        clock: Clock,
        changed: Callable[[Status], None],
        gaps: GapLedger,
    ) -> None:
        self.component = component
        self.kind = kind
        self.org = org
        self.current: State = "starting"
        self.text = ""
        self.code = ""
        self.since = clock.now()
        self.errors: dict[str, int] = {}
        self.counts: dict[str, int] = {}
        self.dropped: dict[str, int] = {}
        """Organization -> records that the cloud says it dropped."""
        self._log = log
        self._clock = clock
        self._changed = changed
        self._gaps = gaps

    def state(self, state: State, text: str = "", code: str = "") -> None:
        if state != self.current:
            self.since = self._clock.now()
        change = (state, code) != (self.current, self.code)
        self.current, self.text, self.code = state, text, code
        if change:
            if self.kind == "source":
                self._tell(state, text)
            self._changed(self)

    def _tell(self, state: State, text: str) -> None:
        """Sinks have their own words, at the write that failed."""
        if state == "degraded":
            self._log.warning("The source is degraded.", error=text)
        elif state == "failed":
            self._log.error("The source does not work.", error=text)
        elif state == "ok":
            self._log.info("The source works.", **({"detail": text} if text else {}))

    def error(self, code: str, count: int = 1) -> None:
        self.errors[code] = self.errors.get(code, 0) + count

    def gap(self, start: float, end: float, reason: str, *, org: str = "", records: int = 0) -> None:
        gap = self._gaps.interval(LogId(self.component, org or self.org), start, end, reason, records)
        self.missing(gap, start, end)

    def gap_opened(self, start: float, reason: str, *, org: str = "") -> None:
        self._gaps.opened(LogId(self.component, org or self.org), start, reason)

    def gap_closed(self, *, org: str = "") -> None:
        gap = self._gaps.closed(LogId(self.component, org or self.org))
        if gap is not None:
            self.missing(gap, gap.start, gap.end or gap.start)

    def heard(self, when: float, *, org: str = "") -> None:
        self._gaps.heard(LogId(self.component, org or self.org), when)

    def missing(self, gap: Gap, start: float, end: float) -> None:
        """Write an interval into the log."""
        self._log.error(
            "Records may be missing from this interval.",
            gap=gap.number,
            start=start,
            end=end,
            seconds=round(end - start, 3),
            reason=gap.reason,
            **self._of(gap.org),
        )

    def upstream_dropped(self, count: int, *, org: str = "") -> None:
        org = org or self.org
        self.dropped[org] = self.dropped.get(org, 0) + count
        self._log.error("The cloud dropped records before they reached us.", records=count, **self._of(org))

    def _of(self, org: str) -> dict[str, Any]:
        """Fields of a line that must not be held back as a repetition: each one tells another fact."""
        return {"org": org, "distinct": True} if org else {"distinct": True}

    def count(self, name: str, amount: int = 1) -> None:
        self.counts[name] = self.counts.get(name, 0) + amount


class Board:
    """All statuses of the process."""

    def __init__(self, clock: Clock) -> None:
        self.gaps = GapLedger(clock)
        self._clock = clock
        self._statuses: list[Status] = []
        self.listeners: list[Callable[[Status], None]] = []

    def add(self, component: str, kind: str, org: str, log: Logger) -> Status:
        status = Status(component, kind, org, log, self._clock, self._tell, self.gaps)
        self._statuses.append(status)
        return status

    def _tell(self, status: Status) -> None:
        for listener in self.listeners:
            listener(status)

    def __iter__(self) -> Iterator[Status]:
        return iter(self._statuses)

    def of(self, kind: str) -> list[Status]:
        return [status for status in self._statuses if status.kind == kind]
