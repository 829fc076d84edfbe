"""A replay without a running process: takes the spool, delivers, and gives it back."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

from pipeline.config.load import Loaded
from pipeline.core.batch import LogId
from pipeline.core.component import Context, Org
from pipeline.core.config import SourceConfig
from pipeline.core.errors import PipelineError
from pipeline.core.source import Outlet, Source
from pipeline.engine.build import Plan, SourceRun, build
from pipeline.engine.intake import Intake
from pipeline.engine.placement import Place
from pipeline.engine.replay import Replayer, Report, Request
from pipeline.engine.replay_server import INTERVAL, serve
from pipeline.engine.runner import Runner
from pipeline.kit import log as logs
from pipeline.kit.clock import SystemClock

NAME = "replay"


def plan_of(loaded: Loaded, place: Place) -> Plan:
    """The parts of a configuration without its sources; needs no credentials."""
    config = loaded.config
    orgs = {name: Org(name, config.account(name).oid) for name in list(config.orgs) or [""]}
    return build(config, orgs, SystemClock(), loaded.registry, place)


def alone(worker: int = 0) -> Place:
    """The place of a process in which no source runs."""
    return Place(worker, drains=True)


class _Job(Source[SourceConfig]):
    """Stands where the sources are: brings in what is replayed, then ends the process."""

    def __init__(self, plan: Plan, request: Request, tell: Callable[[Report], None], context: Context) -> None:
        super().__init__(SourceConfig(type=NAME), context)
        self.progress = Report("records", 0)
        self.problem: PipelineError | None = None
        self.over: Callable[[], None] = lambda: None
        self._plan = plan
        self._request = request
        self._tell = tell

    async def run(self, outlet: Outlet) -> None:
        del outlet
        work = asyncio.ensure_future(self._work())
        stop = asyncio.ensure_future(self.stopping.wait())
        try:
            while not (await asyncio.wait({work, stop}, timeout=INTERVAL, return_when=asyncio.FIRST_COMPLETED))[0]:
                self._tell(self.progress)
        finally:
            work.cancel()
            stop.cancel()
            await asyncio.wait({work, stop})
            self.over()
        with contextlib.suppress(asyncio.CancelledError):
            try:
                work.result()
            except PipelineError as error:
                self.problem = error

    async def _work(self) -> None:
        supply = self._request.supply(self._plan)
        self.progress = Report(supply.unit, supply.total)
        await Replayer(self._plan).run(self._request, self.progress, supply)


async def replay(loaded: Loaded, place: Place, request: Request, tell: Callable[[Report], None]) -> Report:
    """Replay and deliver until all is settled, or until a signal. Raises PipelineError; ConfigError where the spool is in use."""
    plan = plan_of(loaded, place)
    log = logs.get(component=NAME)
    status = plan.board.add(NAME, "source", "", log)
    job = _Job(plan, request, tell, Context(NAME, log, plan.clock, status, plan.stopping))
    name = LogId(NAME)
    intake = Intake(NAME, job.config, {"": name}, plan.spool, plan.letters.source(NAME), plan.clock)
    plan.sources.append(SourceRun(job, intake, status, (Org(),)))
    runner = Runner(plan, [serve])
    job.over = lambda: runner.stop("the replay is over")
    await runner.run()
    if job.problem is not None:
        raise job.problem
    return job.progress


async def look(loaded: Loaded, place: Place, request: Request) -> Report:
    """Say what a replay would do; changes nothing, and needs nothing that a running process has."""
    plan = plan_of(loaded, place)
    supply = request.supply(plan)
    report = Report(supply.unit, supply.total)
    await Replayer(plan).run(request, report, supply)
    return report
