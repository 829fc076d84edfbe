"""The decode plan of a route: the cheapest sound way to decide about its records and to get the values that its sinks want.

Filters that say what they need (`Filter.needs`) are decided without an `Event`, up to the first one that does not say it. Where one of
them keeps only records with certain bytes, a *byte test* goes before all else: what does not pass it is not even cut out of its block.
The others are decided

* by *projection*, where all that is needed lies at some places of the record: no more than that is decoded;
* by *full decode* else.

All ways agree about every record that a full decode takes. A record that it does not take is refused by whoever looks at its damage;
nobody may.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pipeline.core.filter import Filter, Needs
from pipeline.core.lines import Lines
from pipeline.core.types import RecordPath
from pipeline.engine.bytetest import ByteTest
from pipeline.engine.decide import Stage, Undecided, Values
from pipeline.engine.lot import Lot
from pipeline.engine.projection import Projection, Unfit, projection
from pipeline.engine.trial import Trial

_Part = Sequence[tuple[Filter[Any], Needs]]
_PROJECTION, _FULL_DECODE = 0.35, 0.12
"""What the search for one mark costs, as a share of decoding in this way."""
_CUT = 0.1
"""What it costs to cut out one record that passes, as a share of the same."""

Way = Literal["byte test", "place", "projection", "full decode", "events"]


@dataclass(frozen=True, slots=True)
class Phase:
    """How some filters that follow each other decide, told for people."""

    way: Way
    """byte test: by what the record does not hold. place: by its number alone. events: each filter is given `Event`s."""
    filters: tuple[str, ...]
    values: tuple[str, ...] = ()
    """Record paths whose values the sinks get from it."""
    fields: tuple[str, ...] = ()
    """What is decoded, for a projection."""
    marks: tuple[str, ...] = ()
    """Of the byte test."""
    why: str = ""


class DecodePlan:
    """Made once for a route. What it does not decide is left to `rest`."""

    def __init__(self, route: str, filters: Sequence[Filter[Any]], paths: Sequence[RecordPath]) -> None:
        self.phases: list[Phase] = []
        self._route = route
        self._test: ByteTest | None = None
        self._stages: list[Stage] = []
        open_: list[tuple[Filter[Any], Needs]] = []
        for stage in filters:
            needs = stage.needs()
            if needs is None:
                break
            open_.append((stage, needs))
        self.rest: Sequence[Filter[Any]] = filters[len(open_) :]
        """Filters that get events."""
        self.gives_values = not self.rest
        """Whether it gets the values of the sinks' paths; else whoever has the events does."""
        wanted = paths if self.gives_values else ()
        numbered = _while(open_, lambda needs: needs.nothing)
        left = open_[len(numbered) :]
        light = _while(left, lambda needs: not needs.whole)
        heavy = left[len(light) :]
        self._by_bytes(open_, _PROJECTION if light else _FULL_DECODE)
        if numbered:
            self._by_place(numbered)
        why = "a path with wildcards, or that of the whole record, may lead anywhere in it"
        try:
            if light or (wanted and not heavy):
                self._by_projection(light, () if heavy else wanted)
        except Unfit as error:
            why = str(error)
            heavy = left
        if heavy or (wanted and not self._covers_values(wanted)):
            self._by_full_decode(heavy, wanted, why)
        if self.rest:
            names = tuple(stage.id for stage in self.rest)
            told = "the first of these filters does not say what it needs"
            self.phases.append(Phase("events", names, tuple(paths), why=told))

    @property
    def decides(self) -> bool:
        """Whether there is anything for it to do."""
        return bool(self._stages)

    def run(self, batch: Lines, first: int) -> tuple[Lot, Values | None, list[Undecided]]:
        """Return the records that go on, their values, and what could not be decoded.

        ``first`` is the sequence number of the first record. Raises where a filter cannot decide: then nothing was decided.
        """
        undecided: list[Undecided] = []
        lot = self._test.run(batch) if self._test is not None else Lot.of(batch)
        values: Values | None = None
        for stage in self._stages:
            lot, values = stage.run(lot, first, undecided)
        return lot, values, undecided

    def _covers_values(self, wanted: Sequence[RecordPath]) -> bool:
        return bool(self.phases) and self.phases[-1].values == tuple(wanted)

    def _by_bytes(self, part: _Part, share: float) -> None:
        # Beyond it another of the filters might refuse the record as too much work.
        up_to = min((needs.marks_up_to for _, needs in part if needs.marks_up_to), default=0)
        able = [(stage, needs) for stage, needs in part if ByteTest.fits(needs.marks, up_to)]
        if not able:
            return
        stage, needs = min(able, key=lambda one: _price(one[1]))
        most = 1 - _CUT - share * len(needs.marks)
        if most <= _CUT:
            return
        self._test = ByteTest(needs.marks, up_to, Trial(most))
        marks = tuple(mark.decode() for mark in needs.marks)
        why = "a record without these bytes would be dropped by the filter"
        self.phases.append(Phase("byte test", (stage.id,), marks=marks, why=why))

    def _by_place(self, part: _Part) -> None:
        self._stages.append(Stage([stage for stage, _ in part], (), self._route, decodes=False))
        self.phases.append(Phase("place", _ids(part), why="the record's number in its log is enough"))

    def _by_projection(self, part: _Part, wanted: Sequence[RecordPath]) -> None:
        values = {place for _, needs in part for place in needs.values} | {path.keys for path in wanted}
        presence = {place for _, needs in part for place in needs.presence} - values
        project = projection(values, presence)
        self._add(part, wanted, project)
        fields = tuple(sorted("/".join(place) for place in values | presence))
        why = "all that is needed is in these fields"
        self.phases.append(Phase("projection", _ids(part), tuple(wanted), fields, why=why))

    def _by_full_decode(self, part: _Part, wanted: Sequence[RecordPath], why: str) -> None:
        self._add(part, wanted, None)
        self.phases.append(Phase("full decode", _ids(part), tuple(wanted), why=why))

    def _add(self, part: _Part, wanted: Sequence[RecordPath], project: Projection | None) -> None:
        owner = part[0][0].id if part else self._route
        numbered = any(needs.sequence for _, needs in part)
        filters = [stage for stage, _ in part]
        self._stages.append(Stage(filters, wanted, owner, numbered=numbered, project=project))


def _while(part: _Part, holds: Callable[[Needs], bool]) -> list[tuple[Filter[Any], Needs]]:
    found = []
    for one in part:
        if not holds(one[1]):
            break
        found.append(one)
    return found


def _price(needs: Needs) -> tuple[int, bool, int]:
    """What of several is looked for: few alternatives, rather values than keys, which more records have, and long ones."""
    keys = {b'"%b"' % place[-1].encode() for place in needs.values | needs.presence if place}
    return len(needs.marks), not keys.isdisjoint(needs.marks), -min(map(len, needs.marks))


def _ids(part: _Part) -> tuple[str, ...]:
    return tuple(stage.id for stage, _ in part)
