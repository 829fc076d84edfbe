"""The records of a batch that are still in question while a route decides."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import overload

from pipeline.core.lines import Lines


class Lot:
    """Records in the order of their batch, each with its LF behind it, and their numbers in the batch."""

    __slots__ = ("lines", "rows")

    def __init__(self, lines: Sequence[bytes], rows: Sequence[int]) -> None:
        self.lines = lines
        self.rows = rows

    @classmethod
    def of(cls, batch: Lines) -> Lot:
        """All of them."""
        return cls(batch.ended(), range(len(batch)))

    def __len__(self) -> int:
        return len(self.lines)

    @property
    def size(self) -> int:
        """Bytes of the records, without LF."""
        return sum(map(len, self.lines)) - len(self.lines)

    def keep(self, indices: list[int]) -> Lot:
        """Those at these places of the lot, which ascend."""
        lines, rows = self.lines, self.rows
        if len(indices) == len(lines):
            return self
        left = [lines[index] for index in indices]
        if isinstance(rows, range) and rows.start == 0:
            return Lot(left, indices)
        if isinstance(rows, Numbers):
            return Lot(left, rows.keep(indices))
        return Lot(left, [rows[index] for index in indices])

    def records(self) -> list[bytes]:
        """Without their LF."""
        return [line[:-1] for line in self.lines]

    def joined(self) -> Lines:
        """In one block, for whoever needs no single one."""
        return Lines(b"".join(self.lines), len(self.lines))


class Numbers(Sequence[int]):
    """The numbers of some lines of a block, counted when somebody asks: counting costs more than finding them did."""

    __slots__ = ("_block", "_known", "_starts")

    def __init__(self, block: bytes, starts: list[int]) -> None:
        """``starts`` are where the lines begin, ascending."""
        self._block = block
        self._starts = starts
        self._known: list[int] | None = None

    def keep(self, indices: list[int]) -> Numbers:
        """Those at these places."""
        return Numbers(self._block, [self._starts[index] for index in indices])

    def _all(self) -> list[int]:
        known = self._known
        if known is None:
            known = []
            number = end = 0
            for start in self._starts:
                number += self._block.count(b"\n", end, start)
                end = start
                known.append(number)
            self._known = known
        return known

    def __len__(self) -> int:
        return len(self._starts)

    def __iter__(self) -> Iterator[int]:
        return iter(self._all())

    @overload
    def __getitem__(self, index: int) -> int: ...
    @overload
    def __getitem__(self, index: slice) -> list[int]: ...
    def __getitem__(self, index: int | slice) -> int | list[int]:
        return self._all()[index]
