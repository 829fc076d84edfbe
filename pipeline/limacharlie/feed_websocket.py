"""A stream over a WebSocket: one JSON object in, then one message a record; given out as lines, like the other form."""

from __future__ import annotations

import aiohttp
import orjson
from aiohttp import WSCloseCode, WSMsgType

from pipeline.limacharlie.feed import Ending, Feed
from pipeline.limacharlie.token import Token

_CLOSE_TIME = 1.0
"""Seconds that the other side has to answer our close."""
_ORDERLY = frozenset((WSCloseCode.OK, WSCloseCode.GOING_AWAY))


class WebSocketFeed(Feed):
    _socket: aiohttp.ClientWebSocketResponse[bool] | None = None

    async def _connect(self, token: Token) -> None:
        session = await self._transport.session()
        problem = None
        try:
            self._socket = await session.ws_connect(
                self._url,
                timeout=aiohttp.ClientWSTimeout(ws_close=_CLOSE_TIME),
                max_msg_size=self._subscription.max_message,
                autoping=False,  # a ping is a sign of life, which `receive` must show
                decode_text=False,
            )
        except aiohttp.WSServerHandshakeError as fault:
            problem = self._transport.failure(fault.status, fault.headers or {}, "", where=self._url)
        if problem is not None:  # outside of the handler: the fault holds the request
            raise problem
        assert self._socket is not None
        oid = self._transport.credentials.oid
        request = {"oid": oid, **self._request(token), "resume_context": {"oid": oid}}
        await self._socket.send_str(orjson.dumps(request).decode())

    async def _read(self) -> bytes | Ending:
        assert self._socket is not None
        message = await self._socket.receive()
        kind = message.type
        if kind in (WSMsgType.TEXT, WSMsgType.BINARY):
            return _line(message.data)
        if kind is WSMsgType.PING:
            await self._socket.pong(message.data)
            return b""
        if kind is WSMsgType.PONG:
            return b""
        if kind is WSMsgType.CLOSE:
            return self._closed(message.data, self._transport.scrub(str(message.extra or "")))
        if kind is WSMsgType.ERROR:
            too_large = getattr(message.data, "code", 0) == WSCloseCode.MESSAGE_TOO_BIG
            most = f"a message is larger than {self._subscription.max_message} bytes"
            return Ending("broken", most if too_large else "what came is no WebSocket message")
        return Ending("broken", "the connection ended without a close")

    def _closed(self, code: int, text: str) -> Ending:
        if code in _ORDERLY:
            return Ending("ended", text)
        if text:
            # What it says is why the stream is refused, as an error message in the stream would be.
            self._put(orjson.dumps({"error": text}) + b"\n")
        return Ending("ended", f"closed with {code}")

    async def _leave(self) -> None:
        if self._socket is not None:
            await self._socket.close()

    def close(self) -> None:
        socket, self._socket = self._socket, None
        if socket is not None and not socket.closed:
            socket._response.close()  # noqa: SLF001 - the polite way waits for the other side


def _line(message: bytes) -> bytes:
    """A message as one line. A line end within JSON can only stand between its words, where a space means the same."""
    message = message.strip(b"\r\n")
    if b"\n" in message or b"\r" in message:
        message = message.replace(b"\r", b" ").replace(b"\n", b" ")
    return message + b"\n"
