"""Keeps or drops records by their event type."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from annotated_types import MinLen
from pydantic import model_validator

from pipeline.core.config import FilterConfig
from pipeline.core.filter import Decider, Needs
from pipeline.filters.predicate import PredicateFilter
from pipeline.rules.eventtype import LOOKED_AT, READ, event_type
from pipeline.rules.needs import marks_of_types

Name = Annotated[str, MinLen(1)]


class EventsConfig(FilterConfig):
    """Keep (`include`) or drop (`exclude`) records of these types; set one of the two. Names are matched exactly.

    The type is `routing/event_type`; of an audit record `etype`, of a billing record `billing_record`. A detection has the type
    of the event that caused it; to choose by its name, use `match` on `cat`. A record without a type is never in a list.
    """

    type: Literal["events"] = "events"
    """Which component this is."""
    include: Annotated[list[Name], MinLen(1)] | None = None
    """The types that go on; all others are dropped."""
    exclude: Annotated[list[Name], MinLen(1)] | None = None
    """The types that are dropped; all others go on."""

    @model_validator(mode="after")
    def _one_list(self) -> Self:
        if (self.include is None) == (self.exclude is None):
            raise ValueError("set either `include` or `exclude`")
        return self


class Events(PredicateFilter[EventsConfig]):
    def needs(self) -> Needs:
        marks = marks_of_types(self.config.include or ())
        return Needs(values=READ, presence=LOOKED_AT, sequence=False, marks=marks)

    def decider(self) -> Decider:
        if self.config.include is None:
            excluded = frozenset(self.config.exclude or ())
            return lambda doc, _: event_type(doc) not in excluded
        included = frozenset(self.config.include)

        def keeps(doc: Any, _: int) -> bool:
            routing = doc.get("routing")
            if routing.__class__ is dict:  # as `event_type` does; a call more would be felt, once for each record
                found = routing.get("event_type")
                return found.__class__ is str and found in included
            return event_type(doc) in included

        return keeps
