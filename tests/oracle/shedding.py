"""What must hold of a pipeline with a lane that gives its oldest records up: all that is missing is counted, to the record."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from accounts import Accounts, LaneAccount, Snapshot, hold
from process import Metrics
from world import Cloud

LOOSE = "loose/scrap"


class SheddingAccounts(Accounts):
    def __init__(self, folder: Path, cloud: Cloud, oid: str, lanes: Sequence[str]) -> None:
        super().__init__(folder, cloud, oid, lanes)
        self.missing: Counter[str] = Counter()
        """Source -> records that its lane passed and never delivered."""
        self._judged: Counter[str] = Counter()
        self._begun = Snapshot({}, {}, [])
        self._before: Counter[bytes] = Counter()
        """What the lane had delivered or put aside when the life that is going on began: a crash may take its position back."""

    def begin(self, now: Snapshot) -> None:
        """A life begins here."""
        self._begun = now
        lane = self.lanes[LOOSE]
        self._read(lane)
        self._before = lane.seen + lane.letters

    def _read(self, lane: LaneAccount) -> None:
        lane.read_files(self.folder / "scrap")
        lane.read_letters(self.folder / "letters" / "lanes")

    def check_discarded(self, now: Snapshot, metrics: Metrics) -> bool:
        """What was counted as discarded is exactly what this life did not deliver; False where it cannot be said yet."""
        lane = self.lanes[LOOSE]
        self._read(lane)
        damage = metrics.sum("pipeline_discarded_records_total", route="loose", reason="spool_damage")
        hold(not damage, f"{LOOSE} takes {damage} records that were given up for damage")
        for source, log in self.logs.items():
            begin, end = self._begun.past(LOOSE, source), now.past(LOOSE, source)
            if end > len(log.stored):
                return False
            keys = [log.stored[number] for number in range(begin, end)]
            missing = sum(lane.times(key) == self._before[key] for key in keys)
            counted = metrics.outcome(LOOSE, source, "discarded")
            hold(
                missing == counted,
                f"{LOOSE} counted {counted} records of {source} from {begin} to {end} as discarded, and it did not deliver {missing}",
            )
            told = now.shed(source) - self._begun.shed(source)
            again = counted - metrics.sum("pipeline_discarded_records_total", route="loose", reason="spool_full")
            if not again:  # else a hole that the life before has told of was met again
                hold(told == counted, f"the ledger has {told} records of {source} as given up, the metrics {counted}")
        return True

    def check_past(self, lane: LaneAccount, now: Snapshot) -> None:
        """All that the lane that may shed does not have is in the ledger."""
        if lane.lane != LOOSE:
            super().check_past(lane, now)
            return
        for source, log in self.logs.items():
            end = now.past(LOOSE, source)
            self.missing[source] += sum(not lane.times(log[number]) for number in range(self._judged[source], end))
            self._judged[source] = end
            told = now.shed(source)
            hold(
                self.missing[source] <= told,
                f"{LOOSE} is past {end} of {source}; {self.missing[source]} were never delivered, the ledger has {told}",
            )

    def totals(self) -> dict[str, int]:
        return {**super().totals(), f"{LOOSE}: given up": self.missing.total()}
