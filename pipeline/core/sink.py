"""A sink stores payloads somewhere."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from typing import Any, ClassVar, TypeVar, get_args

from pipeline.core.batch import Origin
from pipeline.core.component import Component
from pipeline.core.config import SinkConfig
from pipeline.core.items import Items
from pipeline.core.types import RecordPath

SinkConfigT = TypeVar("SinkConfigT", bound=SinkConfig)
Mark = Mapping[str, Any]
"""``{key: small JSON value, or None to remove the key}``."""


class Sink(Component[SinkConfigT]):
    """Base of sinks. Override `write`; no retry, queue or batching of its own, the engine does those."""

    has_marks: ClassVar[bool] = False
    """True: `write` returns marks; then one write runs at a time, is all or nothing, and is never abandoned when late.

    One that acts cannot take back what it did: it raises `Partial` after committing the marks that say what was done.
    """
    alone: ClassVar[bool] = False
    """True: two processes must not have it at once, so that a configuration with several workers cannot use it."""
    needs_disk_spool: ClassVar[bool] = False
    """True: what it promises holds only with marks that survive a crash; with a memory spool the configuration is refused."""

    @classmethod
    def needs_account(cls, config: SinkConfigT) -> bool:
        """Whether a sink with this config needs the API keys of the organizations (`self.orgs`) whose records it gets."""
        del config
        return False

    @property
    def origins(self) -> Container[Origin]:
        """Origins of the records that it takes; of another origin, they count as filtered and never reach it."""
        return get_args(Origin)

    @property
    def paths(self) -> Iterable[RecordPath]:
        """The record paths whose values the items shall carry (`Item.values`)."""
        return ()

    async def open(self, marks: Mapping[str, Any]) -> None:
        """Connect. ``marks`` is the table that its writes' marks made, {} at first. May be tried again after it raised."""

    async def check(self) -> None:
        """Try what can be tried without writing a record. Raises a `PipelineError` that says what to do."""

    async def write(self, items: Items) -> Mark | None:
        """Store all items; returning means stored.

        Raises `RetryLater` (nothing is stored), `Rejected` (none can ever be stored), or `Partial` (an index not named is
        stored). Any other exception counts as `RetryLater`.
        """
        raise NotImplementedError

    async def sync(self) -> None:
        """Make what was written durable; called before positions are committed."""

    async def close(self) -> None:
        """Flush and release everything. Safe to call twice and without `open`."""

    async def commit_mark(self, mark: Mark) -> None:
        """Commit a mark now, before the first byte goes to a place that has none yet."""
        if self._context.commit_mark is not None:
            await self._context.commit_mark(mark)
