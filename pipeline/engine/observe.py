"""What an operator can see of a running pipeline, whether it is one process or several."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, Protocol

from prometheus_client.exposition import generate_latest

from pipeline.engine.runner import Runner
from pipeline.engine.summary import summarize


class Observed(Protocol):
    """What the admin server shows."""

    async def metrics(self) -> bytes:
        """All metrics in Prometheus' text format."""
        ...

    async def health(self) -> tuple[bool, dict[str, Any]]:
        """Whether it is ready, and how each component is."""
        ...

    async def state(self) -> dict[str, Any]:
        """The counts of sources and lanes."""
        ...


class Observation:
    """Implements `Observed` for one process."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner

    async def metrics(self) -> bytes:
        return generate_latest(self._runner.plan.meters.registry)

    async def health(self) -> tuple[bool, dict[str, Any]]:
        return self._runner.health.ready, self._runner.health.body()

    async def state(self) -> dict[str, Any]:
        summary = summarize(self._runner.plan)
        return {
            "health": self._runner.health.body(),
            "sources": [asdict(source) for source in summary.sources],
            "refused": summary.refused,
            "lanes": [asdict(lane) for lane in summary.lanes],
            "conservation_error": self._runner.plan.meters.conservation_error(),
        }
