"""A filter decides about records, or changes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from pipeline.core.component import Component
from pipeline.core.config import FilterConfig
from pipeline.core.event import Event

FilterConfigT = TypeVar("FilterConfigT", bound=FilterConfig)


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

    def close(self) -> None:
        """Release everything. Safe to call twice and without `open`."""
