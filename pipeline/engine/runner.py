"""The life of a process: open, run, drain, close."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

from pipeline.core.clock import Clock
from pipeline.core.errors import ConfigError, PipelineError
from pipeline.engine.build import Plan, SourceRun
from pipeline.engine.dedupe import TABLE
from pipeline.engine.health import Health
from pipeline.engine.lane import Lane
from pipeline.engine.promise import promise
from pipeline.engine.status import Status
from pipeline.engine.summary import Summary, summarize
from pipeline.kit import log as logs
from pipeline.kit.backoff import Backoff

Service = Callable[["Runner"], AbstractAsyncContextManager[Any]]
"""Something that runs beside the pipeline while it is up, like the admin server."""

BUSY_INTERVAL = 5.0
"""Seconds between the log lines that name who is still busy at shutdown."""
LANE_SHARE = 0.1
"""Share of the stop timeout that is kept for the lanes' last writes; until then sources hand over what they hold."""


class Runner:
    """Runs a plan once."""

    def __init__(self, plan: Plan, services: Sequence[Service] = (), *, alone: bool = True) -> None:
        """``alone``: whether these sources are all that there are; else somebody who knows the others' decides what ends us."""
        self.plan = plan
        self.clock: Clock = plan.clock
        self.health = Health(plan.board)
        self.exit_code = 0
        self.reason = ""
        """Why the process ended, for the log."""
        self.asked = False
        """Whether somebody asked it to stop."""
        self._services = services
        self._alone = alone
        self._log = logs.get(component="pipeline")
        self._stop = asyncio.Event()
        self._stopping_since: float | None = None
        """Unix time at which sources were told to stop."""
        self._forced = asyncio.Event()
        self._marks: dict[str, dict[str, Any]] = {}
        self._lane_tasks: dict[Lane, asyncio.Task[None]] = {}
        plan.board.listeners.append(self._status_changed)

    def stop(self, reason: str = "asked to stop") -> None:
        """Begin to stop, as somebody asked; asked again, stop at once."""
        if self.asked:
            self._forced.set()
        self.asked = True
        self._end(reason)

    def _end(self, reason: str) -> None:
        self.reason = self.reason or reason
        self._stop.set()

    async def run(self) -> Summary:
        """Run until stopped or until all sources are at their end. Raises `ConfigError` when the start is impossible."""
        loop = asyncio.get_running_loop()
        signals = (signal.SIGTERM, signal.SIGINT)
        for number in signals:
            loop.add_signal_handler(number, self.stop, f"received {number.name}")
        try:
            async with contextlib.AsyncExitStack() as stack:
                stack.push_async_callback(self._close)
                await self._open()
                for service in self._services:
                    await stack.enter_async_context(service(self))
                await self._work()
        finally:
            for number in signals:
                loop.remove_signal_handler(number)
            self.health.phase = "stopped"
        return summarize(self.plan, self.exit_code)

    async def _open(self) -> None:
        plan = self.plan
        for route in plan.routes:
            for stage in route.filters:
                stage.open()
                stage.report.state("ok")
        problems: list[ConfigError] = []
        for run in plan.sources:
            try:
                await run.source.open()
            except ConfigError as error:
                problems.append(error)
        if problems:
            raise (
                problems[0]
                if len(problems) == 1
                else ConfigError("Some sources cannot start.", problems=tuple(problems))
            )
        restored = await plan.spool.open(plan.logs)
        plan.dedupes.restore(restored.facts.get(TABLE, {}), restored.positions)
        plan.board.gaps.restore(restored.facts, plan.watch.away)
        stats = plan.spool.stats()
        for name in stats:
            if name.replay:
                for lane in plan.readers(name):
                    lane.add(name)
        for lane in plan.lanes:
            for log in lane.logs:
                position = restored.positions.get((lane.id, log))
                if position is None:
                    newest = lane.start == "newest" and not restored.lost
                    position = stats[log].end if newest else plan.spool.oldest(log)
                lane.start_at(log, position, stats[log].end)
        plan.spool.attach(plan.lanes, plan.committer.commit_facts)
        for log in plan.logs:
            if plan.watch.carried(log) and (batch := await plan.spool.read(log, plan.spool.oldest(log))) is not None:
                plan.watch.arrived(batch)
            if restored.lost and log in plan.watch.away and (end := stats[log].end) > plan.spool.oldest(log):
                last = await plan.spool.read(log, end - 1)
                if last is not None:
                    plan.board.gaps.missed_since(log, last.received_at)
        self._marks = restored.marks
        for route in plan.routes:
            self._log.info(promise(plan.config, route.name, durable=plan.spool.durable), route=route.name)

    async def _work(self) -> None:
        plan = self.plan
        async with asyncio.TaskGroup() as background:
            helpers = [background.create_task(plan.committer.run())]
            helpers += [background.create_task(letters.run()) for letters in plan.letters.sources.values()]
            helpers += [
                background.create_task(runner.open(self._marks.get(runner.id, {}))) for runner in plan.sinks.values()
            ]
            if plan.spool.durable:
                helpers.append(background.create_task(plan.filler.run(plan.stopping)))
            async with asyncio.TaskGroup() as lanes:
                self._lane_tasks = {lane: lanes.create_task(self._lane(lane)) for lane in plan.lanes}
                async with asyncio.TaskGroup() as sources:
                    running = [sources.create_task(self._source(run)) for run in plan.sources]
                    self.health.phase = "ready"
                    self._log.info("Running.", sources=list(plan.config.sources), sinks=list(plan.sinks))
                    at_end = await self._until_stop(running)
                    self.health.phase = "draining"
                    rest = "lanes finish what is in flight" if plan.spool.durable and not at_end else "then routes"
                    self._log.info(f"Stopping: sources first, {rest}, then sinks.", reason=self.reason)
                    self._stopping_since = self.clock.now()
                    plan.stopping.set()
                    for lane in plan.lanes:
                        lane.hasten()
                    end = self.clock.monotonic() + plan.config.stop_timeout
                    await self._finish(running, plan.config.stop_timeout * (1 - LANE_SHARE), self._busy_sources)
                tasks = list(self._lane_tasks.values())
                if at_end:
                    # Nobody asked us to stop, so nothing is given up for lack of time.
                    for lane in plan.lanes:
                        lane.drain()
                    at_end = await self._until_stop(tasks)
                    end = self.clock.monotonic() + plan.config.stop_timeout
                if not at_end:
                    for lane in plan.lanes:
                        lane.leave() if plan.spool.durable else lane.drain()
                await self._finish(tasks, end - self.clock.monotonic(), self._busy_lanes)
            for helper in helpers:
                helper.cancel()

    async def _until_stop(self, tasks: Sequence[asyncio.Task[None]]) -> bool:
        """Wait for the tasks or for a request to stop; return whether the tasks came to their end before it."""
        stop = asyncio.ensure_future(self._stop.wait())
        waiting: set[asyncio.Future[Any]] = {task for task in tasks if not task.done()}
        try:
            while waiting and not stop.done():
                done, _ = await asyncio.wait({stop, *waiting}, return_when=asyncio.FIRST_COMPLETED)
                waiting -= done
            self.reason = self.reason or "all sources are at their end"
            return not stop.done()
        finally:
            stop.cancel()

    async def _finish(self, tasks: Sequence[asyncio.Task[None]], timeout: float, busy: Callable[[], list[str]]) -> None:
        """Wait for tasks, naming every few seconds who is busy; cancel what is left at the timeout or when forced."""
        forced = asyncio.ensure_future(self._forced.wait())
        end = self.clock.monotonic() + max(0.0, timeout)
        rest: set[asyncio.Future[Any]] = {task for task in tasks if not task.done()}
        try:
            while rest and not forced.done() and (left := end - self.clock.monotonic()) > 0:
                done, _ = await asyncio.wait(
                    {forced, *rest}, timeout=min(left, BUSY_INTERVAL), return_when=asyncio.FIRST_COMPLETED
                )
                rest -= done
                if not done:
                    self._log.info("Still stopping.", busy=busy())
        finally:
            forced.cancel()
        for task in rest:
            task.cancel()

    def _busy_sources(self) -> list[str]:
        return [str(run.source.id) for run in self.plan.sources if run.status.current != "stopped"]

    def _busy_lanes(self) -> list[str]:
        return [
            f"{lane.id}: {lane.busy_with or 'draining'}" for lane, task in self._lane_tasks.items() if not task.done()
        ]

    async def _lane(self, lane: Lane) -> None:
        """Run a lane; its crash is our bug, and ends the process in order instead of leaving records where nobody reads them."""
        try:
            await lane.run()
        except Exception as error:
            self._log.error("A lane crashed; the process stops.", lane=lane.id, exc_info=error)
            self.exit_code = 1
            self._end(f"the lane {lane.id} crashed")

    async def _source(self, run: SourceRun) -> None:
        """Keep one source running until it is at its end or stopping."""
        source, backoff = run.source, Backoff(1.0, 60.0)
        while True:
            started = self.clock.monotonic()
            if not source.tells_state:
                run.status.state("ok")
            try:
                await source.run(run.intake)
            except Exception as error:
                code = error.code if isinstance(error, PipelineError) else "internal"
                run.status.error(code)
                run.status.state("failed", str(error), code)
                unexpected = None if isinstance(error, PipelineError) else error
                sentence = "The source failed; it is started again."
                source.log.error(sentence, error=str(error), exc_info=unexpected)  # noqa: TRY400 - the traceback only if unexpected
            else:
                run.status.state("stopped")
                # What it had read may have waited for a full spool since it was told to stop: it heard nothing meanwhile.
                until = self.clock.now() if self._stopping_since is None else self._stopping_since
                for log in run.intake.received.keys() & self.plan.watch.away:
                    self.plan.board.gaps.stopped(log, until)
                return
            if self.clock.monotonic() - started > 60:
                backoff.reset()
            await source.sleep(backoff.next())
            if self.plan.stopping.is_set():
                return

    def _status_changed(self, status: Status) -> None:
        if status.kind == "sink":
            self.plan.sinks[status.component].hurry()
        if status.code == "closed_pipe":
            self._end("the reader of our output has gone")
            for lane, task in self._lane_tasks.items():
                if lane.runner.id == status.component:
                    lane.ended_by = "closed_pipe"
                    task.cancel()
            if all(lane.ended_by for lane in self._lane_tasks):
                self._forced.set()
        elif self._alone and status.kind == "source" and status.code == "authentication":
            sources = self.plan.board.of("source")
            if all(other.current == "failed" and other.code == "authentication" for other in sources):
                self.exit_code = 2
                self._log.error("No source can authenticate.", error=status.text)
                self._end("no source can authenticate")

    async def _close(self) -> None:
        plan = self.plan
        for run in plan.sources:
            await self._closing(run.source.id, run.source.close)
        for lane in plan.lanes:
            if plan.spool.durable:
                if left := sum(map(lane.waiting, lane.logs)):
                    self._log.info("Records stay in the spool until the next start.", lane=lane.id, records=left)
                continue
            lost = lane.discard_rest(lane.ended_by or "shutdown")
            if lost and not lane.ended_by:
                self._log.error("Records were given up at the stop timeout.", lane=lane.id, records=lost)
                self.exit_code = self.exit_code or 1
        for source, letters in plan.letters.sources.items():
            if lost := letters.counts.get("shutdown", 0):
                self._log.error(
                    "Records that could not be accepted any more went to the dead letter.", source=source, records=lost
                )
                self.exit_code = self.exit_code or 1
        now = self.clock.now()
        for gap in plan.board.gaps.end():
            self._log.error(
                "Records may be missing from this interval.", gap=gap.number, source=gap.source, org=gap.org, start=gap.start,
                end=now, seconds=round(gap.seconds(now), 3), reason=gap.reason, distinct=True,
            )  # fmt: skip
        await plan.committer.commit()
        for runner in plan.sinks.values():
            await runner.close()
        for route in plan.routes:
            for stage in route.filters:
                try:
                    stage.close()
                except Exception as error:
                    self._log.warning("A component did not close cleanly.", component=stage.id, error=str(error))
        await plan.spool.close()
        await plan.letters.close()

    async def _closing(self, name: str, close: Callable[[], Any]) -> None:
        try:
            async with asyncio.timeout(10):
                await close()
        except Exception as error:
            self._log.warning(
                "A component did not close cleanly.", component=name, error=str(error) or type(error).__name__
            )
