"""A route's step: decode, filter, make payloads. Runs once for all lanes that are at the same batch."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from itertools import islice, pairwise, repeat
from typing import Any

from pipeline.core.batch import Batch
from pipeline.core.event import Event, Undecodable
from pipeline.core.filter import Filter
from pipeline.core.lines import Lines
from pipeline.core.types import RecordPath
from pipeline.engine.plan import DecodePlan
from pipeline.kit.log import Logger

KEPT_STEPS = 4
"""Results that a route remembers for lanes that come to the same batch a moment later; a batch is at most 1 MiB."""
TOGETHER = 32
"""Events that filters are given at once: with more decoded records alive, decoding each takes up to twice as long."""


class Refusal:
    """A record that a filter refused, or that nothing could decode."""

    __slots__ = ("component", "detail", "offset", "payload", "reason")

    def __init__(self, offset: int, payload: bytes, reason: str, detail: str, component: str) -> None:
        self.offset = offset
        self.payload = payload
        self.reason = reason
        self.detail = detail
        self.component = component


class Step:
    """What became of a batch's records from ``start`` on."""

    __slots__ = (
        "batch",
        "changed",
        "derived",
        "filtered",
        "offsets",
        "payloads",
        "refusals",
        "size",
        "start",
        "values",
    )

    def __init__(self, batch: Batch, start: int) -> None:
        self.batch = batch
        self.start = start
        """Offset in the batch of the first record that this step covers."""
        self.payloads: Sequence[bytes] = ()
        self.offsets: Sequence[int] | None = None
        """Offset of each payload's record in the batch, ascending; None where every record has just its own payload."""
        self.values: Sequence[Mapping[str, str]] | None = None
        self.changed: frozenset[int] = frozenset()
        """Indices of payloads that a filter changed or made."""
        self.refusals: Sequence[Refusal] = ()
        self.filtered = 0
        self.derived = 0
        self.size = 0

    def offset(self, index: int) -> int:
        """Offset in the batch of the payload's record."""
        return self.start + index if self.offsets is None else self.offsets[index]


class Route:
    """Filters of one route, and the values that its sinks ask for."""

    def __init__(
        self,
        name: str,
        filters: Sequence[Filter[Any]],
        paths: Sequence[RecordPath],
        log: Logger,
        on_error: Callable[[str, str], None],
        *,
        lanes: int = 1,
        dedupe: Callable[[Step], None] | None = None,
    ) -> None:
        """``dedupe`` takes what came before out of a step."""
        self.name = name
        self.filters = filters
        self.plan = DecodePlan(name, filters, tuple(dict.fromkeys(paths)))
        self.busy = 0.0
        """Seconds spent in steps."""
        self._paths = tuple(dict.fromkeys(paths))
        self._log = log
        self._on_error = on_error
        self._dedupe = dedupe
        self._kept = KEPT_STEPS if lanes > 1 else 0
        self._steps: OrderedDict[tuple[object, int], Step] = OrderedDict()

    def step(self, batch: Batch, position: int) -> Step:
        """The step over the batch's records from sequence number ``position`` on."""
        start = max(0, position - batch.first)
        if start == 0 and self._kept:
            key = (batch.log, batch.first)
            step = self._steps.get(key)
            if step is not None and step.batch is batch:
                return step
            step = self._steps[key] = self._run(batch, 0)
            if len(self._steps) > self._kept:
                self._steps.popitem(last=False)
            return step
        return self._run(batch, start)

    def _run(self, batch: Batch, start: int) -> Step:
        began = time.perf_counter()
        step = Step(batch, start)
        records = Lines.of(batch.records[start:]) if start else batch.records
        filtered = batch.log.filtered
        if not self._paths and not (filtered and self.filters):
            step.payloads = records
            step.size = records.size
        elif filtered:
            self._decide(step, records)
        else:
            self._filter(step, list(records), range(len(records)), (), [])
        if self._dedupe is not None:
            self._dedupe(step)
        self.busy += time.perf_counter() - began
        return step

    def _decide(self, step: Step, records: Lines) -> None:
        """By the decode plan as far as it goes, the rest by events."""
        plan, start = self.plan, step.start
        if not plan.decides:
            self._filter(step, records, range(len(records)), self.filters, [])
            return
        try:
            lot, values, undecided = plan.run(records, step.batch.first + start)
        except Exception:  # filters are given events then, and may refuse them, or fail where it is told
            self._filter(step, records, range(len(records)), self.filters, [])
            return
        refusals = [Refusal(start + one.row, one.record, "invalid_json", one.reason, one.owner) for one in undecided]
        if not plan.gives_values and lot.lines:
            self._filter(step, lot.records(), lot.rows, plan.rest, refusals)
            return
        if len(lot) == len(records):
            step.payloads = records
            step.size = records.size
        else:
            # A sink that wants values takes the records one by one.
            step.payloads = lot.joined() if values is None else lot.records()
            step.offsets = [start + row for row in lot.rows] if start else lot.rows
            step.size = lot.size
        step.values = values
        step.refusals = refusals
        step.filtered = len(records) - len(lot) - len(refusals)

    def _filter(
        self,
        step: Step,
        records: Sequence[bytes],
        rows: Sequence[int],
        filters: Sequence[Filter[Any]],
        refusals: list[Refusal],
    ) -> None:
        """``records`` are those of these ``rows``, counted from where the step starts."""
        batch, start = step.batch, step.start
        stream, org, received_at, origin, first = batch.stream, batch.org, batch.received_at, batch.origin, batch.first
        places = range(start, start + len(records)) if isinstance(rows, range) else [start + row for row in rows]
        numbers = [first + place for place in places]
        shared = (repeat(stream), repeat(org), repeat(received_at), repeat(origin))
        every = map(Event, records, *shared, numbers, places)
        payloads: list[bytes] = []
        offsets: list[int] = []
        values: list[Mapping[str, str]] = []
        changed: list[int] = []
        derived = 0
        while some := list(islice(every, TOGETHER)):
            events, made = self._judged(some, filters, refusals)
            derived += made
            if any(later.index < earlier.index for earlier, later in pairwise(events)):
                events = sorted(events, key=lambda event: event.index)
            if self._paths:
                events, found = self._values(events, refusals)
            for event in events:
                payload = self._payload(event, refusals) if event.replaced else event.raw
                if payload is None:
                    continue
                if event.replaced:
                    changed.append(len(payloads))
                payloads.append(payload)
                offsets.append(event.index)
            if self._paths:
                values += [one for event, one in zip(events, found, strict=True) if not event.rejection]
        step.payloads = payloads
        step.offsets = offsets
        step.values = values if self._paths else None
        step.changed = frozenset(changed)
        step.refusals = refusals
        step.size = sum(map(len, payloads))
        step.derived = derived
        step.filtered = len(batch.records) - start + derived - len(payloads) - len(refusals)

    def _judged(
        self, events: Sequence[Event], filters: Sequence[Filter[Any]], refusals: list[Refusal]
    ) -> tuple[Sequence[Event], int]:
        """What all filters let go on, and how many of those they made."""
        derived = 0
        for stage in filters:
            if not events:
                break
            events, made = self._apply(stage, events, refusals)
            derived += made
        return events, derived

    def _payload(self, event: Event, refusals: list[Refusal]) -> bytes | None:
        """What a filter made of a record; None where that cannot be encoded."""
        try:
            return event.payload()
        except (TypeError, ValueError) as error:
            refusals.append(Refusal(event.index, event.raw, "unencodable", str(error), self.name))
            event.rejection = "unencodable"
            return None

    def _apply(
        self, stage: Filter[Any], events: Sequence[Event], refusals: list[Refusal]
    ) -> tuple[Sequence[Event], int]:
        """One filter over the events; returns what goes on, and how many of those it made.

        What it refuses, and everything when it fails, goes to ``refusals``.
        """
        changed = {id(event): event._doc for event in events if event.replaced}  # noqa: SLF001 - the other half of Event
        try:
            out, made = _applied(stage, events)
        except Undecodable:
            for event in events:
                # What the filter did before it stumbled is undone, or it would be done twice.
                event.rejection = ""
                if event.replaced:
                    event.replaced = id(event) in changed
                    event._doc = changed.get(id(event))  # noqa: SLF001 - as above
                try:
                    _ = event.doc
                except Undecodable as error:
                    event.reject("invalid_json", str(error))
            self._refuse(stage.id, [event for event in events if event.rejection], refusals)
            events = [event for event in events if not event.rejection]
            try:
                out, made = _applied(stage, events)
            except Exception as error:
                return self._failed(stage, events, error, refusals)
        except Exception as error:
            return self._failed(stage, events, error, refusals)
        refused = {id(event): event for event in (*events, *out) if event.rejection}
        if refused:
            self._refuse(stage.id, refused.values(), refusals)
            out = [event for event in out if not event.rejection]
        return out, made

    def _refuse(self, component: str, events: Any, refusals: list[Refusal]) -> None:
        refusals.extend(Refusal(event.index, event.raw, event.rejection, event.detail, component) for event in events)

    def _failed(
        self, stage: Filter[Any], events: Sequence[Event], error: Exception, refusals: list[Refusal]
    ) -> tuple[Sequence[Event], int]:
        self._log.error(
            "A filter failed on a batch; its records go to the dead letter.", component=stage.id, exc_info=error
        )
        self._on_error(stage.id, "filter_failed")
        refusals.extend(
            Refusal(event.index, event.raw, "filter_failed", f"{type(error).__name__}: {error}", stage.id)
            for event in events
        )
        return [], 0

    def _values(
        self, events: Sequence[Event], refusals: list[Refusal]
    ) -> tuple[Sequence[Event], list[Mapping[str, str]]]:
        kept: list[Event] = []
        values: list[Mapping[str, str]] = []
        paths = self._paths
        for event in events:
            try:
                doc = event.doc
            except Undecodable as error:
                refusals.append(Refusal(event.index, event.raw, "invalid_json", str(error), self.name))
                continue
            kept.append(event)
            values.append({path: text for path in paths if (text := path.text(doc)) is not None})
        return kept, values


def _applied(stage: Filter[Any], events: Sequence[Event]) -> tuple[Sequence[Event], int]:
    """What a filter lets go on, and how many of those it made. Raises ValueError for events that cannot be accounted for."""
    out = list(stage.apply(events))
    places = set(map(id, out))
    if len(places) < len(out):
        raise ValueError("the filter returned an event twice")
    places.difference_update(map(id, events))
    if places and not all(event.derived for event in out if id(event) in places):
        raise ValueError("the filter returned an event that it was not given; new ones come from event.derive()")
    return out, len(places)
