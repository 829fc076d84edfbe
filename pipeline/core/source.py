"""A source brings raw records in."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol, TypeVar

from pipeline.core.batch import Receipt
from pipeline.core.component import Component, Org
from pipeline.core.config import SourceConfig
from pipeline.core.errors import RequestRefusedError

SourceConfigT = TypeVar("SourceConfigT", bound=SourceConfig)


@dataclass(frozen=True, slots=True)
class Past:
    """A piece of what a source missed."""

    records: Sequence[bytes]
    progress: str
    """From where to go on once all pieces up to this one are safe; "" where only from the beginning."""


class Outlet(Protocol):
    """Where a source puts its records."""

    async def send(self, raws: Sequence[bytes], stream: str | None = None, org: str | None = None) -> Receipt:
        """Append any number of records (without line ends) to the spool.

        Waits while the spool is full: that is the back-pressure. ``stream`` and ``org`` default to the source's own. Records of
        bad form are refused into the source's dead letter. Safe from concurrent tasks; each call keeps its order.
        """
        ...

    def refuse(self, raw: bytes, reason: str, org: str | None = None) -> None:
        """Put a record that the source itself cannot accept (oversize, a stranger's) into the source's dead letter.

        ``raw`` may be the beginning only. ``reason`` comes from a closed set; it is a metric label.
        """
        ...

    @property
    def waiting(self) -> bool:
        """Whether a `send` waits for room in the spool right now, or did within the last second."""
        ...


class Source(Component[SourceConfigT]):
    """Base of sources. Override `run`, and `open` and `close` where there is something to bind or to release."""

    per_org: ClassVar[bool] = False
    """True: the engine makes one instance for each organization (`self.org`). False: one instance serves all (`self.orgs`)."""
    tells_state: ClassVar[bool] = False
    """True: the source says by `report.state` when it works. False: it counts as working while it runs."""
    any_org: ClassVar[bool] = False
    """True: records may belong to no configured organization (files)."""
    misses_while_away: ClassVar[bool] = False
    """True: what comes while no connection is open is not sent later, so that the time until the first connection is a gap."""
    shared: ClassVar[bool] = False
    """True: with several workers each has an instance, and gets its part of the connections to ``config.listen`` by
    `Context.handover`. False: the source lives in one of them."""

    @classmethod
    def needs_account(cls, config: SourceConfigT) -> bool:
        """Whether a source with this config needs its organizations' API keys."""
        del config
        return False

    @classmethod
    def share(cls, config: SourceConfigT, workers: int) -> SourceConfigT:
        """The config of one of several instances that share a listener: limits over all connections are divided."""
        del workers
        return config

    async def open(self) -> None:
        """Bind what listens. Raises `ConfigError` when that cannot work. No record is taken yet."""

    async def run(self, outlet: Outlet) -> None:
        """Bring records in until `stopping` is set or there are no more, then return.

        After `stopping`, what the kernel already holds is still read. An exception is logged and `run` starts again after a
        back-off. A return before `stopping` means that the source is at its end.
        """
        raise NotImplementedError

    def history(self, org: Org, start: float, end: float, progress: str) -> AsyncIterator[Past]:
        """What an organization's records of an interval (Unix seconds) were, as far as somebody keeps them, through the same filters.

        ``progress``: where an earlier walk came to, or "". Raises a `PipelineError`. Called beside `run`.
        """
        del org, start, end, progress
        raise RequestRefusedError("There is no history of what this source brings.", where=self.id)

    async def check(self) -> None:
        """Try what can be tried without taking records (`validate --connect`). Raises a `PipelineError`."""

    async def close(self) -> None:
        """Release everything. Safe to call twice and without `open`."""
