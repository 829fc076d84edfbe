"""The WebSocket of an AI session, under the paths of the documents and of the SDK."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import orjson
from aiohttp import WSMsgType, web

from pipeline.emulator.access import refuse
from pipeline.emulator.ai_access import Callers, owner_of
from pipeline.emulator.ai_files import RefusedError, Storage
from pipeline.emulator.ai_session import Doc, Session, Window
from pipeline.emulator.ai_state import Ai, SocketFault
from pipeline.emulator.front import Peer, peer_of, reset

MAX_MESSAGE = 1 << 20
MESSAGES_PER_SECOND = 100
ANSWERS = {"tool_approval_response": "tool_use_id", "ask_user_question_response": "question_id"}

UNAUTHENTICATED, FOREIGN, UNKNOWN, NOT_RUNNING, ENDED, RESET, FAILED = 4001, 4003, 4004, 4009, 4100, 4101, 4500


class SocketService:
    def __init__(self, ai: Ai, callers: Callers, storage: Storage) -> None:
        self._ai = ai
        self._callers = callers
        self._storage = storage

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/v1/sessions/{session}/ws", self.documented),
            web.get("/v1/ws/sessions/{session}", self.interactive),
            web.get("/v1/ws/org/sessions/{session}", self.read_only),
        ]

    async def documented(self, request: web.Request) -> web.StreamResponse:
        """Refuses by close codes."""
        session, code = self._find(request)
        return await self._serve(request, session, code)

    async def interactive(self, request: web.Request) -> web.StreamResponse:
        """Refuses another's session before the upgrade, and begins with the history."""
        session, code = self._find(request)
        if code == FOREIGN:
            raise refuse(web.HTTPForbidden, "session belongs to a different user")
        return await self._serve(request, session, code, history=True)

    async def read_only(self, request: web.Request) -> web.StreamResponse:
        """For all who may see the organization's sessions; takes nothing but heartbeats."""
        session = self._ai.sessions.get(request.match_info["session"])
        code: int | None = None
        try:
            grant = self._callers.grant(request, query=True)
        except web.HTTPUnauthorized:
            session, code = None, UNAUTHENTICATED
        else:
            if session is None or session.oid is None:
                code = UNKNOWN
            elif grant.missing(session.oid, ("ai_agent.get",)):
                raise refuse(web.HTTPForbidden, "missing permission ai_agent.get")
        return await self._serve(request, session, code, history=True, read_only=True)

    def _find(self, request: web.Request) -> tuple[Session | None, int | None]:
        """The session, or the close code for why not."""
        try:
            owner = owner_of(self._callers.grant(request, query=True))
        except web.HTTPUnauthorized:
            return None, UNAUTHENTICATED
        session = self._ai.sessions.get(request.match_info["session"])
        if session is None:
            return None, UNKNOWN
        return (session, None) if session.owner == owner else (None, FOREIGN)

    async def _serve(
        self,
        request: web.Request,
        session: Session | None,
        code: int | None,
        *,
        history: bool = False,
        read_only: bool = False,
    ) -> web.StreamResponse:
        fault = self._ai.fault(session.id) if session is not None else None
        response = web.WebSocketResponse(max_msg_size=MAX_MESSAGE + 1, compress=False)
        await response.prepare(request)
        if session is None or code is not None:
            await response.close(code=code or UNKNOWN)
        elif fault is not None and fault.code is not None:
            await response.close(code=fault.code, message=fault.reason.encode())
        elif session.status == "starting":
            await response.close(code=NOT_RUNNING, message=b"session is starting")
        else:
            origin = str(request.url.origin())
            socket = Socket(
                self._ai, session, response, peer_of(request), self._storage, origin, fault or SocketFault()
            )
            self._ai.sockets.add(socket)
            try:
                await socket.run(history=history, read_only=read_only)
            finally:
                self._ai.sockets.discard(socket)
        return response


class Socket:
    """One client that is attached to a session."""

    def __init__(
        self,
        ai: Ai,
        session: Session,
        response: web.WebSocketResponse,
        peer: Peer,
        storage: Storage,
        origin: str,
        fault: SocketFault,
    ) -> None:
        self.session = session
        self.limit = fault.limit
        """Messages of the client that are yet to be refused as too many."""
        self._ai = ai
        self._response = response
        self._peer = peer
        self._storage = storage
        self._origin = origin
        self._fault = fault
        self._news = asyncio.Event()
        self._rate = Window(MESSAGES_PER_SECOND, 1.0)
        self._end: tuple[int, str] | None = None
        self._silent = False
        self._lost = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self, *, history: bool, read_only: bool) -> None:
        """Serve until either side ends it."""
        self.session.listeners.add(self._news.set)
        self._tasks = {
            asyncio.create_task(work)
            for work in (self._write(history=history), self._read(read_only=read_only), self._ping())
        }
        if self._fault.silent:
            self.silence()
        self._peer.on_lost(self._lost.set)
        try:
            done, _ = await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
            if self._silent:
                await self._lost.wait()
            for task in done:
                if not task.cancelled() and not isinstance(task.exception(), ConnectionError):
                    task.result()
        finally:
            self.session.listeners.discard(self._news.set)
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            if not self._silent and not self._response.closed:
                code, reason = self._end or (1001, "")
                with contextlib.suppress(ConnectionError, TimeoutError):
                    async with asyncio.timeout(2.0):
                        await self._response.close(code=code, message=reason.encode())

    def close(self, code: int, reason: str = "") -> None:
        """Close with a code after what was sent."""
        self._end = (code, reason)
        self._news.set()

    def silence(self) -> None:
        """Neither send nor read from now on, but stay open."""
        self._silent = True
        for task in self._tasks:
            task.cancel()

    def drop(self, how: str) -> None:
        """Break the connection: ``reset``, or ``half``: end our side only and then say nothing more."""
        if self._peer.is_lost:
            return
        if how == "half":
            self.silence()
            if self._peer.transport.can_write_eof():
                self._peer.transport.write_eof()
        else:
            reset(self._peer.transport)

    async def _write(self, *, history: bool) -> None:
        session, fault = self.session, self._fault
        begin = session.since(self._ai.timing.buffer)
        old = session.history(begin) if history else []
        if old:
            await self._send(session.envelope("history", {"messages": old}))
        for _ in range(1, fault.copies):
            for number in range(begin, session.end):
                await self._send(session.message(number))
        cursor = begin
        while self._end is None:
            self._news.clear()
            cursor = max(cursor, session.first)
            while cursor < session.end:
                if fault.after is not None and cursor - begin >= fault.after:
                    self.drop("reset")
                    return
                await self._send(session.message(cursor))
                cursor = max(cursor + 1, session.first)
            if session.status == "ended":
                if cursor == begin:
                    # it ended long ago: what tells of it is not in the buffer any more
                    await self._send(
                        session.envelope("session_end", {"reason": session.end_reason, "exit_code": session.exit_code})
                    )
                self.close(ENDED, "session ended")
                return
            await self._news.wait()

    async def _send(self, data: bytes) -> None:
        await self._response.send_str(data.decode())

    async def _reply(self, kind: str, payload: Doc) -> None:
        await self._send(self.session.envelope(kind, payload))

    async def _error(self, code: str, message: str) -> None:
        await self._reply("error", {"code": code, "message": message})

    async def _ping(self) -> None:
        while True:
            await asyncio.sleep(self._ai.timing.ping)
            await self._response.ping()

    async def _read(self, *, read_only: bool) -> None:
        try:
            async with asyncio.timeout(self._ai.timing.idle) as idle:
                while True:
                    message = await self._response.receive()
                    if message.type not in (WSMsgType.TEXT, WSMsgType.BINARY):
                        return
                    idle.reschedule(asyncio.get_running_loop().time() + self._ai.timing.idle)
                    await self._take(message.data, read_only=read_only)
        except TimeoutError:
            self.close(RESET, "inactive")

    async def _take(self, data: str | bytes, *, read_only: bool) -> None:
        if self.limit > 0 or self._rate.take() > 0:
            self.limit = max(0, self.limit - 1)
            await self._error("rate_limited", "Rate limit exceeded")
            return
        try:
            doc: Any = orjson.loads(data)
        except ValueError:
            doc = None
        kind = doc.get("type") if isinstance(doc, dict) else None
        payload = doc.get("payload") if isinstance(doc, dict) else None
        payload = payload if isinstance(payload, dict) else {}
        if kind == "heartbeat":
            return
        if read_only:
            await self._error("invalid_message", "This connection is read-only")
        elif self.session.status != "running":
            await self._error("session_not_running", "Session is not in running state")
        elif kind in ANSWERS:
            waiting = self.session.answers.pop(str(payload.get(ANSWERS[kind])), None)
            if waiting is None:
                await self._error("invalid_message", "Nobody waits for this answer")
            elif not waiting.done():
                waiting.set_result(payload)
        elif kind == "prompt":
            await self._prompt(payload.get("text"))
        elif kind == "interrupt":
            if self.session.turn is not None:
                self.session.turn.cancel()
        elif kind in ("upload_request", "upload_complete", "download_request"):
            await self._transfer(kind, payload)
        else:
            await self._error("invalid_message", "Malformed message received")

    async def _prompt(self, text: object) -> None:
        session = self.session
        turns, budget = session.profile.get("max_turns"), session.profile.get("max_budget_usd")
        if not isinstance(text, str) or not text:
            await self._error("invalid_message", "A prompt needs a text")
        elif session.prompted.take() > 0 or session.prompts.full():
            await self._error("rate_limited", "Too many prompts")
        elif isinstance(turns, int) and session.turns >= turns:
            await self._error("session_not_running", "The session has had its turns")
        elif isinstance(budget, int | float) and session.cost_usd >= budget:
            await self._error("session_not_running", "The session has used its budget")
        else:
            session.prompts.put_nowait(text)

    async def _transfer(self, kind: str, payload: Doc) -> None:
        request = str(payload.get("request_id", ""))
        try:
            if kind == "upload_request":
                if self.session.uploads.take() > 0:
                    await self._error("rate_limited", "Too many uploads")
                    return
                signed = self._storage.upload(self.session, payload, self._origin)
                await self._reply("upload_url", {"request_id": request, **signed})
            elif kind == "upload_complete":
                path = self._storage.complete(self.session, path=payload.get("path"))
                self.session.emit("system", {"message": f"File uploaded: {path}"})
            else:
                signed = self._storage.download(self.session, payload.get("path"), self._origin)
                await self._reply("download_url", {"request_id": request, **signed})
        except RefusedError as error:
            await self._reply("error", {"code": "invalid_message", "message": error.text, "request_id": request})
