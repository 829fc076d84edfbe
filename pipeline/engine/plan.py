"""The decode plan of a route: the cheapest sound way to decide about its records and to get the values that its sinks want.

Filters that say what they need (`Filter.needs`) are decided without an `Event`, up to the first one that does not say it:

* by *projection*, where all that is needed lies at some places of the record: no more than that is decoded;
* by *full decode* else; before it, a *byte test* drops the records without any of the bytes that one to be kept must hold. (Before
  a projection it would cost more than it saves.)

All ways agree about every record that a full decode takes. A record that it does not take is refused by whoever looks at its damage;
nobody may.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pipeline.core.filter import Filter, Needs
from pipeline.core.types import RecordPath
from pipeline.engine.decide import Stage, Undecided, Values
from pipeline.engine.projection import Unfit, projection

Way = Literal["place", "projection", "full decode", "events"]


@dataclass(frozen=True, slots=True)
class Phase:
    """How some filters that follow each other decide, told for people."""

    way: Way
    """place: by the record's number alone. events: each filter is given `Event`s."""
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
        if numbered:
            self._by_place(numbered)
        left = open_[len(numbered) :]
        light = _while(left, lambda needs: not needs.whole)
        heavy = left[len(light) :]
        why = "a path with wildcards may lead anywhere in the record"
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

    def run(self, records: Sequence[bytes], first: int) -> tuple[Sequence[int], Values | None, list[Undecided]]:
        """Return the indices of the records that go on, their values, and what could not be decoded.

        ``first`` is the sequence number of the first record. Raises where a filter cannot decide: then nothing was decided.
        """
        undecided: list[Undecided] = []
        rows: Sequence[int] = range(len(records))
        values: Values | None = None
        for stage in self._stages:
            rows, values = stage.run(records, rows, first, undecided)
        return rows, values, undecided

    def _covers_values(self, wanted: Sequence[RecordPath]) -> bool:
        return bool(self.phases) and self.phases[-1].values == tuple(wanted)

    def _by_place(self, part: Sequence[tuple[Filter[Any], Needs]]) -> None:
        self._stages.append(Stage([stage for stage, _ in part], (), self._route, decodes=False))
        self.phases.append(Phase("place", _ids(part), why="the record's number in its log is enough"))

    def _by_projection(self, part: Sequence[tuple[Filter[Any], Needs]], wanted: Sequence[RecordPath]) -> None:
        values = {place for _, needs in part for place in needs.values} | {path.keys for path in wanted}
        presence = {place for _, needs in part for place in needs.presence} - values
        project = projection(values, presence)
        self._stages.append(Stage([stage for stage, _ in part], wanted, self._owner(part), project=project))
        fields = tuple(sorted("/".join(place) for place in values | presence))
        why = "all that is needed is in these fields"
        self.phases.append(Phase("projection", _ids(part), tuple(wanted), fields, why=why))

    def _by_full_decode(
        self, part: Sequence[tuple[Filter[Any], Needs]], wanted: Sequence[RecordPath], why: str
    ) -> None:
        marks = min((needs.marks for _, needs in part if needs.marks), key=len, default=())
        # Beyond it another of the filters might refuse the record as too much work.
        up_to = min((needs.marks_up_to for _, needs in part if needs.marks_up_to), default=0)
        filters = [stage for stage, _ in part]
        self._stages.append(Stage(filters, wanted, self._owner(part), marks=marks, marks_up_to=up_to))
        shown = tuple(mark.decode() for mark in marks)
        self.phases.append(Phase("full decode", _ids(part), tuple(wanted), marks=shown, why=why))

    def _owner(self, part: Sequence[tuple[Filter[Any], Needs]]) -> str:
        return part[0][0].id if part else self._route


def _while(part: Sequence[tuple[Filter[Any], Needs]], holds: Any) -> list[tuple[Filter[Any], Needs]]:
    found = []
    for one in part:
        if not holds(one[1]):
            break
        found.append(one)
    return found


def _ids(part: Sequence[tuple[Filter[Any], Needs]]) -> tuple[str, ...]:
    return tuple(stage.id for stage, _ in part)
