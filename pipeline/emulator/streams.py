"""The spout service: a form in, an endless chunked answer of JSON lines out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress

from aiohttp import web

from pipeline.emulator.access import Access
from pipeline.emulator.connections import Connection
from pipeline.emulator.faults import Faults
from pipeline.emulator.front import Peer, confirmed, peer_of, reset
from pipeline.emulator.hub import Hub
from pipeline.emulator.selection import Selection, UnsupportedError
from pipeline.emulator.shape import Framer
from pipeline.emulator.state import Org

CONNECT_DELAY = 1.0
"""Seconds between the answer's head and the moment from which records flow, as seen in the cloud."""

CLOSE_TIMEOUT = 10.0
"""Seconds that a peer has to close after the end, where the server would close right after."""


class StreamWire:
    """The chunked response."""

    def __init__(self, request: web.Request, response: web.StreamResponse, peer: Peer) -> None:
        self._request = request
        self._response = response
        self._peer = peer

    async def write(self, data: bytes) -> None:
        await self._response.write(data)

    async def end(self, settle: Callable[[bool], None]) -> None:
        await confirmed(self._peer.transport, lambda: self._peer.is_lost)
        settled = asyncio.Event()

        def done(orderly: bool) -> None:
            settle(orderly)
            settled.set()

        self._peer.settle(done)
        await self._response.write_eof()
        if not self._request.keep_alive:
            # the server closes as soon as the handler is done, and would not see how the peer does
            with suppress(TimeoutError):
                async with asyncio.timeout(CLOSE_TIMEOUT):
                    await settled.wait()
            settle(False)

    def cut(self) -> None:
        self._peer.transport.close()

    def abort(self) -> None:
        reset(self._peer.transport)


class StreamService:
    """``POST /{oid}``, in two manners.

    `stream` refuses with a status; `stream-tmp` answers 200 first and puts a line ``error: …`` into the body.
    """

    def __init__(self, hub: Hub, access: Access, faults: Faults) -> None:
        self._hub = hub
        self._access = access
        self._faults = faults

    def routes(self) -> list[web.RouteDef]:
        return [
            web.post("/stream/{oid}", self.stream),
            web.post("/stream-tmp/{oid}", self.stream_tmp),
            web.post("/{oid}", self.by_host),
        ]

    async def by_host(self, request: web.Request) -> web.StreamResponse:
        early = request.host.startswith("stream.")
        return await (self.stream(request) if early else self.stream_tmp(request))

    async def stream(self, request: web.Request) -> web.StreamResponse:
        org, form = await self._enter(request)
        if org is None:
            return web.Response(status=401, text="unauthorized")
        return await self._answer(request, org, form)

    async def stream_tmp(self, request: web.Request) -> web.StreamResponse:
        org, form = await self._enter(request)
        return await self._answer(request, org, form)

    async def _enter(self, request: web.Request) -> tuple[Org | None, dict[str, str]]:
        form = {key: value for key, value in (await request.post()).items() if isinstance(value, str)}
        return self._access.stream(request.match_info["oid"], form), form

    async def _answer(self, request: web.Request, org: Org | None, form: Mapping[str, str]) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
        response.enable_chunked_encoding()
        await response.prepare(request)
        try:
            if org is None:
                await response.write(b"error: unauthorized\n")
            else:
                await self._serve(request, response, org, form)
        except ConnectionError:
            pass  # the peer left before the stream began; nobody is there to be told
        return response

    async def _serve(
        self, request: web.Request, response: web.StreamResponse, org: Org, form: Mapping[str, str]
    ) -> None:
        peer = peer_of(request)
        stream = form.get("type", "")
        opening = self._faults.opening(oid=org.oid, stream=stream)
        if opening is not None:
            if opening.line:
                await response.write(opening.line.encode() + b"\n")
            return
        try:
            selection = Selection(form)
        except UnsupportedError as error:
            await response.write(f"error: {error}\n".encode())
            return
        if not stream:
            await response.write(b"error: missing stream type\n")
            return
        await self._hub.sleep(connect_delay(self._faults, self._hub))
        feed = self._hub.live.subscribe(org, stream, selection)
        connection = Connection(
            via="spout",
            oid=org.oid,
            stream=stream,
            name="",
            feed=feed,
            entry=self._hub.ledger.connection("spout", file_name(stream)),
            framer=Framer(),
            shapes=self._hub.shapes,
            wire=StreamWire(request, response, peer),
            keepalive=self._hub.settings.keepalive,
        )
        connection.say(b'{"__trace":"connected"}')
        peer.on_lost(connection.leave)
        with self._hub.open(connection):
            await connection.serve()
        self._hub.live.unsubscribe(org, stream, feed)


def connect_delay(faults: Faults, hub: Hub) -> float:
    """Return the seconds until a new stream says `connected`."""
    if faults.connect_delay is not None:
        return faults.connect_delay
    return CONNECT_DELAY if hub.settings.rate else 0.0


def file_name(stream: str) -> str:
    """A stream's name as a part of a file name: whoever connects chooses it."""
    return "".join(char if char.isalnum() else "_" for char in stream)[:40]
