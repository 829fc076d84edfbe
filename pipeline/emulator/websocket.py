"""The spout over a WebSocket: one JSON object in, then one message a record."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

import orjson
from aiohttp import WSCloseCode, WSMsgType, web

from pipeline.emulator.access import Access
from pipeline.emulator.connections import Connection
from pipeline.emulator.faults import Faults
from pipeline.emulator.front import Peer, confirmed, peer_of, reset
from pipeline.emulator.hub import Hub
from pipeline.emulator.selection import Selection, UnsupportedError
from pipeline.emulator.shape import Framer
from pipeline.emulator.state import Org
from pipeline.emulator.streams import connect_delay, file_name

FIRST_MESSAGE_TIMEOUT = 10.0
CLOSE_TIMEOUT = 10.0
MAX_MESSAGE = 1 << 20


class RefusedError(Exception):
    """The subscription is refused; the text is what the client is told."""


class MessageWire:
    """Makes a message of each line that is written."""

    def __init__(self, socket: web.WebSocketResponse, peer: Peer) -> None:
        self._socket = socket
        self._peer = peer
        self._part = b""

    async def write(self, data: bytes) -> None:
        *lines, self._part = (self._part + data).split(b"\n")
        for line in lines:
            await self._socket.send_frame(line, WSMsgType.TEXT)

    async def end(self, settle: Callable[[bool], None]) -> None:
        await confirmed(self._peer.transport, lambda: self._peer.is_lost)
        # waits for the peer's own close message
        await self._socket.close()
        settle(self._socket.close_code == WSCloseCode.OK)

    def cut(self) -> None:
        """The head of a message that promises more than comes, for what was written without an end."""
        part = self._part
        self._peer.transport.write(b"\x81\x7e" + (len(part) + 1000).to_bytes(2) + part)
        self._peer.transport.close()

    def abort(self) -> None:
        reset(self._peer.transport)


class WebSocketService:
    """``GET /ws`` with an upgrade. A refusal is a message ``{"error": …}`` and a close with its text."""

    def __init__(self, hub: Hub, access: Access, faults: Faults) -> None:
        self._hub = hub
        self._access = access
        self._faults = faults

    def routes(self) -> list[web.RouteDef]:
        return [web.get(path, self.serve) for path in ("/ws", "/stream/ws")]

    async def serve(self, request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse(timeout=CLOSE_TIMEOUT, max_msg_size=MAX_MESSAGE, compress=False)
        if not socket.can_prepare(request):
            return web.json_response({"error": "a WebSocket is served here"}, status=426)
        await socket.prepare(request)
        try:
            await self._serve(request, socket)
        except RefusedError as error:
            await _refuse(socket, str(error))
        except ConnectionError:
            pass  # the peer left before the stream began; nobody is there to be told
        return socket

    async def _serve(self, request: web.Request, socket: web.WebSocketResponse) -> None:
        form = await _first_message(socket)
        org = self._access.stream(form.get("oid", ""), form)
        if org is None:
            raise RefusedError("unauthorized")
        stream = form.get("type", "")
        if not stream:
            raise RefusedError("missing stream type")
        opening = self._faults.opening(oid=org.oid, stream=stream)
        if opening is not None:
            if opening.line:
                await socket.send_str(opening.line)
            await socket.close()
            return
        try:
            selection = Selection(form)
        except UnsupportedError as error:
            raise RefusedError(str(error)) from None
        await self._hub.sleep(connect_delay(self._faults, self._hub))
        await self._stream(request, socket, org, stream, selection)

    async def _stream(
        self, request: web.Request, socket: web.WebSocketResponse, org: Org, stream: str, selection: Selection
    ) -> None:
        feed = self._hub.live.subscribe(org, stream, selection)
        peer = peer_of(request)
        connection = Connection(
            via="ws",
            oid=org.oid,
            stream=stream,
            name="",
            feed=feed,
            entry=self._hub.ledger.connection("ws", file_name(stream)),
            framer=Framer(),
            shapes=self._hub.shapes,
            wire=MessageWire(socket, peer),
            keepalive=self._hub.settings.keepalive,
        )
        connection.say(b'{"__trace":"connected"}')
        peer.on_lost(connection.leave)
        watch = asyncio.create_task(_watch(socket, connection))
        try:
            with self._hub.open(connection):
                await connection.serve()
        finally:
            watch.cancel()
            await asyncio.gather(watch, return_exceptions=True)
            self._hub.live.unsubscribe(org, stream, feed)


async def _watch(socket: web.WebSocketResponse, connection: Connection) -> None:
    """Answer pings and see the peer close; what else it says does not matter."""
    async for _ in socket:
        pass
    connection.leave()


async def _first_message(socket: web.WebSocketResponse) -> Mapping[str, str]:
    try:
        async with asyncio.timeout(FIRST_MESSAGE_TIMEOUT):
            message = await socket.receive()
    except TimeoutError:
        raise RefusedError("no subscription") from None
    if message.type in (WSMsgType.CLOSE, WSMsgType.CLOSING, WSMsgType.CLOSED, WSMsgType.ERROR):
        raise ConnectionResetError("the peer has left")
    try:
        given = orjson.loads(message.data)
    except orjson.JSONDecodeError:
        given = None
    if not isinstance(given, dict):
        raise RefusedError("the subscription is not a JSON object")
    # options are texts, but clients may send what a text stands for
    return {
        name: value if isinstance(value, str) else orjson.dumps(value).decode()
        for name, value in given.items()
        if value is not None and not isinstance(value, dict)
    }


async def _refuse(socket: web.WebSocketResponse, text: str) -> None:
    try:
        await socket.send_str(orjson.dumps({"error": text}).decode())
        await socket.close(code=WSCloseCode.POLICY_VIOLATION, message=text.encode()[:120])
    except ConnectionError:
        pass  # it left before it was told
