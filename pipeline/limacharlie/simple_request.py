"""Commands to sensors together with their answers, as a conversation: ``await requests.send(sid, "os_version")``."""

from __future__ import annotations

import asyncio
import uuid
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

import orjson

from pipeline.core.errors import UnavailableError
from pipeline.limacharlie import records
from pipeline.limacharlie.answers import Doc
from pipeline.limacharlie.client import LimaCharlie
from pipeline.limacharlie.listener import Listener

MAX_BYTES = 64 << 20
"""The most that the answers to one request may have together; a sensor sends files of up to 10 MB."""


class NoAnswerError(UnavailableError):
    """Not all answers came in time. What came is in ``answers``; ``received`` says whether the sensor has the commands."""

    def __init__(self, what: str, *, sid: str, received: bool, answers: list[Doc]) -> None:
        super().__init__(what, where=sid)
        self.received = received
        self.answers = answers


@dataclass(slots=True)
class _Request:
    """One that waits for its answers."""

    tasks: int
    wanted: int | None
    """Number of answers; None: until each command says that it is done."""
    received: bool = False
    answers: list[Doc] = field(default_factory=list)
    size: int = 0
    """Bytes of the answers."""
    news: asyncio.Event = field(default_factory=asyncio.Event)
    _finished: int = 0

    @property
    def complete(self) -> bool:
        return len(self.answers) >= self.wanted if self.wanted is not None else self._finished >= self.tasks

    def take(self, doc: Doc, size: int) -> None:
        self.received = True
        if records.event_type(doc) != "CLOUD_NOTIFICATION" and not self.complete:
            self.size += size
            if self.size <= MAX_BYTES:
                self.answers.append(doc)
            self._finished += records.payload(doc).get("ERROR_MESSAGE") == "done"
        self.news.set()


class SimpleRequests:
    """Sends commands to sensors that are online and returns what they answer, for any number of them at once over one stream.

    Each request has an investigation of its own below ``inv_id`` (default: the client's, else a fresh one). Opens the stream, and
    again when it is lost; or with ``listen=False`` gets what a stream of the caller's brings through `hear`. Use it as ``async
    with``.
    """

    def __init__(self, account: LimaCharlie, *, inv_id: str | None = None, listen: bool = True) -> None:
        self.inv_id = inv_id or account.inv_id or str(uuid.uuid4())
        self._account = account
        self._requests: dict[str, _Request] = {}
        self._listener = Listener(account, self.inv_id, self._hear, ended=self._ended) if listen else None

    async def send(
        self,
        sid: str,
        *tasks: str,
        answers: int | None = None,
        until_done: bool = False,
        confirm_timeout: float = 30.0,
        timeout: float = 30.0,
    ) -> list[Doc]:
        """Send commands to a sensor that is online, and wait for ``answers`` events (default: one for each command).

        With ``until_done`` all events are taken until each command has said that it is done, as scans do. 0 answers means to wait
        only until the sensor has the commands. ``timeout`` are the seconds that the answers may take after that, and
        ``confirm_timeout`` those until then; the stream has `listener.READY_TIMEOUT` to come about before.

        Raises what `Tasks.send` raises (`OfflineError` among it), what the stream is refused with, and `NoAnswerError`, after which
        the sensor may still be at work.
        """
        if self._listener is not None:
            await self._listener.ready()
        wanted = None if until_done else len(tasks) if answers is None else answers
        request = _Request(len(tasks), wanted)
        key = str(uuid.uuid4())
        gaps = self._missed
        self._requests[f"{self.inv_id}/{key}"] = request
        try:
            await self._account.tasks.send(sid, *tasks, inv_id=self.inv_id, context=key)
            try:
                async with asyncio.timeout(confirm_timeout) as limit:
                    await self._news(request)
                    limit.reschedule(asyncio.get_running_loop().time() + timeout)
                    while not request.complete and request.size <= MAX_BYTES:
                        await self._news(request)
            except TimeoutError:
                raise _missing(sid, request, gaps=self._missed > gaps) from None
        finally:
            del self._requests[f"{self.inv_id}/{key}"]
        if request.size > MAX_BYTES:
            what = f"The answers have more than {MAX_BYTES >> 20} MiB."
            raise NoAnswerError(what, sid=sid, received=True, answers=request.answers)
        return request.answers

    def hear(self, record: bytes) -> None:
        """Take a record of the event stream: one that answers a request is handed to it, any other is ignored."""
        if not self._requests or b'"investigation_id"' not in record:
            return
        try:
            doc = orjson.loads(record)
        except orjson.JSONDecodeError:
            return
        found = records.routing(doc).get("investigation_id") if isinstance(doc, dict) else None
        request = self._requests.get(found) if isinstance(found, str) else None
        if request is not None:
            request.take(doc, len(record))

    async def _news(self, request: _Request) -> None:
        await request.news.wait()
        request.news.clear()
        if self._listener is not None:
            self._listener.check()

    @property
    def _missed(self) -> int:
        return self._listener.gaps if self._listener is not None else 0

    async def _hear(self, record: bytes) -> None:
        self.hear(record)

    def _ended(self) -> None:
        """Tell all who wait that there will be no answers."""
        for request in self._requests.values():
            request.news.set()

    async def __aenter__(self) -> Self:
        if self._listener is not None:
            await self._listener.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._listener is not None:
            await self._listener.__aexit__(kind, error, trace)


def _missing(sid: str, request: _Request, *, gaps: bool) -> NoAnswerError:
    if not request.received:
        what = "The sensor did not confirm the commands in time."
    elif request.wanted is None:
        what = f"The sensor has the commands and was not done in time, with {len(request.answers)} answers."
    else:
        what = f"The sensor has the commands, and {len(request.answers)} of {request.wanted} answers came in time."
    if gaps:
        what += " The stream of answers had gaps meanwhile."
    return NoAnswerError(what, sid=sid, received=request.received, answers=request.answers)
