"""Keeps one record in N."""

from __future__ import annotations

import zlib
from typing import Literal

from pipeline.core.config import Field, FilterConfig
from pipeline.core.event import Event
from pipeline.core.types import RecordPath
from pipeline.filters.predicate import Predicate, PredicateFilter


class SampleConfig(FilterConfig):
    """Keep one record in `rate`, the same ones each time and, with `key`, on every machine.

    Without `key`, every `rate`-th record of each source (and organization). With `key`, all records of about one value in `rate`, so
    that what belongs together stays together; a record without that value is chosen by its place, as without `key`.
    """

    type: Literal["sample"] = "sample"
    """Which component this is."""
    rate: int = Field(ge=1)
    """N: one in this many records goes on; 1 keeps all."""
    key: RecordPath | None = None
    """Path of the value that decides, like `routing/sid`."""


class Sample(PredicateFilter[SampleConfig]):
    def predicate(self) -> Predicate:
        rate, key = self.config.rate, self.config.key

        def by_place(event: Event) -> bool:
            return event.sequence % rate == 0

        def by_key(event: Event) -> bool:
            text = key.text(event.doc) if key is not None else None
            return by_place(event) if text is None else zlib.crc32(text.encode(errors="replace")) % rate == 0

        return by_place if key is None else by_key
