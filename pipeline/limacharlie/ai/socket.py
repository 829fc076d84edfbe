"""One WebSocket connection to a session: how it is opened, kept alive, and what its end means."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal
from urllib.parse import quote

import aiohttp
import orjson

from pipeline.core.errors import PipelineError, RateLimitedError, RequestRefusedError, UnavailableError
from pipeline.kit.http import FAULTS, clean, describe, retry_after
from pipeline.limacharlie.ai.errors import UPGRADE_STATUS, ConnectionLostError, SilentConnectionError, closed
from pipeline.limacharlie.ai.service import AiService
from pipeline.limacharlie.answers import segment
from pipeline.limacharlie.throttle import MAX_PAUSE
from pipeline.limacharlie.token import Token

MAX_SENT = 1_000_000
"""Bytes of a message that we send."""
MAX_RECEIVED = 10 << 20
"""Bytes of a message that we take; LimaCharlie says 1 MB, but puts a whole history into one."""
SEND_TIME = 10.0
"""Seconds until a message that the other side does not take means a lost connection."""
CLOSE_TIME = 2.0
_ELSEWHERE = frozenset((400, 404, 405, 426, 501))
"""What a place without WebSockets answers to an upgrade."""
HEARTBEAT = orjson.dumps({"type": "heartbeat"}).decode()

View = Literal["owner", "org"]
Paths = Literal["documented", "proxy"]


@dataclass(frozen=True, slots=True)
class SocketOptions:
    """How to connect; all times are in seconds."""

    view: View = "owner"
    """``org``: look on at a session of the organization, without a say."""
    paths: Paths | None = None
    """``/v1/sessions/{id}/ws`` as documented, or ``/v1/ws/sessions/{id}`` as LimaCharlie's tools; by default what is there."""
    auth: Literal["header", "query"] = "header"
    """Where the token travels. In the query it may end up in logs of others."""
    connect_timeout: float = 10.0
    heartbeat: float = 30.0
    silence: float = 60.0
    """Without anything received for so long, the connection is dead."""


class NotHereError(RequestRefusedError):
    """There is no WebSocket under this path."""


class Socket:
    """An open connection. `open` makes one; `receive` until it raises why it ended; `close` in any case."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse, options: SocketOptions, where: str) -> None:
        self._socket = socket
        self._options = options
        self._where = where
        self._heart = asyncio.create_task(self._beat())

    @classmethod
    async def open(
        cls, service: AiService, session_id: str, options: SocketOptions, paths: Paths, token: Token
    ) -> Socket:
        """Connect. Raises `NotHereError`, and what `closed` makes of a refused upgrade."""
        where = f"AI session {clean(session_id)}"
        url = await service.base() + _path(session_id, options.view, paths)
        headers = service.identity() if options.view == "org" else {}
        if options.auth == "query":
            url += f"?token={quote(token.text, safe='')}"
        else:
            headers["Authorization"] = f"Bearer {token.text}"
        session = await service.transport.session()
        problem: PipelineError
        try:
            async with asyncio.timeout(options.connect_timeout):
                socket = await session.ws_connect(
                    url,
                    headers=headers,
                    max_msg_size=MAX_RECEIVED,
                    timeout=aiohttp.ClientWSTimeout(ws_close=CLOSE_TIME),
                )
            return cls(socket, options, where)
        except aiohttp.WSServerHandshakeError as fault:
            now = service.transport.clock.now()
            problem = _refused(fault.status, fault.headers or {}, now=now, where=where)
        except FAULTS as fault:
            problem = ConnectionLostError(f"The session cannot be reached: {describe(fault)}.", where=where)
        # Outside of the handlers: the fault holds the request, and that the token.
        raise problem

    async def receive(self) -> str | bytes:
        """Return the next message. Raises the error for why there is none, which is temporary where connecting again may help."""
        try:
            message = await self._socket.receive(timeout=self._options.silence)
        except TimeoutError:
            message = None
        if message is None:
            raise SilentConnectionError(f"Nothing came for {self._options.silence:g} s.", where=self._where)
        if message.type in (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY):
            data: str | bytes = message.data
            return data
        if message.type is aiohttp.WSMsgType.CLOSE:
            raise closed(message.data, clean(str(message.extra or "")), where=self._where)
        if message.type is aiohttp.WSMsgType.ERROR:
            raise ConnectionLostError("The connection broke, or a message was not WebSocket's.", where=self._where)
        raise closed(self._socket.close_code, "", where=self._where)

    async def send(self, data: str) -> None:
        """Hand a message to the system. Raises `ConnectionLostError` where that cannot be done."""
        problem = ""
        try:
            async with asyncio.timeout(SEND_TIME):
                await self._socket.send_str(data)
        except FAULTS as fault:
            problem = describe(fault)
        if problem:
            raise ConnectionLostError(f"The message could not be sent: {problem}.", where=self._where)

    async def close(self) -> None:
        """Close in order if the other side lets us. Safe to call twice."""
        self._heart.cancel()
        try:
            await asyncio.gather(self._heart, return_exceptions=True)
        finally:
            await self._socket.close()

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(self._options.heartbeat)
            try:
                await self.send(HEARTBEAT)
            except ConnectionLostError:
                # The reader must learn of it too, even where the other side says nothing.
                await self._socket.close()
                return


def _path(session_id: str, view: View, paths: Paths) -> str:
    name = segment(session_id)
    if view == "org":
        return f"/v1/ws/org/sessions/{name}"
    return f"/v1/sessions/{name}/ws" if paths == "documented" else f"/v1/ws/sessions/{name}"


def _refused(status: int, headers: Mapping[str, str], *, now: float, where: str) -> PipelineError:
    what = f"The session's WebSocket was answered {status}."
    after = retry_after(headers, now, most=MAX_PAUSE)
    if status == 429:
        return RateLimitedError(what, where=where, after=after)
    if status >= 500 and status not in _ELSEWHERE:
        return UnavailableError(what, where=where, after=after)
    if status in _ELSEWHERE:
        return NotHereError(what, where=where)
    return (
        closed(UPGRADE_STATUS[status], "", where=where)
        if status in UPGRADE_STATUS
        else RequestRefusedError(what, where=where)
    )
