"""Several processes as one: starts the workers, hands connections to them in turn, adds up what they say, stops them."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import shutil
import signal
import socket
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, cast

from pipeline.config.load import Loaded
from pipeline.core.errors import ConfigError
from pipeline.core.handover import Presence
from pipeline.core.source import Source
from pipeline.core.types import Listen
from pipeline.engine import merge, placement
from pipeline.engine.member import Member
from pipeline.engine.observe import Observed
from pipeline.engine.summary import Summary
from pipeline.kit import log as logs
from pipeline.kit.backoff import Backoff
from pipeline.kit.listener import BACKLOG, bind
from pipeline.spool.disk import DiskSpoolConfig
from pipeline.spool.folder import DAMAGED, LOGS, SpoolFolder

Service = Callable[[Observed], AbstractAsyncContextManager[Any]]
"""Something that runs beside the workers, like the admin server."""

GRACE = 15.0
"""Seconds beyond `stop_timeout` after which a worker that has not ended is killed."""
_FULL = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class Door:
    """A listener that the workers share."""

    def __init__(self, number: int, source: str, listen: Listen) -> None:
        """Bind it. Raises ConfigError."""
        self.number = number
        self.source = source
        try:
            self.sockets = bind(listen.host, listen.port)
        except OSError as error:
            raise ConfigError(
                f"cannot listen on {listen}: {error.strerror or error}", where=f"sources.{source}.listen"
            ) from error
        for sock in self.sockets:
            sock.listen(BACKLOG)
            sock.setblocking(False)
        self.address = Listen(listen.host, self.sockets[0].getsockname()[1])

    def close(self) -> None:
        """Safe to call twice."""
        for sock in self.sockets:
            sock.close()


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
        self._news = asyncio.Event()
        self._reason = ""
        self._asked = False
        self._exit_code = 0
        self._doors: list[Door] = []
        self._turn = 0
        self._totals: dict[str, Presence] = {}
        numbers = placement.members(self._config)
        self._workers = len(numbers)
        self._members = [self._member(number, leads=number == numbers[0]) for number in numbers]
        self._drains = [self._member(number, drains=True) for number in placement.left_over(self._config)]

    async def run(self, services: Sequence[Service] = ()) -> Summary:
        """Run until stopped or until all sources are at their end. Raises `ConfigError` when the start is impossible."""
        loop = asyncio.get_running_loop()
        signals = (signal.SIGTERM, signal.SIGINT)
        for number in signals:
            loop.add_signal_handler(number, self.stop, f"received {number.name}")
        try:
            async with contextlib.AsyncExitStack() as stack:
                stack.callback(self._close_doors)
                await self._wait_for_folders()
                self._open_doors()
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
            doors = [group.create_task(self._accept(door, sock)) for door in self._doors for sock in door.sockets]
            stop = group.create_task(self._stop.wait())
            await asyncio.wait([stop, group.create_task(self._all_over(lives))], return_when=asyncio.FIRST_COMPLETED)
            self._end("all sources are at their end")
            self._log.info("Stopping the workers.", reason=self._reason)
            for task in doors:
                task.cancel()
            await asyncio.gather(*doors, return_exceptions=True)
            self._last_connections()
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
        self._news.set()
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

    # Connections.

    def _open_doors(self) -> None:
        if self._workers == 1:
            return
        for name, settings in self._config.sources.items():
            kind = cast(type[Source[Any]], self._loaded.registry.component("sources", settings.type))
            listen = getattr(settings, "listen", None)
            if kind.shared and isinstance(listen, Listen):
                self._doors.append(Door(len(self._doors), name, listen))
                self._log.info("Listening for all workers.", source=name, address=str(self._doors[-1].address))

    def _close_doors(self) -> None:
        for door in self._doors:
            door.close()

    async def _accept(self, door: Door, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                sock, _ = await loop.sock_accept(listener)
            except OSError as error:
                self._log.error("A connection could not be accepted.", source=door.source, error=error.strerror)
                await asyncio.sleep(1.0 if error.errno in _FULL else 0)
                continue
            with sock:
                while not self._hand(door, sock):
                    self._news.clear()
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(0.1):  # a worker that has room again does not say so
                            await self._news.wait()

    def _hand(self, door: Door, sock: socket.socket) -> bool:
        """Give a connection to the next worker that can take it."""
        for _ in self._members:
            member = self._members[self._turn % len(self._members)]
            self._turn += 1
            if member.hand(door.number, sock):
                return True
        return False

    def _last_connections(self) -> None:
        """Hand over what waits in the backlog: its peers may have sent, and believe that it arrived."""
        for door in self._doors:
            for listener in door.sockets:
                with contextlib.suppress(OSError):
                    while True:
                        sock, _ = listener.accept()
                        with sock:
                            self._hand(door, sock)
            door.close()
