"""Sinks `kafka` and what they write, for the tests that need a broker."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable

import structlog

from pipeline.core.batch import LogId
from pipeline.core.component import Context
from pipeline.core.items import Part
from pipeline.kit.clock import SystemClock
from pipeline.sinks.kafka import KafkaSink, KafkaSinkConfig

MakeSink = Callable[..., KafkaSink]
"""Takes the keys of the config."""


class Heard:
    """A `Report` that keeps what the sink says of itself."""

    def __init__(self) -> None:
        self.states: list[tuple[str, str]] = []
        """State and code, in their order."""

    def state(self, state: str, text: str = "", code: str = "") -> None:
        self.states.append((state, code))

    def error(self, code: str, count: int = 1) -> None: ...

    def gap(self, start: float, end: float, reason: str, *, org: str = "") -> None: ...

    def upstream_dropped(self, count: int, *, org: str = "") -> None: ...

    def count(self, name: str, amount: int = 1) -> None: ...


def build(**config: object) -> KafkaSink:
    context = Context("lake", structlog.get_logger(), SystemClock(), Heard(), asyncio.Event())
    return KafkaSink(KafkaSinkConfig.model_validate(config), context)


def part(
    payloads: list[bytes], stream: str = "event", org: str = "", values: list[dict[str, str]] | None = None
) -> Part:
    return Part(payloads, stream, LogId("src", org), 1_700_000_000.123, values=values)


def records(count: int, start: int = 0, size: int = 0) -> list[bytes]:
    """JSON records numbered from ``start``, with ``size`` bytes of padding."""
    return [json.dumps({"n": n, "pad": "x" * size}).encode() for n in range(start, start + count)]
