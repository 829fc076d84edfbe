"""A worker as the supervisor sees it: its process, what it says, and what it said before it ended."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
from collections.abc import Callable, Sequence
from typing import Any

from pipeline.core.handover import Presence
from pipeline.engine.channel import Channel, Message, pairs_of, presence_of
from pipeline.engine.merge import Families, added, kept
from pipeline.engine.summary import LaneCount, SourceCount, Summary
from pipeline.kit.log import Logger

ANSWER = 5.0
"""Seconds that a worker may take for a report; one that takes longer is left out of it."""


CHECK = 10.0
"""Seconds between two questions whether a worker lives."""
PATIENCE = 60.0
"""Seconds without a word after which a worker counts as hung, and is killed."""


class Member:
    """One worker. ``run`` is one life of its process."""

    def __init__(
        self, number: int, *, leads: bool, drains: bool, changed: Callable[[Member], None], log: Logger
    ) -> None:
        self.number = number
        self.leads = leads
        self.drains = drains
        self.ready = False
        """Whether its spool accepts now."""
        self.started = False
        """Whether it was ready at least once."""
        self.over = False
        """Whether it came to its end and is not started again."""
        self.finished = False
        """Whether the last life ended because its sources were at their end."""
        self.statuses: dict[tuple[str, str], Message] = {}
        """(source, organization) -> how the source is."""
        self.presence: dict[str, Presence] = {}
        """Source -> connections."""
        self.summary: Summary | None = None
        """The counts of the last life."""
        self.past: Families = []
        """What is counted of earlier lives."""
        self._log = log
        self._changed = changed
        self._channel: Channel | None = None
        self._sockets: socket.socket | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._metrics: Families = []
        self._questions: dict[int, asyncio.Future[Any]] = {}
        self._numbers = itertools.count()
        self._heard = 0.0
        """Loop time of its last word."""

    async def run(self, command: Sequence[str], start: dict[str, Any]) -> int:
        """Start the process and listen to it until it has ended; return its exit code. Raises OSError where it cannot be started."""
        self.finished = False
        self.summary = None
        ours, theirs = socket.socketpair()
        sockets, inbox = socket.socketpair()
        sockets.setblocking(False)
        try:
            try:
                with theirs, inbox:
                    self._process = await asyncio.create_subprocess_exec(
                        *command, str(theirs.fileno()), str(inbox.fileno()),
                        pass_fds=(theirs.fileno(), inbox.fileno()),
                        start_new_session=True,  # Ctrl-C reaches the supervisor alone, which knows the order of a stop
                    )  # fmt: skip
            except OSError:
                ours.close()
                sockets.close()
                raise
            self._sockets = sockets
            self._channel = await Channel.over(ours)
            watch = asyncio.create_task(self._watch())
            try:
                self._channel.send("start", **start)
                async for message in self._channel.messages():
                    self._heard = asyncio.get_running_loop().time()
                    self._hear(message)
            finally:
                watch.cancel()
                await self._channel.close()
            return await self._process.wait()
        finally:
            self._end()

    def hand(self, door: int, sock: socket.socket) -> bool:
        """Hand a connection over; False where this worker cannot take one now."""
        if not self.ready or self._sockets is None:
            return False
        try:
            socket.send_fds(self._sockets, [bytes((door,))], [sock.fileno()])
        except OSError:  # its socket is full, or its process has just ended
            return False
        return True

    @property
    def empty(self) -> bool:
        """Whether its last life left nothing in the spool."""
        return self.summary is not None and not any(lane.waiting for lane in self.summary.lanes)

    def stop(self, reason: str) -> None:
        """Tell it to stop; nothing is handed over any more. Told again, it stops at once."""
        if self._sockets is not None:
            self._sockets.close()
            self._sockets = None
        if self._channel is not None:
            self._channel.send("stop", reason=reason)

    def kill(self) -> None:
        """End the process without asking it."""
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()

    def tell(self, source: str, presence: Presence) -> None:
        """Tell the one that leads about the connections of all."""
        if self._channel is not None:
            self._channel.send("presence", source=source, presence=pairs_of(presence))

    async def report(self, what: str) -> Any:
        """Ask for its metrics or state; where it does not answer in time, its metrics are those of the last time, else None."""
        if self._channel is None or not self.ready:
            return None
        number = next(self._numbers)
        answer = self._questions[number] = asyncio.get_running_loop().create_future()
        self._channel.send("report", id=number, what=what)
        try:
            async with asyncio.timeout(ANSWER):
                body = await answer
        except TimeoutError:
            self._log.warning("A worker does not answer.", worker=self.number)
            # Counts that are missing for once would look as if all together had gone back.
            return (self._metrics or None) if what == "metrics" else None
        finally:
            self._questions.pop(number, None)
        if what == "metrics" and body is not None:
            self._metrics = body
        return body

    async def _watch(self) -> None:
        """Kill the process when it does not say a word any more: one that hangs holds its connections and records."""
        loop = asyncio.get_running_loop()
        self._heard = loop.time()
        while True:
            await asyncio.sleep(CHECK)
            if not self.ready:  # opening a large spool may take its time
                self._heard = loop.time()
            elif loop.time() - self._heard > PATIENCE:
                self._log.error("A worker hangs and is killed.", worker=self.number, seconds=round(PATIENCE))
                self.kill()
                return
            elif self._channel is not None:
                self._channel.send("report", id=-1, what="life")

    def _hear(self, message: Message) -> None:
        match message["kind"]:
            case "ready":
                self.ready = self.started = True
                self.statuses = {(one["component"], one["org"]): one for one in message["sources"]}
            case "status":
                if message["component_kind"] == "source":
                    self.statuses[message["component"], message["org"]] = message
            case "presence":
                self.presence[message["source"]] = presence_of(message["presence"])
            case "report":
                answer = self._questions.get(message["id"])
                if answer is not None and not answer.done():
                    answer.set_result(message["body"])
                return
            case "summary":
                self.finished = not message["asked"]
                counts = message["summary"]
                self.summary = Summary(
                    counts["exit_code"],
                    [SourceCount(**one) for one in counts["sources"]],
                    counts["refused"],
                    [LaneCount(**one) for one in counts["lanes"]],
                )
        self._changed(self)

    def _end(self) -> None:
        self.ready = False
        self.presence = {}
        self.statuses = {}
        if self._sockets is not None:
            self._sockets.close()
        self._sockets = self._channel = self._process = None
        if self._metrics:
            self.past = added(self.past, kept(self._metrics))
            self._metrics = []
        for answer in self._questions.values():
            if not answer.done():
                answer.set_result(None)
        self._changed(self)
