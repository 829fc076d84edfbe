"""A filter decides about records, or changes them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from pipeline.core.component import Component
from pipeline.core.config import FilterConfig
from pipeline.core.event import Event

FilterConfigT = TypeVar("FilterConfigT", bound=FilterConfig)

Place = tuple[str, ...]
"""Keys from a record's root to a value; no wildcards, and a list on the way is no object."""
Decider = Callable[[Any, int], bool]
"""Says of a decoded record and its sequence number whether it goes on."""


@dataclass(frozen=True, slots=True)
class Needs:
    """What a filter that keeps or drops each record by itself must know of it."""

    values: frozenset[Place] = frozenset()
    """Where it reads. What lies anywhere else makes no difference to it."""
    presence: frozenset[Place] = frozenset()
    """Where it looks only whether something is there, of which kind, and how long it is."""
    whole: bool = False
    """It may read anywhere."""
    sequence: bool = True
    """Whether the record's number makes a difference to it; if not, it may be given any."""
    marks: tuple[bytes, ...] = ()
    """If there are any: a record of `marks_up_to` bytes at most that it keeps holds one of these, be it with characters of it
    written as ``\\u00..``. They are made of printable ASCII characters other than ``/`` and ``\\``, and a quotation mark in one
    begins or ends a text."""
    marks_up_to: int = 0
    """The decider never raises for a record of so many bytes or fewer; 0: never at all."""

    @property
    def nothing(self) -> bool:
        """Whether it needs no look into the record."""
        return not (self.values or self.presence or self.whole)


class Filter(Component[FilterConfigT]):
    """Base of filters. Override `apply`, and `open` where files are read."""

    def open(self) -> None:
        """Read files. Raises `ConfigError` when that cannot work."""

    def apply(self, events: Sequence[Event]) -> Sequence[Event]:
        """Return the events that go on, in order.

        Synchronous and without I/O. Decides from the record and its place in the log alone: the step may run again. An event
        is changed by ``event.replace(doc)``, refused by ``event.reject(reason)`` (leave it in or out, it goes to the dead
        letter), made by ``event.derive(doc)``, dropped by leaving it out. Keeps no event after it returns.
        """
        raise NotImplementedError

    def needs(self) -> Needs | None:
        """Say what `decider`'s function needs to know, or None (the default) where there is only `apply`.

        With it the engine may choose how to decode, and call that function instead of `apply`. Asked once, before `open`.
        """
        return None

    def decider(self) -> Decider:
        """Return the function that keeps the same records as `apply`. Where it raises, the engine calls `apply` after all."""
        raise NotImplementedError

    def close(self) -> None:
        """Release everything. Safe to call twice and without `open`."""
