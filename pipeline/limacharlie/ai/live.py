"""A session as it goes on: following it, and a say in it."""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import orjson

from pipeline.core.errors import RequestRefusedError, UnavailableError
from pipeline.limacharlie.ai.errors import (
    ConnectionLostError,
    ForeignSessionError,
    MessageTooLargeError,
    SessionEndedError,
)
from pipeline.limacharlie.ai.follow import URLS, Follower
from pipeline.limacharlie.ai.message import Message
from pipeline.limacharlie.ai.service import AiService
from pipeline.limacharlie.ai.socket import MAX_SENT, Socket, SocketOptions
from pipeline.limacharlie.ai.transfer import Mover, Source, Ticket, describe_file
from pipeline.limacharlie.answers import Doc, text

RATE = 90
"""Messages that we send in any second; LimaCharlie takes 100, but its seconds are not ours."""
REPLY_TIME = 30.0
"""Seconds until a request within the session must be answered, and until there must be a connection to send on."""


class LiveSession(Follower):
    """Follows a session and speaks in it: ``async with ai.attach(session_id) as live``.

    What is said raises `SessionEndedError`, `ForeignSessionError` where we may only look on, `MessageTooLargeError`, and
    `ConnectionLostError` where there is no connection in time, or it breaks meanwhile: then the message may have arrived.
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
        super().__init__(service, session_id, options, seen=seen, history=history, give_up=give_up)
        self._mover = Mover(service.transport)
        self._sending = asyncio.Lock()
        self._sent: deque[float] = deque(maxlen=RATE)
        self._waiting: dict[str, asyncio.Future[Doc]] = {}
        self._numbers = itertools.count(1)

    async def prompt(self, words: str) -> None:
        """Say something to the assistant."""
        await self._say("prompt", {"text": words})

    async def interrupt(self) -> None:
        """Stop what the assistant does now."""
        await self._say("interrupt")

    async def approve(
        self,
        tool_use_id: str,
        approved: bool = True,
        *,
        scope: Literal["once", "session"] = "once",
        pattern: str | None = None,
        updated_input: Mapping[str, Any] | None = None,
        message: str | None = None,
    ) -> None:
        """Answer a ``tool_approval_request``; ``message`` tells the assistant why, ``updated_input`` changes the tool's input."""
        payload: Doc = {"tool_use_id": tool_use_id, "approved": approved, "approval_scope": scope}
        extra = {"approval_pattern": pattern, "updated_input": updated_input, "message": message}
        await self._say("tool_approval_response", payload | {k: v for k, v in extra.items() if v is not None})

    async def answer(self, question_id: str, answers: Mapping[str, str]) -> None:
        """Answer an ``ask_user_question``: answers by question."""
        await self._say("ask_user_question_response", {"question_id": question_id, "answers": dict(answers)})

    async def upload(self, source: Source, *, filename: str | None = None, content_type: str | None = None) -> str:
        """Put a file into the session, verified; return its path there. Raises also `FileTooLargeError` and `TransferError`."""
        offer = await describe_file(source, filename, content_type)
        request = self._request_id()

        async def ask() -> Ticket:
            return Ticket.read(await self._ask("upload_request", request, offer), self._where)

        ticket = await self._mover.upload(ask, source, offer)
        done = {"request_id": request, "filename": offer["filename"], "path": ticket.target}
        await self._say("upload_complete", done)
        return ticket.target

    async def download(self, path: str, target: Path | None = None) -> bytes:
        """Get a file of the session, verified; with ``target`` it is written there and b"" returned. Raises also `TransferError`."""
        request = self._request_id()

        async def ask() -> Ticket:
            return Ticket.read(await self._ask("download_request", request, {"path": path}), self._where)

        return await self._mover.download(ask, target)

    def _request_id(self) -> str:
        return f"req_{next(self._numbers)}_{id(self):x}"

    async def _ask(self, kind: str, request: str, payload: Doc) -> Doc:
        """Ask for a signed URL. Raises `RequestRefusedError`, or `UnavailableError` when no answer comes."""
        self._waiting[request] = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(REPLY_TIME):
                await self._say(kind, {"request_id": request, **payload})
                return await self._waiting[request]
        except TimeoutError:
            pass
        finally:
            del self._waiting[request]
        raise UnavailableError("LimaCharlie did not answer the request for a file.", where=self._where)

    def _resolve(self, message: Message) -> bool:
        """Hand the answer to who waits for it."""
        waiting = self._waiting.get(text(message.payload, "request_id"))
        if waiting is None or waiting.done() or message.type not in (*URLS, "error"):
            return message.type in URLS
        if message.type == "error":
            words = self._service.transport.scrub(message.text)
            waiting.set_exception(RequestRefusedError(f"LimaCharlie refuses: {words}.", where=self._where))
        else:
            waiting.set_result(message.payload)
        return True

    async def _say(self, kind: str, payload: Doc | None = None) -> None:
        if self._options.view == "org":
            raise ForeignSessionError("This view of the session is read-only.", where=self._where)
        data = orjson.dumps({"type": kind, **({"payload": payload} if payload is not None else {})})
        if len(data) > MAX_SENT:
            raise MessageTooLargeError(
                f"The message has {len(data)} bytes.", where=self._where, fix="Upload it as a file, and name the file."
            )
        async with self._sending:
            await self._pace()
            await (await self._connected()).send(data.decode())

    async def _pace(self) -> None:
        """Stay below the limit of messages in a second."""
        if len(self._sent) == RATE:
            await asyncio.sleep(self._sent[0] + 1.0 - self._clock.monotonic())
        self._sent.append(self._clock.monotonic())

    async def _connected(self) -> Socket:
        while True:
            try:
                async with asyncio.timeout(REPLY_TIME):
                    await self._changed.wait()
            except TimeoutError:
                # How long a session takes to start is LimaCharlie's to say, and to end.
                if self._is_starting:
                    continue
            break
        if self._socket is not None:
            return self._socket
        if self._task is not None and self._task.done() and not self._task.cancelled():
            self._task.result()  # raises why there will be no connection any more
        if self.ended is not None:
            raise SessionEndedError("The session has ended.", where=self._where, fix="Fork it to go on.")
        raise ConnectionLostError("There is no connection to the session.", where=self._where)
