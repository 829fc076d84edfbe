"""One step in deciding about a batch's records: decodes them in one way and asks some filters."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pipeline.core.event import Undecodable, decode
from pipeline.core.filter import Decider, Filter
from pipeline.core.types import RecordPath
from pipeline.engine.projection import Projection

_WINDOW = 4096
"""Records after which a projection is judged."""
_PAUSE = 16
"""Windows in which it is not used after it failed at more than one record in eight: it costs more than it saves then."""
_ESCAPED = b"\\u00"
"""How JSON text may write any of the characters that marks are made of."""

Decode = Callable[[bytes], dict[str, Any]]
Undecided = tuple[int, str, str]
"""Index of a record that cannot be decoded, why it cannot be, and who asked."""
Values = list[Mapping[str, str]]


class Stage:
    """The same for every record that a full decode takes, whichever way of decoding is chosen."""

    def __init__(
        self,
        filters: Sequence[Filter[Any]],
        paths: Sequence[RecordPath],
        owner: str,
        *,
        decodes: bool = True,
        project: Projection | None = None,
        marks: Sequence[bytes] = (),
        marks_up_to: int = 0,
    ) -> None:
        """Without ``project`` records are decoded fully, or with ``decodes=False`` not at all.

        Up to the given size, one without any of the ``marks`` is dropped before that. ``owner`` refuses what cannot be decoded.
        """
        self._keeps = _all([stage.decider() for stage in filters])
        self._paths = paths
        self._owner = owner
        self._project = project
        self._whole: Decode = decode if decodes else _nothing
        self._marks = marks
        self._marks_up_to = marks_up_to
        self._left = _WINDOW
        self._failed = 0
        self._resting = False

    def run(
        self, records: Sequence[bytes], rows: Sequence[int], first: int, undecided: list[Undecided]
    ) -> tuple[Sequence[int], Values | None]:
        """Return which of ``rows`` (indices of records) go on, and the values of each, where there are paths.

        ``first`` is the sequence number of the first record. Raises what a decider raises.
        """
        if self._marks:
            rows = self._marked(records, rows)
        raws = records if len(rows) == len(records) else [records[row] for row in rows]
        keeps, paths, read = self._keeps, self._paths, self._reader(len(rows))
        try:
            if not paths:
                return [row for row, doc in zip(rows, map(read, raws), strict=True) if keeps(doc, first + row)], None
            kept: list[int] = []
            values: Values = []
            for row, doc in zip(rows, map(read, raws), strict=True):
                if keeps(doc, first + row):
                    kept.append(row)
                    values.append({path: text for path in paths if (text := path.text(doc)) is not None})
        except Exception:  # a record that is not as expected: now each by itself
            return self._one_by_one(records, rows, first, undecided, read)
        return kept, values

    def _one_by_one(
        self, records: Sequence[bytes], rows: Sequence[int], first: int, undecided: list[Undecided], read: Decode
    ) -> tuple[list[int], Values | None]:
        kept: list[int] = []
        values: Values = []
        for row in rows:
            try:
                doc = read(records[row])
            except Exception as failure:
                self._failed += 1
                try:
                    doc = self._whole(records[row])
                except Undecodable as error:
                    undecided.append((row, str(error), self._owner))
                    continue
                if read is self._whole:
                    raise failure  # noqa: TRY201 - it failed once and not again
            if self._keeps(doc, first + row):
                kept.append(row)
                values.append({path: text for path in self._paths if (text := path.text(doc)) is not None})
        return kept, values if self._paths else None

    def _marked(self, records: Sequence[bytes], rows: Sequence[int]) -> list[int]:
        """Drop the records that hold none of the marks, which cannot be hidden in them."""
        limit = self._marks_up_to
        found: list[int] = []
        for row in rows:
            raw = records[row]
            for mark in self._marks:
                if mark in raw:
                    found.append(row)
                    break
            else:
                if (b"\\" in raw and _ESCAPED in raw) or len(raw) > limit:
                    found.append(row)
        return found

    def _reader(self, count: int) -> Decode:
        """The way to decode the next ``count`` records."""
        if self._project is None:
            return self._whole
        self._left -= count
        if self._left < 0:
            self._resting = self._failed * 8 > _WINDOW
            self._failed = 0
            self._left = _WINDOW * _PAUSE if self._resting else _WINDOW
        return self._whole if self._resting else self._project


def _all(deciders: Sequence[Decider]) -> Decider:
    if len(deciders) == 1:
        return deciders[0]

    def keeps(doc: Any, sequence: int) -> bool:
        for decides in deciders:  # noqa: SIM110 - all() with a generator takes twice as long
            if not decides(doc, sequence):
                return False
        return True

    return keeps


_EMPTY: dict[str, Any] = {}


def _nothing(raw: bytes) -> dict[str, Any]:
    del raw
    return _EMPTY
