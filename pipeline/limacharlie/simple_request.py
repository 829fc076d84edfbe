"""Commands to sensors together with their answers, as a conversation: ``await requests.send(sid, "os_version")``."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

import orjson

from pipeline.core.errors import (
    AuthenticationError,
    PermanentError,
    PermissionDeniedError,
    PipelineError,
    TemporaryError,
    UnavailableError,
    UsageError,
)
from pipeline.kit.backoff import Backoff
from pipeline.limacharlie import records
from pipeline.limacharlie.answers import Doc
from pipeline.limacharlie.client import LimaCharlie
from pipeline.limacharlie.feed import Feed, Subscription
from pipeline.limacharlie.stream import SpoutParser
from pipeline.limacharlie.token import Token

MAX_BYTES = 64 << 20
"""The most that the answers to one request may have together; a sensor sends files of up to 10 MB."""
MAX_RECORD = 16 << 20
"""The largest answer."""
READY_TIMEOUT = 20.0
"""Seconds that the stream may take to come about: two tries."""
_HIDDEN = "__"
"""LimaCharlie keeps the answers of investigations that begin so out of every stream."""


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
        if self.inv_id.startswith(_HIDDEN):
            raise UsageError(f"No stream shows the answers of an investigation that begins with {_HIDDEN}.")
        self._account = account
        self._listen = listen
        # A stream knows an investigation by the part before the slash.
        self._subscription = Subscription("event", options={"inv_id": self.inv_id.partition("/")[0]})
        self._requests: dict[str, _Request] = {}
        self._live = asyncio.Event()
        self._gaps = 0
        """How often something may have been missed."""
        self._trouble: BaseException | None = None
        """Why there is no stream at the moment."""
        self._failed = False
        """There will be none."""
        self._listener: asyncio.Task[None] | None = None

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
        ``confirm_timeout`` those until then; the stream has `READY_TIMEOUT` to come about before.

        Raises what `Tasks.send` raises (`OfflineError` among it), what the stream is refused with, and `NoAnswerError`, after which
        the sensor may still be at work.
        """
        await self._ready()
        wanted = None if until_done else len(tasks) if answers is None else answers
        request = _Request(len(tasks), wanted)
        key = str(uuid.uuid4())
        gaps = self._gaps
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
                raise _missing(sid, request, gaps=self._gaps > gaps) from None
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

    async def _ready(self) -> None:
        """Wait until answers would be heard."""
        if not self._listen:
            return
        if self._listener is None:
            raise UsageError("Nobody listens to the answers.", fix="Use it as `async with`.")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(READY_TIMEOUT):
                await self._live.wait()
        if not self._live.is_set() or self._failed:
            raise self._trouble or UnavailableError("The stream of answers does not come about.")

    async def _news(self, request: _Request) -> None:
        await request.news.wait()
        request.news.clear()
        if self._failed and self._trouble is not None:
            raise self._trouble

    async def _keep_listening(self) -> None:
        """Hold a stream until cancelled; returns when it is refused for good."""
        backoff = Backoff(0.2, 10.0)
        refusal: tuple[Token, str] | None = None
        while True:
            feed = self._account.subscribe(self._subscription, refusal=refusal)
            try:
                error = await self._attend(feed)
            finally:
                feed.close()
            self._trouble = error
            if self._live.is_set():
                self._live.clear()
                self._gaps += 1
                refusal = None
                backoff.reset()
            if isinstance(error, AuthenticationError | PermissionDeniedError) and feed.token and refusal is None:
                # The token may be old: another one is tried, once.
                refusal = feed.token, error.what
            elif isinstance(error, PermanentError):
                raise error
            after = error.after if isinstance(error, TemporaryError) else None
            await asyncio.sleep(backoff.next() + (after or 0.0))

    async def _attend(self, feed: Feed) -> PipelineError:
        """Listen to one stream; return why it is over."""
        async with asyncio.TaskGroup() as group:
            pump: asyncio.Task[None] | None = None
            try:
                await feed.open()
                pump = group.create_task(feed.pump())
                return await self._receive(feed)
            except PipelineError as failure:
                return failure
            finally:
                if pump is not None:
                    pump.cancel()

    async def _receive(self, feed: Feed) -> PipelineError:
        parser = SpoutParser(MAX_RECORD, scrub=self._account.transport.scrub)
        confirmed_by = asyncio.get_running_loop().time() + self._subscription.connect_timeout
        while parser.error is None:
            try:
                async with asyncio.timeout_at(None if parser.live else confirmed_by):
                    chunks = await feed.chunks()
            except TimeoutError:
                return UnavailableError("The stream of answers was not confirmed in time.")
            for chunk in chunks:
                for record in parser.feed(chunk):
                    self.hear(record)
            if not chunks:
                return UnavailableError(f"The stream of answers is over ({feed.ending.reason if feed.ending else ''}).")
            self._gaps += parser.dropped + len(parser.oversize)
            parser.dropped = 0
            parser.oversize.clear()
            if parser.live:
                self._live.set()
        return parser.error

    def _ended(self, listener: asyncio.Task[None]) -> None:
        """Tell all who wait that there will be no answers."""
        if not listener.cancelled():
            self._trouble, self._failed = listener.exception(), True
            self._live.set()
            for request in self._requests.values():
                request.news.set()

    async def __aenter__(self) -> Self:
        if self._listen:
            self._listener = asyncio.create_task(self._keep_listening())
            self._listener.add_done_callback(self._ended)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._listener is not None:
            self._listener.cancel()
            await asyncio.wait([self._listener])
            self._listener = None


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
