"""`validate --connect`: asks every source and sink to try what it can without moving a record."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from pipeline.config.load import Loaded
from pipeline.core.errors import PipelineError, UnavailableError
from pipeline.engine.accounts import accounts
from pipeline.engine.build import build
from pipeline.kit.clock import SystemClock

TIMEOUT = 30.0
"""Seconds that one component may take."""


async def connect(loaded: Loaded) -> list[tuple[str, PipelineError | None]]:
    """Check all components at once; returns (component, its error or None), sources first."""
    async with accounts(loaded.config, loaded.registry) as orgs:
        plan = build(loaded.config, orgs, SystemClock(), loaded.registry)
        checks: list[tuple[str, Callable[[], Awaitable[None]], Callable[[], Awaitable[None]]]] = []
        for run in plan.sources:
            org = run.orgs[0].name if len(run.orgs) == 1 else ""
            checks.append((f"{run.source.id} ({org})" if org else run.source.id, run.source.check, run.source.close))
        checks += [(runner.id, runner.sink.check, runner.sink.close) for runner in plan.sinks.values()]
        async with asyncio.TaskGroup() as group:
            results = [group.create_task(_check(check, close)) for _, check, close in checks]
        return [(name, result.result()) for (name, _, _), result in zip(checks, results, strict=True)]


async def _check(check: Callable[[], Awaitable[None]], close: Callable[[], Awaitable[None]]) -> PipelineError | None:
    try:
        async with asyncio.timeout(TIMEOUT):
            try:
                await check()
            finally:
                await close()
    except PipelineError as error:
        return error
    except TimeoutError:
        return UnavailableError(f"no answer within {TIMEOUT:g} s")
    except Exception as error:
        return UnavailableError(f"{type(error).__name__}: {error}")
    return None
