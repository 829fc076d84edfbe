"""A route's step over batches, by what its filters need; and conditions on decoded records."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import orjson

from benchmarks.corpus import KEEP
from benchmarks.micro.quiet import Quiet
from benchmarks.micro.reading import Cases
from pipeline.config.registry import Registry, config_class
from pipeline.core.batch import Batch, LogId
from pipeline.core.component import Context
from pipeline.core.config import FilterConfig
from pipeline.core.event import Event
from pipeline.core.filter import Filter
from pipeline.core.lines import Lines
from pipeline.core.types import RecordPath
from pipeline.engine.route import Route
from pipeline.kit import log as logs
from pipeline.kit.clock import SystemClock
from pipeline.rules.compile import compile_rule

IS = {"type": "match", "op": "is", "path": "routing/event_type", "value": KEEP}
PATTERN = {"op": "matches", "path": "routing/event_type", "re": f"^{KEEP}$"}
FOREIGN = {"type": "foreign"}
LOG = LogId("bench")


def batches(records: list[bytes]) -> list[Batch]:
    made = []
    for start in range(0, len(records), 256):
        batch = Batch(Lines.of(records[start : start + 256]), LOG, "event", 1_700_000_000.0)
        batch.first = start
        made.append(batch)
    return made


class Foreign(Filter[FilterConfig]):
    """As another package has it, which says nothing of what it needs."""

    def apply(self, events: Sequence[Event]) -> Sequence[Event]:
        return [event for event in events if event.doc["routing"]["event_type"] == KEEP]


def route(filters: list[dict[str, Any]], paths: tuple[str, ...] = ()) -> Route:
    registry = Registry()
    stages: list[Filter[Any]] = []
    for number, given in enumerate(filters):
        component = Foreign if given == FOREIGN else registry.component("filters", given["type"])
        config = config_class(component).model_validate(given, context={"registry": registry})
        context = Context(f"filter.{number}", logs.get(component="bench"), SystemClock(), Quiet(), asyncio.Event())
        stages.append(component(config, context))
    return Route("bench", stages, [RecordPath(path) for path in paths], logs.get(component="bench"), lambda *_: None)


def filters(records: list[bytes]) -> Cases:
    given = batches(records)

    def step(stages: list[dict[str, Any]], *paths: str) -> Callable[[], None]:
        made = route(stages, paths)

        def work() -> None:
            for batch in given:
                made.step(batch, 0)

        return work

    three = [
        IS,
        {"type": "match", "op": "exists", "path": "event/FILE_PATH"},
        {"type": "match", "op": "contains", "path": "event/COMMAND_LINE", "value": "a"},
    ]
    return {
        "no filter": step([]),
        "no filter, the sink wants routing/sid": step([], "routing/sid"),
        "match on one field": step([IS]),
        "match that needs the whole record": step(
            [{"type": "match", "op": "and", "rules": [PATTERN, {"op": "exists", "path": "routing"}]}]
        ),
        "match with a wildcard path": step([{"type": "match", "op": "is", "path": "event/*", "value": "nothing"}]),
        "events": step([{"type": "events", "include": [KEEP]}]),
        "three filters": step(three),
        "a filter that is given events": step([FOREIGN]),
        "sample, one of ten": step([{"type": "sample", "rate": 10}]),
    }


def rules(records: list[bytes]) -> Cases:
    docs = [orjson.loads(record) for record in records[:256]]
    times = max(1, len(records) // 256)

    def test(rule: dict[str, Any]) -> Callable[[], None]:
        check = compile_rule(rule)

        def work() -> None:
            for _ in range(times):
                for doc in docs:
                    check(doc)

        return work

    exists = {"op": "exists", "path": "event/FILE_PATH"}
    contains = {"op": "contains", "path": "event/COMMAND_LINE", "value": "powershell", "case sensitive": False}
    is_type = {key: value for key, value in IS.items() if key != "type"}
    return {
        "is": test(is_type),
        "contains, any case": test(contains),
        "matches": test(PATTERN),
        "wildcard path": test({"op": "is", "path": "event/*", "value": "nothing"}),
        "and of three": test({"op": "and", "rules": [is_type, exists, contains]}),
    }
