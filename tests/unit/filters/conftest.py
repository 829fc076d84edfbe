from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

import orjson
import pytest

from pipeline.core.component import Context, Report
from pipeline.core.event import Event
from pipeline.core.filter import Filter
from pipeline.kit import log
from pipeline.kit.clock import SystemClock


@pytest.fixture
def context() -> Context:
    nothing_to_report = cast("Report", object())
    return Context("filter", log.get(), SystemClock(), nothing_to_report, asyncio.Event())


@pytest.fixture
def kept(context: Context) -> Callable[..., list[int]]:
    """Build a filter and return the sequence numbers of the records that it keeps; a record is an object or its bytes."""

    def run(filter_class: type[Filter[Any]], config: Any, records: list[Any]) -> list[int]:
        return [event.sequence for event in filter_class(config, context).apply(make_events(records))]

    return run


@pytest.fixture
def events() -> Callable[[list[Any]], list[Event]]:
    return make_events


def make_events(records: list[Any]) -> list[Event]:
    return [
        Event(record if isinstance(record, bytes) else orjson.dumps(record), "event", sequence=number)
        for number, record in enumerate(records)
    ]
