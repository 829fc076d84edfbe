"""The base of filters that keep or drop each record by looking at it alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pipeline.core.component import Context
from pipeline.core.event import Event, Undecodable
from pipeline.core.filter import Decider, Filter, FilterConfigT, Needs
from pipeline.rules.paths import TooComplex

_NOTHING: dict[str, Any] = {}


class PredicateFilter(Filter[FilterConfigT]):
    """Override `needs` and `decider`. A record that cannot be decided is rejected and harms no other of its batch.

    Reasons of rejection: ``invalid_json``, ``too_complex``.
    """

    def __init__(self, config: FilterConfigT, context: Context) -> None:
        super().__init__(config, context)
        self._keeps = self.decider()
        self._decodes = not self.needs().nothing

    def needs(self) -> Needs:
        """Say what the decider must know of a record."""
        raise NotImplementedError

    def decider(self) -> Decider:
        """Return the function that says whether a record goes on. It may raise `TooComplex`."""
        raise NotImplementedError

    def apply(self, events: Sequence[Event]) -> Sequence[Event]:
        keeps, decodes = self._keeps, self._decodes
        kept: list[Event] = []
        for event in events:
            try:
                if keeps(event.doc if decodes else _NOTHING, event.sequence):
                    kept.append(event)
                else:
                    event.release()
            except Undecodable as error:
                event.reject("invalid_json", str(error))
            except TooComplex as error:
                event.reject("too_complex", str(error))
        return kept
