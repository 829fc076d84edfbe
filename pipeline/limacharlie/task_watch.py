"""Follows the answers to commands that wait for sensors, until all have come or none can come any more."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import orjson

from pipeline.core.errors import TemporaryError
from pipeline.limacharlie import records
from pipeline.limacharlie.answers import Doc, text
from pipeline.limacharlie.client import LimaCharlie
from pipeline.limacharlie.listener import Listener
from pipeline.limacharlie.reliable_tasking import DEFAULT_TTL

LOOK = 15.0
"""Seconds between looks at which commands still wait."""
GRACE = 10.0
"""Seconds that an answer may take that was asked for when the command expired."""
_AHEAD = 100
"""Answers that are read ahead of who takes them."""

Place = tuple[str, str]
"""A sensor, and the investigation of a command to it."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far it has come, in answers."""

    wanted: int | None
    """One for each command and sensor; None where LimaCharlie does not say how many, or for which, sensors a command is."""
    answered: int
    gone: int
    """Commands that wait no more and were not confirmed: taken back, or expired."""
    gaps: int
    """How often the stream was lost, or records of it."""

    @property
    def complete(self) -> bool:
        return self.wanted is not None and self.answered >= self.wanted


class TaskWatch:
    """Use it as ``async with``, before the commands are given where no answer may be missed; then `look`, then `answers`.

    ``context`` stands for itself and for all that begin with it and a slash. ``total`` is the number of answers that will come,
    where it is known (of sensors that are online nobody can list them), and ``commands`` that of commands with one context.
    """

    def __init__(self, account: LimaCharlie, context: str, *, commands: int = 1, total: int | None = None) -> None:
        self._total = total
        self._uncounted = False
        self._account = account
        self._context = context
        self._commands = commands
        self._listener = Listener(account, context, self._hear, ended=self._ended)
        self._heard: asyncio.Queue[Doc | None] = asyncio.Queue(_AHEAD)
        self._waiting: Counter[Place] = Counter()
        """Commands that were seen to wait."""
        self._answers: Counter[Place] = Counter()
        self._confirmed: set[Place] = set()
        self._missing: Counter[Place] = Counter()
        """How often in a row a look did not find what had waited."""
        self._expires_at: float | None = None

    async def look(self) -> Progress:
        """Ask which commands wait. Raises what `ReliableTasking.list` raises."""
        tasks = [task for task in await self._account.reliable_tasking.list() if self._is_ours(task.context)]
        now = Counter((task.sid.lower(), task.context) for task in tasks)
        for place, count in now.items():
            self._waiting[place] = max(self._waiting[place], count)
        for place in self._waiting:
            lost = place not in now and place not in self._confirmed and not self._answers[place]
            self._missing[place] = self._missing[place] + 1 if lost else 0
        times = [task.expires_at for task in tasks if task.expires_at is not None]
        self._expires_at = max([*times, self._expires_at or 0.0]) or None
        return self.progress

    def expect(self, answers: int | None) -> None:
        """Wait for so many more answers; None for a number that nobody knows, after which only time ends it."""
        self._total = (self._total or 0) + (answers or 0)
        self._uncounted = self._uncounted or answers is None

    @property
    def progress(self) -> Progress:
        # One look may fall between the end of the waiting and the sensor's confirmation in the stream; two do not.
        gone = sum(count for place, count in self._waiting.items() if self._missing[place] > 1)
        seen = sum(self._waiting.values())
        wanted = (seen if self._total is None else max(self._total, seen)) - gone
        answered = sum(min(count, self._quota(place)) for place, count in self._answers.items())
        unknown = self._uncounted or any(not sid for sid, _ in self._waiting)
        return Progress(None if unknown else max(wanted, 0), answered, gone, self._listener.gaps)

    async def answers(self, timeout: float | None = None) -> AsyncIterator[Doc]:
        """The answers as they come, until all have, or for ``timeout`` seconds (default: until the last command expires).

        Raises what the stream is refused with, and what `look` raises unless it is temporary.
        """
        clock = asyncio.get_running_loop().time
        if timeout is None:
            now = self._account.transport.clock.now()
            timeout = (self._expires_at or now + DEFAULT_TTL) - now + GRACE
        end, next_look = clock() + timeout, clock() + LOOK
        while not self.progress.complete or not self._heard.empty():
            doc = None
            try:
                async with asyncio.timeout_at(min(end, next_look)):
                    doc = await self._heard.get()
            except TimeoutError:
                if clock() >= end:
                    return
            if doc is not None:
                self._answers[_place(doc)] += 1
                yield doc
            elif self._heard.empty():
                self._listener.check()
            if clock() >= next_look:
                await self._look_again()
                next_look = clock() + LOOK

    async def _look_again(self) -> None:
        try:
            await self.look()
        except TemporaryError:
            return  # the next one may work; the answers come by the stream

    def _quota(self, place: Place) -> int:
        return self._waiting[place] or self._commands

    def _is_ours(self, investigation: str) -> bool:
        return investigation == self._context or investigation.startswith(f"{self._context}/")

    async def _hear(self, record: bytes) -> None:
        try:
            doc = orjson.loads(record)
        except orjson.JSONDecodeError:
            return
        if not isinstance(doc, dict) or not self._is_ours(_place(doc)[1]):
            return
        if records.event_type(doc) == "CLOUD_NOTIFICATION":
            self._confirmed.add(_place(doc))
        else:
            await self._heard.put(doc)

    def _ended(self) -> None:
        if not self._heard.full():
            self._heard.put_nowait(None)  # wakes who waits

    async def __aenter__(self) -> Self:
        await self._listener.__aenter__()
        try:
            await self._listener.ready()
        except BaseException as error:
            await self._listener.__aexit__(type(error), error, None)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._listener.__aexit__(kind, error, trace)


def _place(doc: Doc) -> Place:
    routing = dict(records.routing(doc))
    return text(routing, "sid").lower(), text(routing, "investigation_id")
