"""One step in deciding about a batch's records: decodes them in one way and asks some filters."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import compress, count, repeat
from typing import Any, NamedTuple

import orjson

from pipeline.core.event import Undecodable, decode
from pipeline.core.filter import Decider, Filter
from pipeline.core.types import RecordPath
from pipeline.engine.lot import Lot
from pipeline.engine.projection import Projection
from pipeline.engine.trial import Trial

_FAILING = 1 / 8
"""The share of records at which a projection may fail."""

Decode = Callable[[bytes], Any]
Values = list[Mapping[str, str]]


class Undecided(NamedTuple):
    """A record that cannot be decoded."""

    row: int
    record: bytes
    reason: str
    owner: str
    """Who asked."""


class Stage:
    """The same for every record that a full decode takes, whichever way of decoding is chosen."""

    def __init__(
        self,
        filters: Sequence[Filter[Any]],
        paths: Sequence[RecordPath],
        owner: str,
        *,
        numbered: bool = True,
        decodes: bool = True,
        project: Projection | None = None,
    ) -> None:
        """Without ``project`` records are decoded fully, or with ``decodes=False`` not at all.

        ``owner`` refuses what cannot be decoded. Only with ``numbered`` are the filters told the records' sequence numbers.
        """
        self._keeps = _all([stage.decider() for stage in filters])
        self._keeps_object = _of_objects(self._keeps)
        self._paths = paths
        self._pick = _picker(paths)
        self._owner = owner
        self._numbered = numbered
        self._decodes = decodes
        self._project = project
        self._trial = Trial(_FAILING)

    def run(self, lot: Lot, first: int, undecided: list[Undecided]) -> tuple[Lot, Values | None]:
        """Return what goes on, and its values, where there are paths.

        ``first`` is the sequence number of the batch's first record. Raises what a decider raises.
        """
        project = self._project if self._project is not None and self._trial.goes(len(lot)) else None
        try:
            if self._paths:
                return self._with_values(lot, first, project)
            # None of it is a loop of ours, and each decoded record is gone before the next one comes.
            kept = list(
                compress(count(), map(self._asks(project), self._docs(lot, project), self._numbers(lot, first)))
            )
        except Exception:  # a record that is not as expected: now each by itself
            return self._one_by_one(lot, first, undecided, project)
        return lot.keep(kept), None

    def _with_values(self, lot: Lot, first: int, project: Projection | None) -> tuple[Lot, Values]:
        keeps, pick, docs = self._asks(project), self._pick, self._docs(lot, project)
        if keeps is _all_go:
            return lot, list(map(pick, docs))
        kept: list[int] = []
        values: Values = []
        for index, (doc, number) in enumerate(zip(docs, self._numbers(lot, first), strict=False)):
            if keeps(doc, number):
                kept.append(index)
                values.append(pick(doc))
        return lot.keep(kept), values

    def _docs(self, lot: Lot, project: Projection | None) -> Iterable[Any]:
        return map(project or orjson.loads, lot.lines) if self._decodes else repeat(_EMPTY, len(lot))

    def _numbers(self, lot: Lot, first: int) -> Iterable[int]:
        return [first + row for row in lot.rows] if self._numbered else repeat(0)

    def _asks(self, project: Projection | None) -> Decider:
        return self._keeps if project is not None or not self._decodes else self._keeps_object

    def _one_by_one(
        self, lot: Lot, first: int, undecided: list[Undecided], project: Projection | None
    ) -> tuple[Lot, Values | None]:
        kept: list[int] = []
        values: Values = []
        for index, (line, row) in enumerate(zip(lot.lines, lot.rows, strict=True)):
            try:
                doc = self._doc(line, project)
            except Undecodable as error:
                undecided.append(Undecided(row, line[:-1], str(error), self._owner))
                continue
            if self._keeps(doc, first + row):
                kept.append(index)
                if self._paths:
                    values.append(self._pick(doc))
        return lot.keep(kept), values if self._paths else None

    def _doc(self, line: bytes, project: Projection | None) -> Any:
        if project is not None:
            try:
                return project(line)
            except Exception:
                self._trial.failed += 1
        return decode(line[:-1]) if self._decodes else _EMPTY


def _picker(paths: Sequence[RecordPath]) -> Callable[[Any], Mapping[str, str]]:
    """Return what makes the values of a decoded record."""

    def pick(doc: Any) -> Mapping[str, str]:
        return {path: text for path in paths if (text := path.text(doc)) is not None}

    if len(paths) != 1 or len(paths[0].keys) != 2:
        return pick
    (path,) = paths
    outer, inner = path.keys

    def pick_one(doc: Any) -> Mapping[str, str]:  # as nearly all sinks want it: the sensor's id, or the type
        node = doc.get(outer)
        if node.__class__ is dict:
            found = node.get(inner)
            if found.__class__ is str:
                return {path: found}
        return pick(doc)

    return pick_one


def _all(deciders: Sequence[Decider]) -> Decider:
    if not deciders:
        return _all_go
    if len(deciders) == 1:
        return deciders[0]

    def keeps(doc: Any, sequence: int) -> bool:
        for decides in deciders:  # noqa: SIM110 - all() with a generator takes twice as long
            if not decides(doc, sequence):
                return False
        return True

    return keeps


def _all_go(_doc: Any, _sequence: int) -> bool:
    return True


def _of_objects(decides: Decider) -> Decider:
    """Raises where the record is none, as any of them that is not as expected."""

    def keeps(doc: Any, sequence: int) -> bool:
        if doc.__class__ is not dict:
            raise Undecodable
        return decides(doc, sequence)

    return keeps


_EMPTY: dict[str, Any] = {}
