"""Following a session: each message once, in order, over any number of connections."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from pipeline.core.errors import NotFoundError, PipelineError, TemporaryError
from pipeline.kit.backoff import Backoff
from pipeline.limacharlie.ai.errors import (
    ConnectionLostError,
    SessionAuthenticationError,
    SessionEndedError,
    SessionNotFoundError,
    SessionNotRunningError,
    SilentConnectionError,
)
from pipeline.limacharlie.ai.inbox import Inbox
from pipeline.limacharlie.ai.message import SESSION_END, Message, Seen, decode, unfold
from pipeline.limacharlie.ai.service import AiService
from pipeline.limacharlie.ai.sessions import OrgSessions, Sessions
from pipeline.limacharlie.ai.socket import NotHereError, Paths, Socket, SocketOptions
from pipeline.limacharlie.answers import text
from pipeline.limacharlie.token import Token

BUFFER = 60.0
"""Seconds for which LimaCharlie keeps messages for who connects again."""
MARGIN = 5.0
"""Seconds by which an absence must be shorter than that to be made good by the buffer alone."""
REFUSAL_TIME = 1.0
"""Seconds in which a refusal comes, by a close code right after the upgrade; what we said before would be lost."""
FILL_TRIES = 3
"""Connections on which the history is asked for before what it would have brought is given up."""
MAX_GAPS = 100
URLS = ("upload_url", "download_url")
"""Messages with a signed URL; they must not go where transcripts go."""
_CAUSE = "GET AI session"


@dataclass(frozen=True, slots=True)
class End:
    """How a session ended; what LimaCharlie did not tell is "" or None."""

    reason: str = ""
    exit_code: int | None = None


@dataclass(frozen=True, slots=True)
class Gap:
    """A time, in Unix seconds, of which messages may be missing, and the code of the error for why."""

    begin: float
    end: float
    reason: str


class Follower:
    """The reading half of `LiveSession`.

    Connects again with the same session id after every loss, with back-off and a fresh token, and makes an absence that was longer
    than LimaCharlie's buffer good from the history. Memory is bounded: who does not take `messages` stops the reading.
    """

    def __init__(
        self,
        service: AiService,
        session_id: str,
        options: SocketOptions,
        *,
        seen: Iterable[str] = (),
        history: bool = False,
        give_up: float | None = None,
    ) -> None:
        self.session_id = session_id
        self.ended: End | None = None
        """Set when the session has ended."""
        self.gaps: deque[Gap] = deque(maxlen=MAX_GAPS)
        self.connections = 0
        self.duplicates = 0
        """Messages that came again."""
        self.malformed = 0
        """Frames that were no messages."""
        self._service = service
        self._options = options
        self._clock = service.transport.clock
        self._rest = (OrgSessions if options.view == "org" else Sessions)(service)
        self._paths: list[Paths] = [options.paths] if options.paths else ["documented", "proxy"]
        self._history = history
        self._give_up = give_up
        self._seen = Seen(seen)
        self._inbox = Inbox()
        self._task: asyncio.Task[None] | None = None
        self._socket: Socket | None = None
        self._changed = asyncio.Event()
        """Set while there is a connection that is not refused, and when there will be none any more."""
        self._backoff = Backoff(base=0.5, cap=30.0)
        self._starting = Backoff(base=0.5, cap=2.0)
        self._left = self._clock.monotonic()
        """When the last connection was good for the last time."""
        self._heard = False
        """Something has come."""
        self._lagging = False
        """We did not read for a while, so the other side may have gone on without us."""
        self._missing = 0.0
        """Since when, in Unix seconds, messages are missing that the history is to bring."""
        self._fills = 0
        self._renewed = False
        """The token was replaced since anything last came."""
        self._is_starting = False
        """The last connection was refused because the session does not run yet."""

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Leave; the session goes on. Safe to call twice."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def messages(self) -> AsyncIterator[Message]:
        """Each message once, in their order; ends when the session has ended.

        Raises `SessionAuthenticationError`, `ForeignSessionError`, `SessionNotFoundError` or another permanent error, and with
        ``give_up`` the temporary one that lasted too long. Messages with signed URLs are not among them.
        """
        while (message := await self._inbox.get()) is not None:
            yield message
        if self._task is not None:
            await self._task

    async def batches(self) -> AsyncIterator[list[Message]]:
        """The same as `messages`, but all that is there at once."""
        while (message := await self._inbox.get()) is not None:
            yield [message, *self._inbox.ready()]
        if self._task is not None:
            await self._task

    @property
    def _where(self) -> str:
        return f"AI session {self.session_id[:80]}"

    def _resolve(self, message: Message) -> bool:
        """Whether a message is the answer to a request of ours, and with that done."""
        return message.type in URLS

    async def _run(self) -> None:
        try:
            await self._follow()
        finally:
            self._inbox.close()
            self._changed.set()

    async def _follow(self) -> None:
        while (failure := await self._attend()) is not None:
            self._is_starting = isinstance(failure, SessionNotRunningError)
            if isinstance(failure, SessionEndedError):
                with contextlib.suppress(PipelineError):
                    await self._learn_end()
                self.ended = self.ended or End()
            elif not isinstance(failure, TemporaryError) or self._is_hopeless():
                raise failure
            elif isinstance(failure, SessionNotRunningError):
                await self._learn_end()
                await asyncio.sleep(self._starting.next())
            else:
                await asyncio.sleep(max(self._backoff.next(), failure.after or 0.0))
            if self.ended is not None:
                return

    def _is_hopeless(self) -> bool:
        return self._give_up is not None and self._clock.monotonic() - self._left > self._give_up

    async def _attend(self) -> PipelineError | None:
        """Connect and take messages until the connection ends; return why, or None when the session has ended."""
        token: Token | None = None
        socket: Socket | None = None
        usable: asyncio.TimerHandle | None = None
        silence = 0.0
        try:
            token = await self._service.transport.tokens.get()
            socket = await self._open(token)
            self.connections += 1
            self._socket = socket
            usable = asyncio.get_running_loop().call_later(REFUSAL_TIME, self._changed.set)
            await self._make_good()
            while self.ended is None:
                data = await socket.receive()
                self._changed.set()
                await self._take(data)
        except SessionAuthenticationError as error:
            return error if token is None else await self._after_refusal(token, error)
        except PipelineError as error:
            silence = self._options.silence if isinstance(error, SilentConnectionError) else 0.0
            return error
        finally:
            if usable is not None:
                usable.cancel()
            if self._changed.is_set():
                self._left = self._clock.monotonic() - silence
            self._socket = None
            self._changed.clear()
            if socket is not None:
                await socket.close()
        return None

    async def _open(self, token: Token) -> Socket:
        while True:
            try:
                return await Socket.open(self._service, self.session_id, self._options, self._paths[0], token)
            except NotHereError as error:
                if len(self._paths) == 1 or self.connections:
                    raise SessionNotFoundError(error.what, where=error.where) from None
            self._paths.pop(0)

    async def _after_refusal(self, token: Token, error: SessionAuthenticationError) -> PipelineError:
        """What a refused token means: connecting again with another one, or the end."""
        tokens = self._service.transport.tokens
        if self._renewed:
            tokens.deny(token, _CAUSE)
            return error
        self._renewed = True
        try:
            another = await tokens.after_refusal(token, _CAUSE)
        except PipelineError as failure:
            return failure
        return error if another is None else ConnectionLostError("The token had expired.", where=self._where)

    async def _make_good(self) -> None:
        """Take from the history what the connection will not bring: at first all that is wanted, later an absence too long."""
        away = self._clock.monotonic() - self._left
        if not (self._lagging or away > BUFFER - MARGIN if self._heard else self._history):
            return
        now = self._clock.now()
        self._missing = self._missing or now - away
        try:
            await self._absorb(await self._rest.history(self.session_id))
        except PipelineError as error:
            self._lagging = True
            self._fills += 1
            if isinstance(error, TemporaryError) and self._fills < FILL_TRIES:
                raise
            self.gaps.append(Gap(self._missing, now, error.code))
        self._lagging, self._missing, self._fills = False, 0.0, 0

    async def _absorb(self, past: Sequence[Message]) -> None:
        """Keep of a history what is new: all that is not known at first, then what follows the last known message."""
        if self._heard:
            known = [index for index, message in enumerate(past) if message.id in self._seen]
            past = past[known[-1] + 1 :] if known else past
        for message in past:
            await self._keep(message)

    async def _take(self, data: str | bytes) -> None:
        message = decode(data)
        self._renewed = False
        if message is None:
            self.malformed += 1
        elif self._resolve(message):
            pass
        elif message.type == "history":
            if self._history or self._heard:
                await self._absorb(unfold(message))
        else:
            await self._keep(message)
        self._heard = True

    async def _keep(self, message: Message) -> None:
        if message.type in URLS:
            return
        if not self._seen.add(message.id):
            self.duplicates += 1
            return
        self._backoff.reset()
        self._lagging |= await self._inbox.put(message)
        if message.type == SESSION_END:
            code = message.payload.get("exit_code")
            self.ended = End(text(message.payload, "reason"), code if isinstance(code, int) else None)

    async def _learn_end(self) -> None:
        """Ask whether and how the session has ended. Raises `SessionNotFoundError`, and other permanent errors."""
        try:
            info = await self._rest.get(self.session_id)
        except NotFoundError as error:
            raise SessionNotFoundError(error.what, where=self._where) from None
        except TemporaryError:
            return
        if info.status == "ended":
            self.ended = End(info.end_reason, info.exit_code)
