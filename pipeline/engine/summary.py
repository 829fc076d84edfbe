"""The counts of a run, per source and lane, as the table at its end shows them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.engine.build import Plan


@dataclass(frozen=True, slots=True)
class SourceCount:
    source: str
    org: str
    received: int
    bytes: int


@dataclass(frozen=True, slots=True)
class LaneCount:
    """``received + carried + derived = delivered + filtered + rejected + discarded + waiting``."""

    route: str
    sink: str
    source: str
    org: str
    received: int
    carried: int
    derived: int
    delivered: int
    filtered: int
    rejected: int
    discarded: int
    waiting: int

    @property
    def adds_up(self) -> bool:
        went = self.delivered + self.filtered + self.rejected + self.discarded + self.waiting
        return self.received + self.carried + self.derived == went


@dataclass(frozen=True, slots=True)
class Summary:
    exit_code: int
    sources: Sequence[SourceCount]
    refused: dict[str, dict[str, int]]
    """Source -> reason -> records that intake refused."""
    lanes: Sequence[LaneCount]


def summarize(plan: Plan, exit_code: int = 0) -> Summary:
    """Count everything now."""
    stats = plan.spool.stats()
    counts: dict[tuple[str, str, str, str], list[int]] = {}
    for lane in plan.lanes:
        for log, tally in lane.tallies.items():
            place = (lane.route.name, lane.runner.id, log.source, log.org)  # replayed records stand with the others
            added = (
                stats[log].received, tally.carried, tally.derived, tally.delivered, tally.filtered, tally.rejected,
                sum(tally.discarded.values()), lane.waiting(log),
            )  # fmt: skip
            before = counts.get(place, [0] * len(added))
            counts[place] = [one + other for one, other in zip(before, added, strict=True)]
    lanes = [LaneCount(*place, *numbers) for place, numbers in counts.items()]
    sources = [SourceCount(log.source, log.org, *counts) for log, counts in plan.meters.received().items()]
    refused = {name: dict(letters.counts) for name, letters in plan.letters.sources.items() if letters.counts}
    return Summary(exit_code, sources, refused, lanes)
