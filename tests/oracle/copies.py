"""What must hold of a pipeline with a route that drops copies: the first of each comes out, and no other."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Sequence
from pathlib import Path

from accounts import RECENT, STREAMS, Accounts, LaneAccount, LogAccount, Snapshot, digest, hold
from world import TIME, Cloud

from pipeline.spool.inspection import batches, survey


class CopiesAccounts(Accounts):
    def __init__(self, folder: Path, cloud: Cloud, oid: str, lanes: Sequence[str]) -> None:
        super().__init__(folder, cloud, oid, lanes)
        self.copies = 0
        self._read: Counter[str] = Counter()
        self._ahead: dict[str, deque[bytes]] = {source: deque() for source in STREAMS}
        """What the files of `unique` have beyond what was judged."""
        self._judged: Counter[str] = Counter()
        self._first: dict[str, dict[bytes, int]] = {source: {} for source in STREAMS}
        """Record -> the number that it came with first."""

    def check_files(self, now: Snapshot) -> None:
        """The files of `unique` are the archive without what came before, in order, up to the lane's position."""
        super().check_files(now)
        for source, log in self.logs.items():
            fresh = self.news(now, "unique", source, self._read[source])
            self._read[source] += sum(len(raw) + 1 for raw in fresh)
            ahead, first = self._ahead[source], self._first[source]
            ahead += map(digest, fresh)
            end = min(now.past("once/unique", source), len(log.stored))
            for number in range(self._judged[source], end):
                key = log.stored[number]
                if first.setdefault(key, number) != number:
                    self.copies += 1
                    continue
                hold(ahead, f"once/unique is past record {number} of {source} and does not have it")
                hold(ahead.popleft() == key, f"once/unique has another record in the place of {number} of {source}")
            self._judged[source] = max(self._judged[source], end)
            if now.past("once/unique", source) <= len(log.stored):
                hold(not ahead, f"once/unique has {len(ahead)} records of {source} too many")

    def check_past(self, lane: LaneAccount, now: Snapshot) -> None:
        """A lane behind the dedupe has all that it is past once at least."""
        if lane.lane != "once/fancy":
            super().check_past(lane, now)
            return
        for source, log in self.logs.items():
            for number in range(now.past(lane.lane, source)):
                hold(lane.times(log[number]), f"{lane.lane} is past record {number} of {source} and never got it")

    def wanted_times(self, lane: LaneAccount, accepted: Counter[bytes]) -> Counter[bytes]:
        return Counter(dict.fromkeys(accepted, 1)) if lane.lane == "once/fancy" else accepted

    def totals(self) -> dict[str, int]:
        return {**super().totals(), "once/unique: copies dropped": self.copies}


class FillingAccounts(Accounts):
    """Of a pipeline that drops copies on all ways and fills its gaps: in the end everything came, once."""

    def __init__(self, folder: Path, cloud: Cloud, oid: str, lanes: Sequence[str]) -> None:
        super().__init__(folder, cloud, oid, lanes)
        self.filled = 0
        """Records that came out of the history."""
        self._has: dict[str, set[bytes]] = {source: set() for source in STREAMS}
        self._made: dict[str, list[bytes]] = {source: [] for source in STREAMS}
        """Digests of all that was generated, in order."""
        self._places: dict[str, dict[bytes, int]] = {source: {} for source in STREAMS}
        self._base: dict[str, int] = {}
        """Everything from here on has to be there."""

    def _generated(self, source: str) -> int:
        """Take in what was generated; returns how much it is."""
        made, places = self._made[source], self._places[source]
        for raw in self.cloud.generated(self.oid, STREAMS[source]):
            key = digest(raw)
            if key not in places:
                places[key] = len(made)
                made.append(key)
        return len(made)

    def _witness_one(self, log: LogAccount, number: int, raw: bytes) -> None:
        key = digest(raw)
        hold(
            log.witnessed.setdefault(number, key) == key,
            f"record {number} of {log.source} was another one before: {raw[:200]!r}",
        )

    def at(self, log: LogAccount, number: int) -> bytes:
        return log.witnessed[number]

    def late(self) -> float:
        """Seconds since the newest record of those in the spool that came by themselves was generated."""
        newest = dict.fromkeys(STREAMS, 0.0)
        for name, log in survey(self.spool).logs.items():
            for batch in batches(log, max(0, log.end - RECENT)):
                if batch.origin == "live" and (found := TIME.findall(batch.records[-1])):
                    newest[name.source] = max(newest[name.source], int(found[-1].rpartition(b":")[2]) / 1000)
        return time.time() - min(newest.values())

    def check_files(self, now: Snapshot) -> None:
        """Each record once, each as it was generated, and what was in the spool and is passed is there."""
        for source, log in self.logs.items():
            has = self._has[source]
            fresh = self.news(now, "archive", source, log.read)
            log.read += sum(len(raw) + 1 for raw in fresh)
            self._generated(source)
            for raw in fresh:
                key = digest(raw)
                hold(key in self._places[source], f"the archive has a record that was never generated: {raw[:300]!r}")
                hold(key not in has, f"the archive has a record of {source} twice: {raw[:300]!r}")
                has.add(key)
                log.stored.append(key)
                log.recent.append(raw)
            position = now.past("all/archive", source)
            for number, key in log.witnessed.items():
                hold(
                    number >= position or key in has,
                    f"record {number} of {source} was accepted, the archive is past {position} and does not have it",
                )
            hold(len(log.stored) <= position, f"the archive has {len(log.stored)} records of {source}, past {position}")

    def mark(self) -> dict[str, int]:
        """How much was generated until now."""
        return {source: self._generated(source) for source in STREAMS}

    def lacks(self, until: dict[str, int]) -> dict[str, list[int]]:
        """Source -> places of what was generated before ``until`` and is not in the archive."""
        return {
            source: [
                at for at in range(self._base.get(source, end), end) if self._made[source][at] not in self._has[source]
            ]
            for source, end in until.items()
        }

    def settled(self, until: dict[str, int]) -> None:
        """What was generated before ``until`` and was to be there is; from the first receipt on everything is to be there."""
        for source in STREAMS:
            if source not in self._base:
                self._base[source] = max(self._places[source][key] for key in self.logs[source].stored) + 1
            else:
                self._base[source] = max(self._base[source], until[source])

    def name(self, source: str, place: int) -> str:
        return self._made[source][place].hex()

    def check_past(self, lane: LaneAccount, now: Snapshot) -> None:
        """A lane has all that the archive has, but for what may be before it in the spool."""
        for source, log in self.logs.items():
            position = now.past(lane.lane, source)
            ahead = {key for number, key in log.witnessed.items() if number >= position}
            lacking = [key for key in self._has[source] - ahead if not lane.times(key)]
            hold(not lacking, f"{lane.lane} is past {position} of {source} and never got {len(lacking)} records")
            seen = [key for number, key in log.witnessed.items() if number < position and not lane.times(key)]
            hold(not seen, f"{lane.lane} is past {position} of {source} and lacks {len(seen)} that were in the spool")

    def wanted_times(self, lane: LaneAccount, accepted: Counter[bytes]) -> Counter[bytes]:
        return Counter(dict.fromkeys(accepted, 1))

    def check_clean(self, names: list[str]) -> None:
        """Nothing of its own: in the end everything has to be there."""

    def totals(self) -> dict[str, int]:
        return {**super().totals(), "gaps: records fetched": self.filled}
