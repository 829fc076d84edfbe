"""What sources, filters and sinks share: their configuration and their surroundings."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, Protocol, TypeVar

from structlog.typing import FilteringBoundLogger

from pipeline.core.clock import Clock
from pipeline.core.config import ComponentConfig
from pipeline.core.handover import Handover

ConfigT = TypeVar("ConfigT", bound=ComponentConfig)
State = Literal["starting", "ok", "degraded", "failed", "stopped"]


@dataclass(frozen=True, slots=True)
class Org:
    """An organization that a source serves, or whose records a sink gets."""

    name: str = ""
    """Its name in the configuration; "" where the configuration names none."""
    oid: str | None = None
    """Its LimaCharlie id, where known."""
    account: Any = field(default=None, repr=False, compare=False)
    """The `pipeline.limacharlie.LimaCharlie` client of this organization, or None without credentials."""


class Report(Protocol):
    """Where a component tells what it sees; the engine turns it into metrics, health and log lines."""

    def state(self, state: State, text: str = "", code: str = "") -> None:
        """Say how the component is. ``code`` is an error's code; All sources `failed` with `authentication` end the process."""
        ...

    def error(self, code: str, count: int = 1) -> None:
        """Count errors by their code (`PipelineError.code`)."""
        ...

    def gap(self, start: float, end: float, reason: str, *, org: str = "", records: int = 0) -> None:
        """Record an interval (Unix seconds) in which records may be missing; ``records`` are known to be."""
        ...

    def gap_opened(self, start: float, reason: str, *, org: str = "") -> None:
        """Records may be missing from ``start`` (Unix seconds) on, until `gap_closed`. Told again, the first time counts."""
        ...

    def gap_closed(self, *, org: str = "") -> None:
        """Records flow. A source that `misses_while_away` says so for each connection that works."""
        ...

    def heard(self, when: float, *, org: str = "") -> None:
        """Up to ``when`` (Unix seconds) nothing is missing but for the gaps: all that came before was sent to the outlet."""
        ...

    def upstream_dropped(self, count: int, *, org: str = "") -> None:
        """Record that the cloud says it dropped ``count`` records before they reached us."""
        ...

    def count(self, name: str, amount: int = 1) -> None:
        """Count something else of the component's own, by a name from a closed set (`pipeline_component_total{component,what}`)."""
        ...


@dataclass(frozen=True, slots=True)
class Context:
    """A component's surroundings, given by the engine (or by `pipeline.testing`)."""

    id: str
    log: FilteringBoundLogger
    clock: Clock
    report: Report
    stopping: asyncio.Event
    orgs: Sequence[Org] = (Org(),)
    commit_mark: Callable[[Mapping[str, Any]], Awaitable[None]] | None = None
    worker: int = 0
    """Which of several processes this is, from 1 on; 0 where there is one."""
    handover: Handover | None = None
    """Where the connections of a source come from whose listener several processes share."""


class Component(Generic[ConfigT]):
    """Base of sources, filters and sinks."""

    def __init__(self, config: ConfigT, context: Context) -> None:
        self.config = config
        self.id = context.id
        """Its name in the configuration, as in logs and metrics."""
        self.log = context.log
        self.clock = context.clock
        self.report = context.report
        self.stopping = context.stopping
        """Set when the component shall come to its end."""
        self.orgs = context.orgs
        """The organizations it serves; at least one."""
        self._context = context

    @property
    def org(self) -> Org:
        """The organization of a component that serves one."""
        return self.orgs[0]

    async def sleep(self, seconds: float) -> None:
        """Sleep, but end early when the component is stopping."""
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        try:
            async with asyncio.timeout(seconds):
                await self.stopping.wait()
        except TimeoutError:
            return
