"""Tells the gap ledger what the intakes take and what lanes give up."""

from __future__ import annotations

from collections.abc import Iterable

from pipeline.core.batch import Batch, LogId
from pipeline.core.clock import Clock
from pipeline.engine.arrivals import Arrivals
from pipeline.engine.gaps import SHED, GapLedger
from pipeline.kit.log import Logger


class Watch:
    """One for the process."""

    def __init__(self, gaps: GapLedger, clock: Clock, log: Logger) -> None:
        self.away: set[LogId] = set()
        """Logs of sources that miss what comes while they are away."""
        self._gaps = gaps
        self._clock = clock
        self._log = log
        self._arrivals: dict[LogId, Arrivals] = {}

    def sheds(self, logs: Iterable[LogId]) -> None:
        """A lane that reads these logs may give records up when the spool is full."""
        for log in logs:
            self._arrivals.setdefault(log, Arrivals())

    def carried(self, log: LogId) -> bool:
        """Whether `arrived` wants to know of the oldest batch of a log that is there at the start."""
        return log in self._arrivals

    def arrived(self, batch: Batch) -> None:
        """The spool has a batch."""
        if batch.log in self._arrivals:
            self._arrivals[batch.log].note(batch.first, batch.received_at)

    def accepted(self, batch: Batch) -> None:
        """The spool has a batch that a source has just brought."""
        if batch.origin == "live" and batch.log in self.away:
            self._gaps.heard(batch.log, batch.received_at)
        self.arrived(batch)

    def shed(self, log: LogId, start: int, end: int) -> None:
        """A lane gives up the records from ``start`` to before ``end``."""
        arrivals = self._arrivals.get(log, Arrivals())
        since, until = arrivals.interval(start, end, self._clock.now())
        gap = self._gaps.interval(log, since, until, SHED, end - start)
        self._log.error(
            "Records were given up because the spool is full.",
            gap=gap.number, log=str(log), records=end - start, start=since, end=until,
        )  # fmt: skip
