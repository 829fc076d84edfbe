"""The base of filters that keep or drop each record by looking at it alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pipeline.core.component import Context
from pipeline.core.event import Event, Undecodable
from pipeline.core.filter import Filter, FilterConfigT
from pipeline.rules.paths import TooComplex

Predicate = Callable[[Event], bool]


class PredicateFilter(Filter[FilterConfigT]):
    """Override `predicate`. A record that cannot be decided is rejected and harms no other of its batch.

    Reasons of rejection: ``invalid_json``, ``too_complex``.
    """

    def __init__(self, config: FilterConfigT, context: Context) -> None:
        super().__init__(config, context)
        self._keeps = self.predicate()

    def predicate(self) -> Predicate:
        """Return the function that says whether an event goes on; called once. It may raise `Undecodable` and `TooComplex`."""
        raise NotImplementedError

    def apply(self, events: Sequence[Event]) -> Sequence[Event]:
        keeps = self._keeps
        kept: list[Event] = []
        for event in events:
            try:
                if keeps(event):
                    kept.append(event)
                else:
                    event.release()
            except Undecodable as error:
                event.reject("invalid_json", str(error))
            except TooComplex as error:
                event.reject("too_complex", str(error))
        return kept
