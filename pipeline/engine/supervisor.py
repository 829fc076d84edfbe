"""Several processes as one: starts the workers, hands connections to them in turn, adds up what they say, stops them."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import signal
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

from pipeline.config.load import Loaded
from pipeline.core.errors import ConfigError
from pipeline.core.handover import Presence
from pipeline.engine import merge, placement
from pipeline.engine.doors import Doors
from pipeline.engine.member import Member
from pipeline.engine.observe import Observed
from pipeline.engine.summary import Summary
from pipeline.kit import log as logs
from pipeline.kit.backoff import Backoff
from pipeline.spool.disk import DiskSpoolConfig
from pipeline.spool.folder import DAMAGED, LOGS, SpoolFolder

Service = Callable[[Observed], AbstractAsyncContextManager[Any]]
"""Something that runs beside the workers, like the admin server."""

GRACE = 15.0
"""Seconds beyond `stop_timeout` after which a worker that has not ended is killed."""


class Supervisor:
    """Runs a configuration once, in several processes. Implements `pipeline.engine.observe.Observed`."""

    def __init__(self, loaded: Loaded, command: Sequence[str], options: Mapping[str, Any]) -> None:
        """``command`` starts a worker; ``options`` are handed to it as they are."""
        self._loaded = loaded
        self._config = loaded.config
        self._command = command
        self._options = dict(options)
        self._log = logs.get(component="supervisor")
        self._stop = asyncio.Event()
        self._reason = ""
        self._asked = False
        self._exit_code = 0
        self._totals: dict[str, Presence] = {}
        numbers = placement.members(self._config)
        self._workers = len(numbers)
        self._members = [self._member(number, leads=number == numbers[0]) for number in numbers]
        self._doors = Doors(self._members, self._log)
        self._drains = [self._member(number, drains=True) for number in placement.left_over(self._config)]

    async def run(self, services: Sequence[Service] = ()) -> Summary:
        """Run until stopped or until all sources are at their end. Raises `ConfigError` when the start is impossible."""
        loop = asyncio.get_running_loop()
        signals = (signal.SIGTERM, signal.SIGINT)
        for number in signals:
            loop.add_signal_handler(number, self.stop, f"received {number.name}")
        try:
            async with contextlib.AsyncExitStack() as stack:
                stack.callback(self._doors.close)
                await self._wait_for_folders()
                if self._workers > 1:
                    self._doors.open(self._loaded)
                for service in services:
                    await stack.enter_async_context(service(self))
                await self._work()
        finally:
            for number in signals:
                loop.remove_signal_handler(number)
        parts = [member.summary for member in (*self._drains, *self._members) if member.summary is not None]
        return merge.summary(parts, self._exit_code or max((part.exit_code for part in parts), default=0))

    def stop(self, reason: str = "asked to stop") -> None:
        """Begin to stop, as somebody asked; asked again, stop at once."""
        if self._asked:
            self._tell_stop(reason)
        self._asked = True
        self._end(reason)

    # What the admin server shows.

    async def metrics(self) -> bytes:
        everybody = (*self._drains, *self._members)
        now = await asyncio.gather(*(member.report("metrics") for member in everybody))
        past = [member.past for member in everybody]
        return merge.text([*past, *(families for families in now if families is not None)])

    async def health(self) -> tuple[bool, dict[str, Any]]:
        states = await self._states()
        body = self._health(states)
        return body["status"] == "ready", body

    async def state(self) -> dict[str, Any]:
        states = await self._states()
        return merge.states(states, self._health(states))

    async def _states(self) -> dict[int, dict[str, Any]]:
        found = await asyncio.gather(*(member.report("state") for member in self._members))
        return {member.number: state for member, state in zip(self._members, found, strict=True) if state is not None}

    def _health(self, states: Mapping[int, Mapping[str, Any]]) -> dict[str, Any]:
        components: list[dict[str, Any]] = []
        for member in self._members:
            state = states.get(member.number)
            if state is None:
                text = (
                    "its sources are at their end" if member.over else "it is started again" if member.started else ""
                )
                components.append({
                    "component": f"worker {member.number}", "kind": "worker", "org": "",
                    "state": "stopped" if member.over else "failed" if member.started else "starting",
                    "text": text, "code": "", "worker": member.number,
                })  # fmt: skip
            else:
                components += [{**one, "worker": member.number} for one in state["health"]["components"]]
        return {"status": self._phase, "components": components}

    @property
    def _phase(self) -> str:
        if self._stop.is_set():
            return "draining"
        if all(member.started for member in self._members) and any(member.ready for member in self._members):
            return "ready"
        return "starting"

    # The life of the workers.

    def _member(self, number: int, *, leads: bool = False, drains: bool = False) -> Member:
        return Member(number, leads=leads, drains=drains, changed=self._heard, log=self._log)

    def _end(self, reason: str) -> None:
        self._reason = self._reason or reason
        self._stop.set()

    async def _work(self) -> None:
        self._log.info(
            "Running workers.", workers=[member.number for member in self._members],
            emptying=[member.number for member in self._drains],
        )  # fmt: skip
        async with asyncio.TaskGroup() as group:
            lives = [group.create_task(self._live(member)) for member in (*self._drains, *self._members)]
            accepting = group.create_task(self._doors.accept())
            stop = group.create_task(self._stop.wait())
            await asyncio.wait([stop, group.create_task(self._all_over(lives))], return_when=asyncio.FIRST_COMPLETED)
            self._end("all sources are at their end")
            self._log.info("Stopping the workers.", reason=self._reason)
            accepting.cancel()
            await asyncio.gather(accepting, return_exceptions=True)
            self._doors.last()
            self._tell_stop(self._reason)
            _, late = await asyncio.wait(lives, timeout=self._config.stop_timeout + GRACE)
            if late:
                self._log.error("Workers did not end in time and are killed.")
                self._exit_code = self._exit_code or 1
                for member in (*self._drains, *self._members):
                    member.kill()

    async def _all_over(self, lives: Sequence[asyncio.Task[None]]) -> None:
        await asyncio.wait(lives)

    async def _live(self, member: Member) -> None:
        """Keep a worker running until it is at its end or all shall stop."""
        backoff = Backoff(1.0, 30.0)
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            try:
                code = await member.run(self._command, self._start(member))
            except OSError as error:  # no memory, process or file to be had now; the others work on
                how, code = f"not started: {error.strerror or error}", 1
            else:
                how = f"signal {-code}" if code < 0 else f"exit code {code}"
            if member.finished and code == 0:
                member.over = True
                if member.drains and member.empty:
                    await asyncio.to_thread(self._remove, member.number)
                return
            if self._stop.is_set():
                self._exit_code = max(self._exit_code, code if code > 0 else 1 if code else 0)
                return
            if not member.started and code > 1:
                self._exit_code = code  # a configuration that cannot work; the worker said what is wrong with it
                self._end(f"worker {member.number} cannot start")
                return
            self._log.error("A worker ended; it is started again.", worker=member.number, how=how, distinct=True)
            if loop.time() - began > 60:
                backoff.reset()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(backoff.next()):
                    await self._stop.wait()
                    return

    def _start(self, member: Member) -> dict[str, Any]:
        return {
            "config": self._loaded.text,
            "file": self._loaded.file,
            "options": self._options,
            "worker": member.number,
            "workers": self._workers,
            "leads": member.leads,
            "drains": member.drains,
            "listeners": {} if member.drains else {door.source: str(door.address) for door in self._doors},
        }

    def _tell_stop(self, reason: str) -> None:
        for member in (*self._drains, *self._members):
            member.stop(reason)

    def _remove(self, number: int) -> None:
        """Remove the folder of a worker whose records are all delivered; what was set aside as damaged stays."""
        spool = self._config.spool
        assert isinstance(spool, DiskSpoolConfig)
        folder = placement.folder(spool.path, number)
        # Without a number it is the folder of all: what else a process alone has in it is of use when there is one again.
        whole = number and not any((folder / DAMAGED).iterdir())
        shutil.rmtree(folder if whole else folder / LOGS, ignore_errors=True)

    async def _wait_for_folders(self) -> None:
        """Workers whose supervisor was killed come to their end by themselves; wait for that. Raises ConfigError."""
        spool = self._config.spool
        if not isinstance(spool, DiskSpoolConfig):
            return
        loop = asyncio.get_running_loop()
        end = loop.time() + self._config.stop_timeout
        for member in (*self._drains, *self._members):
            path = placement.folder(spool.path, member.number)
            while path.is_dir():
                folder = SpoolFolder(path)
                try:
                    await asyncio.to_thread(folder.lock)
                except ConfigError as error:
                    if loop.time() > end or self._stop.is_set():
                        raise
                    self._log.warning("Waiting for a worker of an earlier run.", error=error.what)
                    await asyncio.sleep(0.2)
                else:
                    folder.unlock()
                    break

    # What the workers say.

    def _heard(self, member: Member) -> None:
        self._doors.heard()
        if member.leads and not member.ready:
            self._totals = {}  # its next life is told everything
        self._count()
        self._judge()

    def _count(self) -> None:
        """Add up the connections, and tell the one that leads what it does not know."""
        leader = self._members[0]
        for door in self._doors:
            total: dict[str | None, int] = {}
            for member in self._members:
                for org, count in member.presence.get(door.source, {}).items():
                    total[org] = total.get(org, 0) + count
            if leader.ready and self._totals.get(door.source) != total:
                self._totals[door.source] = total
                leader.tell(door.source, total)

    def _judge(self) -> None:
        """End it all when no source can authenticate."""
        shared = {door.source for door in self._doors}
        running = [member for member in self._members if not member.over]
        statuses = [
            status
            for member in running
            for (source, _), status in member.statuses.items()
            if member.leads or source not in shared
        ]
        if (
            statuses
            and all(member.ready for member in running)
            and all(one["state"] == "failed" and one["code"] == "authentication" for one in statuses)
        ):
            self._exit_code = 2
            self._log.error("No source can authenticate.", error=statuses[0]["text"])
            self._end("no source can authenticate")
