"""The dedupe of a route: drops a record whose id came before, at another place of the logs.

An id belongs to the place that claimed it first. A record is dropped only when a different place has its id, so that a step that
runs again, after a crash or for a lane that lags, decides as it did. What is claimed is committed together with the positions; at
a start, claims beyond the furthest lane of their log are forgotten: what stands at these places may be another record now.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pipeline.core.batch import Batch, LogId
from pipeline.core.clock import Clock
from pipeline.core.spool import Facts, Key, Positions
from pipeline.engine.identity import SIZE, keys
from pipeline.engine.route import Step

TABLE = "dedupe"
"""The spool's table of claims: (route, source, organization, first place) -> when the first was made, and the claims."""
GENERATIONS = 64
"""In so many parts ids are forgotten: the window and the number of entries are kept to within a part."""
ROW = 40
"""Claims in one row of the table, which is written again as it grows. With more, SQLite takes a page of its own for its end."""
_HEAD = struct.Struct("<d")
_CLAIM = struct.Struct(f"<I{SIZE}s")

_LOG_BITS = 16


@dataclass(slots=True)
class _Generation:
    """Claims of about the same time, which are forgotten together."""

    since: float
    keys: list[bytes] = field(default_factory=list)
    rows: list[Key] = field(default_factory=list)


@dataclass(slots=True)
class _Row:
    """The row of a log that still grows."""

    key: Key
    first: int
    data: bytearray
    count: int = 0


class Dedupe:
    """What one route knows of ids."""

    def __init__(self, route: str, *, window: float, entries: int, clock: Clock, durable: bool) -> None:
        """``window`` in seconds; ``durable``: whether claims are to be committed."""
        self.dropped = 0
        """Records that were dropped, each once for every time that its step ran."""
        self._route = route
        self._window = window
        self._entries = entries
        self._clock = clock
        self._durable = durable
        self._places: dict[bytes, int] = {}
        """Key -> the number of its place, and in the low bits the log's."""
        self._generations: deque[_Generation] = deque()
        self._logs: dict[LogId, int] = {}
        self._rows: dict[LogId, _Row] = {}
        self._changed: dict[Key, bytearray | None] = {}
        """Rows that the database does not have as they are; None: it shall forget them."""

    def __len__(self) -> int:
        return len(self._places)

    def restore(self, rows: Mapping[Key, bytes], positions: Positions) -> None:
        """Take what was committed of this route, and forget what is beyond the furthest lane, or too old."""
        furthest: dict[LogId, int] = {}
        for (lane, log), position in positions.items():
            if lane.rpartition("/")[0] == self._route:
                furthest[log] = max(furthest.get(log, 0), position)
        mine = [(_HEAD.unpack_from(data)[0], key, data) for key, data in rows.items()]
        for since, key, data in sorted(mine, key=lambda row: row[0]):
            self._restore_row(since, key, data, furthest)
        self._forget()

    def apply(self, step: Step) -> None:
        """Drop from a step what is a copy, and claim the ids of the rest."""
        batch = step.batch
        if batch.origin == "replay" or not step.payloads:
            return
        offsets: Sequence[int] = step.offsets or range(step.start, step.start + len(step.payloads))
        unique = offsets if step.offsets is None else list(dict.fromkeys(offsets))
        records, places, log = list(batch.records), self._places, self._number(batch.log)
        copies: set[int] = set()
        fresh: list[tuple[int, bytes]] = []
        for offset, key in zip(unique, keys(batch, [records[offset] for offset in unique]), strict=True):
            place = (batch.first + offset) << _LOG_BITS | log
            holder = places.get(key)
            if holder is None:
                places[key] = place
                fresh.append((batch.first + offset, key))
            elif holder != place:
                copies.add(offset)
        if fresh:
            self._claim(batch.log, fresh)
        if copies:
            self.dropped += len(copies)
            _keep(step, [index for index, offset in enumerate(offsets) if offset not in copies], offsets)

    def knows(self, batch: Batch, raws: Sequence[bytes]) -> list[bool]:
        """Whether the ids of these records, which are not in the log yet, are claimed by any place."""
        return [key in self._places for key in keys(batch, raws)]

    def take(self) -> dict[Key, bytes | None]:
        """Hand over the rows that changed since the last time."""
        changed, self._changed = self._changed, {}
        return {key: None if row is None else bytes(row) for key, row in changed.items()}

    def give_back(self, rows: Mapping[Key, bytes | None]) -> None:
        """What was taken could not be committed."""
        self._changed = {key: None if row is None else bytearray(row) for key, row in rows.items()} | self._changed

    # --- the rest is our own

    def _number(self, log: LogId) -> int:
        return self._logs.setdefault(log, len(self._logs))

    def _generation(self, now: float) -> _Generation:
        """The generation that takes claims now."""
        if self._generations:
            last = self._generations[-1]
            if len(last.keys) < max(1, self._entries // GENERATIONS) and now - last.since < self._window / GENERATIONS:
                return last
        self._rows.clear()
        self._generations.append(_Generation(now))
        return self._generations[-1]

    def _claim(self, log: LogId, fresh: Sequence[tuple[int, bytes]]) -> None:
        now = self._clock.now()
        generation = self._generation(now)
        for place, key in fresh:
            if len(generation.keys) >= self._entries // GENERATIONS:
                generation = self._generation(now)
            generation.keys.append(key)
            if self._durable:
                self._write(generation, log, place, key)
        self._forget()

    def _write(self, generation: _Generation, log: LogId, place: int, key: bytes) -> None:
        row = self._rows.get(log)
        if row is None or row.count >= ROW or not 0 <= place - row.first < 1 << 32:
            name: Key = (self._route, log.source, log.org, place)
            row = self._rows[log] = _Row(name, place, bytearray(_HEAD.pack(generation.since)))
            generation.rows.append(name)
        row.data += _CLAIM.pack(place - row.first, key)
        row.count += 1
        self._changed[row.key] = row.data

    def _forget(self) -> None:
        """Forget what is too old, or too much."""
        oldest_kept = self._clock.now() - self._window * (1 + 1 / GENERATIONS)
        generations = self._generations
        while generations and (generations[0].since < oldest_kept or len(self._places) > self._entries):
            gone = generations.popleft()
            if not generations:
                self._rows.clear()
            for key in gone.keys:
                del self._places[key]
            for row in gone.rows:
                self._changed[row] = None

    def _restore_row(self, since: float, name: Key, data: bytes, furthest: Mapping[LogId, int]) -> None:
        _, source, org, first = name
        log = LogId(str(source), str(org))
        end, number = furthest.get(log, 0), self._number(log)
        generation = self._generation_of(since)
        kept = bytearray(_HEAD.pack(since))
        for delta, key in _CLAIM.iter_unpack(memoryview(data)[_HEAD.size :]):
            place = int(first) + delta
            if place < end and key not in self._places:
                self._places[key] = place << _LOG_BITS | number
                generation.keys.append(key)
                kept += _CLAIM.pack(delta, key)
        if len(kept) == _HEAD.size:
            self._changed[name] = None
            return
        generation.rows.append(name)
        if len(kept) < len(data):
            self._changed[name] = kept

    def _generation_of(self, since: float) -> _Generation:
        if not self._generations or self._generations[-1].since != since:
            self._generations.append(_Generation(since))
        return self._generations[-1]


class Dedupes:
    """All routes' dedupes. Implements `pipeline.engine.committer.Keeper`."""

    def __init__(self) -> None:
        self.routes: dict[str, Dedupe] = {}
        self._strange: dict[Key, bytes | None] = {}
        """Rows of routes that have no dedupe any more, to be forgotten."""

    def restore(self, rows: Mapping[Key, bytes], positions: Positions) -> None:
        """Take what was committed."""
        by_route: dict[str, dict[Key, bytes]] = {}
        for key, data in rows.items():
            by_route.setdefault(str(key[0]), {})[key] = data
        for route, mine in by_route.items():
            if route in self.routes:
                self.routes[route].restore(mine, positions)
            else:
                self._strange.update(dict.fromkeys(mine))

    def take(self) -> Facts:
        rows, self._strange = self._strange, {}
        for dedupe in self.routes.values():
            rows |= dedupe.take()
        return {TABLE: rows} if rows else {}

    def give_back(self, facts: Facts) -> None:
        rows: dict[str, dict[Key, Any]] = {}
        for key, row in facts.get(TABLE, {}).items():
            rows.setdefault(str(key[0]), {})[key] = row
        for route, mine in rows.items():
            if route in self.routes:
                self.routes[route].give_back(mine)
            else:
                self._strange.update(mine)


def _keep(step: Step, indices: Sequence[int], offsets: Sequence[int]) -> None:
    """Leave only these payloads in a step; the others count as filtered."""
    step.filtered += len(step.payloads) - len(indices)
    payloads = list(step.payloads)
    step.payloads = [payloads[index] for index in indices]
    step.offsets = [offsets[index] for index in indices]
    if step.values is not None:
        step.values = [step.values[index] for index in indices]
    step.changed = frozenset(new for new, index in enumerate(indices) if index in step.changed)
    step.size = sum(map(len, step.payloads))
