"""Keeps one record in N."""

from __future__ import annotations

import zlib
from typing import Any, Literal

from pipeline.core.config import Field, FilterConfig
from pipeline.core.filter import Decider, Needs
from pipeline.core.types import RecordPath
from pipeline.filters.predicate import PredicateFilter


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
    def needs(self) -> Needs:
        key = self.config.key
        return Needs() if key is None else Needs(values=frozenset({key.keys}))

    def decider(self) -> Decider:
        rate, key = self.config.rate, self.config.key

        def by_place(_: Any, sequence: int) -> bool:
            return sequence % rate == 0

        def by_key(doc: Any, sequence: int) -> bool:
            text = key.text(doc) if key is not None else None
            return sequence % rate == 0 if text is None else zlib.crc32(text.encode(errors="replace")) % rate == 0

        return by_place if key is None else by_key
