"""What a sink's `write` gets: items, kept by column so that a sink that wants no single item pays for none."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import overload

from pipeline.core.batch import LogId, Origin
from pipeline.core.lines import Lines

NO_VALUES: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Item:
    """One payload on its way into a sink."""

    payload: bytes
    stream: str
    org: str
    values: Mapping[str, str]
    """Record path -> text, for the paths that the sink's config asks for (`Sink.paths`); a path the record lacks is absent."""
    received_at: float
    origin: Origin = "live"


@dataclass(slots=True)
class Part:
    """Consecutive items that share a batch's facts."""

    payloads: Sequence[bytes]
    stream: str
    log: LogId
    received_at: float
    origin: Origin = "live"
    values: Sequence[Mapping[str, str]] | None = None
    """One mapping per payload, or None when the sink asks for no path."""
    size: int = -1
    """Bytes of all payloads together."""

    def __post_init__(self) -> None:
        if self.size < 0:
            self.size = sum(map(len, self.payloads))

    @property
    def org(self) -> str:
        return self.log.org

    def block(self) -> bytes:
        """All payloads, each with an LF behind it; free where they came in one block and no filter looked at them."""
        return Lines.of(self.payloads).block


class Items(Sequence[Item]):
    """A sequence of `Item`, and by `parts` the same by column (lists of payloads with their shared facts)."""

    __slots__ = ("_length", "parts")

    def __init__(self, parts: Sequence[Part]) -> None:
        self.parts = parts
        self._length = sum(len(part.payloads) for part in parts)

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[Item]:
        for part in self.parts:
            org = part.log.org
            if part.values is None:
                for payload in part.payloads:
                    yield Item(payload, part.stream, org, NO_VALUES, part.received_at, part.origin)
            else:
                for payload, values in zip(part.payloads, part.values, strict=True):
                    yield Item(payload, part.stream, org, values, part.received_at, part.origin)

    @overload
    def __getitem__(self, index: int) -> Item: ...
    @overload
    def __getitem__(self, index: slice) -> list[Item]: ...
    def __getitem__(self, index: int | slice) -> Item | list[Item]:
        if isinstance(index, slice):
            return list(self)[index]
        if index < 0:
            index += self._length
        if index < 0:
            raise IndexError(index)
        for part in self.parts:
            if index < len(part.payloads):
                values = NO_VALUES if part.values is None else part.values[index]
                if isinstance(part.payloads, Lines):  # who asks for one by its place asks for others
                    part.payloads = list(part.payloads)
                return Item(part.payloads[index], part.stream, part.log.org, values, part.received_at, part.origin)
            index -= len(part.payloads)
        raise IndexError(index)
