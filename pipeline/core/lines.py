"""Records as they came off a wire: one block of bytes in which each of them ends with LF."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from operator import itemgetter
from typing import NamedTuple, Self, overload

_LF = 10
_FIRST, _LAST = itemgetter(0), itemgetter(-2)


class Edges(NamedTuple):
    """What lines look like from outside: enough to judge their form without cutting them out again."""

    lines: int
    firsts: set[int]
    """The bytes that they begin with; an LF is an empty line's."""
    lasts: set[int]
    """The bytes before their LF; unknown where a line is empty."""
    longest: int
    """Bytes of the longest, without its LF."""

    @classmethod
    def of(cls, lines: Sequence[bytes]) -> Self:
        """``lines`` have their LF."""
        firsts = set(map(_FIRST, lines))
        lasts = set() if _LF in firsts else set(map(_LAST, lines))
        return cls(len(lines), firsts, lasts, max(map(len, lines), default=1) - 1)


class Lines(Sequence[bytes]):
    """A sequence of records without LF, kept as one block: who passes them on unread pays nothing for the single record.

    Never changed. The records are cut out anew by whoever asks for them; ask once, for all. No record may hold an LF.
    """

    __slots__ = ("_count", "_edges", "block")

    def __init__(self, block: bytes, count: int, edges: Edges | None = None) -> None:
        """``block`` holds so many LF, the last of them at its end. ``edges`` are its lines', from who had cut them out anyway."""
        self.block = block
        self._count = count
        self._edges = edges

    @classmethod
    def of(cls, records: Sequence[bytes]) -> Lines:
        """Put records together; none of them may hold an LF."""
        if isinstance(records, cls):
            return records
        return cls(b"\n".join((*records, b"")) if records else b"", len(records))

    @classmethod
    def joined(cls, parts: Iterable[Sequence[bytes]]) -> Lines:
        """One sequence of several."""
        blocks = [cls.of(part) for part in parts]
        if len(blocks) == 1:
            return blocks[0]
        return cls(b"".join([block.block for block in blocks]), sum(map(len, blocks)))

    @property
    def size(self) -> int:
        """Bytes of all records together, without their ends."""
        return len(self.block) - self._count

    def ended(self) -> list[bytes]:
        """The records, each with its LF: what a JSON decoder takes as well, at the price of one copy and not of two."""
        return io.BytesIO(self.block).readlines()

    @property
    def edges(self) -> Edges:
        """Of the lines in the block: should a record hold an LF, they are more than the records."""
        if self._edges is None:
            self._edges = Edges.of(self.ended())
        return self._edges

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[bytes]:
        return iter([line[:-1] for line in io.BytesIO(self.block)])

    @overload
    def __getitem__(self, index: int) -> bytes: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[bytes]: ...
    def __getitem__(self, index: int | slice) -> bytes | Sequence[bytes]:
        lines = self.ended()
        if not isinstance(index, slice):
            return lines[index][:-1]
        chosen = lines[index]
        return self if len(chosen) == self._count and index.step in (None, 1) else Lines(b"".join(chosen), len(chosen))

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Lines):
            return self.block == other.block
        return list(self) == list(other) if isinstance(other, Sequence) else NotImplemented

    __hash__ = None  # type: ignore[assignment]  # it equals lists, which have none

    def __repr__(self) -> str:
        return f"Lines({self._count} records, {self.size} bytes)"


class Blocks(Sequence[bytes]):
    """Records in several `Lines`, one after the other: for who would have to copy them to make them one."""

    __slots__ = ("parts",)

    def __init__(self, parts: Sequence[Lines]) -> None:
        self.parts = parts

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    def __iter__(self) -> Iterator[bytes]:
        return chain.from_iterable(self.parts)

    @overload
    def __getitem__(self, index: int) -> bytes: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[bytes]: ...
    def __getitem__(self, index: int | slice) -> bytes | Sequence[bytes]:
        return Lines.joined(self.parts)[index]

    def __repr__(self) -> str:
        return f"Blocks({', '.join(map(repr, self.parts))})"
