"""The spout over a WebSocket."""

import asyncio
import json

import aiohttp
import pytest


class Socket:
    def __init__(self, local) -> None:
        self._local = local

    async def open(self, path: str = "/ws", **form: object) -> aiohttp.ClientWebSocketResponse:
        socket = await self._local.client.ws_connect(self._local.ready["url"] + path, max_msg_size=0)
        given = {"oid": self._local.oid, "api_key": self._local.api_key, "type": "event", "resume_context": {"oid": ""}}
        await socket.send_str(json.dumps(given | form))
        return socket


@pytest.mark.parametrize("path", ["/ws", "/stream/ws"])
async def test_records(emulate, ledger, path):
    """After `connected` each message is one record, as the ledger has it; the end is clean when the peer closes too."""
    local = await emulate(events=500, keepalive=600.0)
    socket = await Socket(local).open(path, jwt=await local.token())
    assert await socket.receive_json() == {"__trace": "connected"}
    received = [(await socket.receive_str()).encode() for _ in range(500)]
    assert received == ledger.lines("ws-event-1.jsonl")
    assert await local.turn("close", via="ws") == {"connections": 1}
    assert (await socket.receive()).type == aiohttp.WSMsgType.CLOSE
    await socket.close()

    async def settled() -> bool:
        return ledger.ends().get("ws-event-1.jsonl") is True

    await local.until(settled)


async def test_same_as_the_other_form(emulate):
    """Both forms of the spout give the same records, filters included."""
    local = await emulate(events=50)
    socket = await Socket(local).open(type="event", event_white_list="NEW_PROCESS\nDNS_REQUEST")
    await socket.receive()
    messages = [(await socket.receive_str()).encode() for _ in range(50)]
    async with local.stream(event_white_list="NEW_PROCESS\nDNS_REQUEST") as stream:
        await stream.line()
        assert await stream.lines(50) == messages
    await socket.close()


async def test_keepalive(emulate):
    """A quiet stream says so."""
    local = await emulate(events=0, keepalive=0.05)
    socket = await Socket(local).open()
    assert [await socket.receive_json() for _ in range(3)] == [
        {"__trace": "connected"},
        {"__trace": "keepalive"},
        {"__trace": "keepalive"},
    ]
    await socket.close()


@pytest.mark.parametrize(
    ("form", "said"),
    [
        ({"api_key": "wrong"}, "unauthorized"),
        ({"oid": "nope"}, "unauthorized"),
        ({"jwt": "nope"}, "unauthorized"),
        ({"type": ""}, "missing stream type"),
        ({"is_flat": True}, "is_flat is not supported by the emulator"),
    ],
)
async def test_refused(emulate, form, said):
    """A refusal is a message with the reason and a close that repeats it."""
    local = await emulate()
    socket = await Socket(local).open(**form)
    assert await socket.receive_json() == {"error": said}
    closing = await socket.receive()
    assert (closing.type, closing.data, closing.extra) == (aiohttp.WSMsgType.CLOSE, 1008, said)


@pytest.mark.parametrize("first", ["no JSON", "[]"])
async def test_nonsense(emulate, first):
    """A first message that is no subscription is refused."""
    local = await emulate()
    async with local.client.ws_connect(local.ready["url"] + "/ws") as socket:
        await socket.send_str(first)
        assert "error" in await socket.receive_json()


async def test_silent_client(emulate, monkeypatch):
    """A client that says nothing is refused after a while."""
    monkeypatch.setattr("pipeline.emulator.websocket.FIRST_MESSAGE_TIMEOUT", 0.05)
    local = await emulate()
    async with local.client.ws_connect(local.ready["url"] + "/ws") as socket:
        assert await socket.receive_json() == {"error": "no subscription"}


async def test_plain_request(emulate):
    """A request without an upgrade is told what is served there."""
    local = await emulate()
    assert (await local.call("GET", "/ws"))[0] == 426


async def test_faults(emulate):
    """The faults of streams work here too: an error line, an instant close, a reset and a record cut in two."""
    local = await emulate(events=0)
    await local.turn("stream_error", line="error: unauthorized")
    await local.turn("instant_close")
    socket = await Socket(local).open()
    assert await socket.receive_str() == "error: unauthorized"
    socket = await Socket(local).open()
    assert (await socket.receive()).type == aiohttp.WSMsgType.CLOSE
    for how in ("abort", "midline"):
        socket = await Socket(local).open()
        await socket.receive()
        await local.turn("close", via="ws", how=how)
        assert (await socket.receive()).type in (aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.ERROR)
        assert socket.close_code == 1006


async def test_live_and_dropped(emulate):
    """Live records arrive, and what a slow reader lost is told."""
    local = await emulate(events=0)
    socket = await Socket(local).open()
    await socket.receive()
    await local.turn("drop", n=1)
    await local.turn("emit", stream="event", records=["{}", '{"a":1}'])
    assert sorted([await socket.receive_str() for _ in range(2)]) == ['{"__trace":"dropped","n":1}', '{"a":1}']
    await socket.close()


async def test_stop_with_open_socket(emulate, ledger):
    """A stop of the emulator ends an open stream cleanly, when its peer answers."""
    local = await emulate(events=10)
    socket = await Socket(local).open()
    for _ in range(11):
        await socket.receive()
    task = asyncio.create_task(local.emulator.stop())
    assert (await socket.receive()).type == aiohttp.WSMsgType.CLOSE
    await task
    assert ledger.ends() == {"ws-event-1.jsonl": True}
