"""`check_filter`: the contract of `pipeline.Filter`."""

from __future__ import annotations

import gc
import sys
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import orjson

from pipeline.core.component import Context
from pipeline.core.event import Event, Undecodable, decode
from pipeline.core.filter import Filter
from pipeline.testing.records import RECORDS, make_events
from pipeline.testing.surroundings import context

_BROKEN = b'{"broken":'
Outcome = tuple[bytes, str, tuple[bytes, ...]]
"""What became of one record: nothing or its payload, the reason if it was refused, the payloads of those made from it."""


async def check_filter(
    make: Callable[[Context], Filter[Any]], records: Sequence[bytes] = RECORDS, *, stream: str = "event"
) -> None:
    """Check the filters that ``make`` builds with ``records``, which must be JSON objects. Raises AssertionError."""
    unopened = make(context())
    unopened.close()
    unopened.close()
    stage, other = make(context()), make(context())
    stage.open()
    other.open()
    try:
        assert not list(stage.apply([])), "apply([]) returns no event."
        together = _outcomes(stage, records, stream)
        again = "apply decides from the record and its place alone, because a step may run again:"
        assert together == _outcomes(stage, records, stream), f"{again} the same batch came out differently."
        assert together == _outcomes(other, records, stream), f"{again} another instance decided differently."
        alone = [outcome for first, raw in enumerate(records) for outcome in _outcomes(stage, [raw], stream, first)]
        assert together == alone, f"{again} a record alone in its batch came out differently."
        _check_decider(stage, records, stream)
        _check_kept(stage, records, stream)
        _check_broken(stage, records, stream)
    finally:
        stage.close()
        stage.close()
        other.close()


def _outcomes(stage: Filter[Any], records: Sequence[bytes], stream: str, first: int = 0) -> list[Outcome]:
    events = make_events(records, stream=stream, first=first)
    out = stage.apply(events)
    assert not isinstance(out, Awaitable), "apply is synchronous; it must not be `async def`."
    given = {id(event) for event in events}
    seen: set[int] = set()
    for event in out:
        assert isinstance(event, Event), f"apply returns events, not {type(event).__name__}."
        assert id(event) not in seen, "apply returns no event twice."
        assert id(event) in given or event.derived, (
            "apply returns the events it was given; new ones come from derive()."
        )
        seen.add(id(event))
    for event, raw in zip(events, records, strict=True):
        assert event.raw == raw, "A filter never changes raw; it calls replace()."
        if not event.replaced and event._doc is not None:  # noqa: SLF001 - only what the filter itself decoded is of interest
            assert event.doc == orjson.loads(raw), (
                "A filter never changes doc in place; it hands a changed one to replace()."
            )
    return [
        (
            event.payload() if id(event) in seen and not event.rejection else b"",
            event.rejection,
            tuple(made.payload() for made in out if id(made) not in given and made.index == event.index),
        )
        for event in events
    ]


def _check_decider(stage: Filter[Any], records: Sequence[bytes], stream: str) -> None:
    needs = stage.needs()
    if needs is None:
        return
    decides = stage.decider()
    for place, (raw, outcome) in enumerate(zip(records, _outcomes(stage, records, stream), strict=True)):
        if not outcome[1]:
            kept = decides(decode(raw), place)
            assert outcome == (raw if kept else b"", "", ()), "decider keeps the same records as apply, as they are."
            if not needs.sequence:
                other = decides(decode(raw), place + 1)
                assert kept == other, "The record's number makes no difference to a filter with sequence=False."
            if kept and needs.marks and not 0 < needs.marks_up_to < len(raw):
                found = b"\\u00" in raw or any(mark in raw for mark in needs.marks)
                assert found, "Each record that a filter with marks keeps holds one of them."


def _check_kept(stage: Filter[Any], records: Sequence[bytes], stream: str) -> None:
    events = make_events(records, stream=stream)
    gc.collect()
    before = [sys.getrefcount(event) for event in events]
    stage.apply(events)
    gc.collect()
    after = [sys.getrefcount(event) for event in events]
    assert before == after, "A filter keeps no event after apply."


def _check_broken(stage: Filter[Any], records: Sequence[bytes], stream: str) -> None:
    try:
        stage.apply(make_events([*records, _BROKEN], stream=stream))
    except Undecodable:
        return
    except Exception as error:
        raise AssertionError(
            f"A record that is not JSON may raise Undecodable (by event.doc), nothing else; it was {error!r}."
        ) from error
