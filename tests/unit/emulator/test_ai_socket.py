"""The WebSocket of an AI session in the emulator."""

import asyncio
import contextlib
import json

import aiohttp
import pytest


@pytest.fixture
async def local(emulate):
    found = await emulate()
    await found.turn("ai_account")
    await found.turn("ai_timing", start=0.01, pace=0.001)
    return found


@pytest.fixture
async def token(local):
    return await local.token(uid=local.ready["uid"], secret=local.ready["user_api_key"])


@pytest.fixture
async def session(local, token):
    """The id of a session that runs."""
    headers = {"Authorization": f"Bearer {token}"}
    url = local.ready["url"] + "/v1/sessions"
    async with local.client.post(url, json={}, headers=headers) as response:
        found = (await response.json())["session"]["id"]

    async def runs():
        return (await local.call("GET", f"/v1/sessions/{found}", token=token))[1]["session"]["status"] == "running"

    await local.until(runs)
    return found


@contextlib.asynccontextmanager
async def attach(local, path, token):
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    async with local.client.ws_connect(local.ready["url"] + path, headers=headers, max_msg_size=1 << 25) as socket:
        yield socket


async def rest(socket):
    """All that comes until the close, and its code."""
    got = []
    while (message := await socket.receive()).type is aiohttp.WSMsgType.TEXT:
        got.append(json.loads(message.data))
    return got, socket.close_code


async def until(socket, kind):
    while (message := await socket.receive_json())["type"] != kind:
        pass
    return message


@pytest.mark.parametrize("path", ["/v1/sessions/{}/ws", "/v1/ws/sessions/{}"])
async def test_both_paths_and_credentials(local, session, token, path):
    """The token is taken in the header and in the query, under both paths."""
    path = path.format(session)
    async with attach(local, path, token) as socket:
        await until(socket, "system")
    async with attach(local, f"{path}?token={token}", None) as socket:
        await until(socket, "system")


@pytest.mark.parametrize(
    ("path", "who", "code"),
    [
        ("/v1/sessions/{}/ws", "nobody", 4001),
        ("/v1/ws/sessions/{}", "nobody", 4001),
        ("/v1/ws/org/sessions/{}", "nobody", 4001),
        ("/v1/sessions/{}/ws", "other", 4003),
        ("/v1/sessions/nope/ws", "owner", 4004),
        ("/v1/ws/org/sessions/nope", "owner", 4004),
    ],
)
async def test_refusals(local, session, token, path, who, code):
    """A refusal is a close code of its own."""
    tokens = {"nobody": "x.y.z", "other": await local.token(), "owner": token}
    async with attach(local, path.format(session), tokens[who]) as socket:
        assert ([], code) == await rest(socket)


async def test_forbidden(local, session):
    """Under the tools' path another's session is a 403 before the upgrade."""
    with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
        async with attach(local, f"/v1/ws/sessions/{session}", await local.token()):
            pass
    assert 403 == caught.value.status


async def test_not_running(local, token):
    """A session that is starting is closed with 4009."""
    await local.turn("ai_timing", never_start=True)
    headers = {"Authorization": f"Bearer {token}"}
    async with local.client.post(local.ready["url"] + "/v1/sessions", json={}, headers=headers) as response:
        session = (await response.json())["session"]["id"]
    async with attach(local, f"/v1/sessions/{session}/ws", token) as socket:
        assert ([], 4009) == await rest(socket)


async def test_ended(local, session, token):
    """Who comes too late gets what is buffered and the end, or the end alone, and 4100."""
    await local.turn("ai_end")
    async with attach(local, f"/v1/sessions/{session}/ws", token) as socket:
        got, code = await rest(socket)
        assert (["session_status", "system", "session_end"], 4100) == ([one["type"] for one in got], code)
    await local.turn("ai_timing", buffer=0)
    async with attach(local, f"/v1/sessions/{session}/ws", token) as socket:
        got, code = await rest(socket)
        assert ([{"reason": "job_completed", "exit_code": 0}], 4100) == ([one["payload"] for one in got], code)


async def test_history(local, session, token):
    """The tools' path begins with what is older than the buffer, in one message."""
    await local.turn("ai_timing", buffer=0)
    async with attach(local, f"/v1/ws/sessions/{session}", token) as socket:
        first = await socket.receive_json()
        assert "history" == first["type"]
        assert ["session_status", "system"] == [one["type"] for one in first["payload"]["messages"]]


async def test_history_after_a_malformed_frame(local, session, token):
    """What the knob sent that is no message does not stand in the way of those that are."""
    await local.turn("ai_emit", raw="not json")
    await local.turn("ai_emit", type="assistant")
    status, answer = await local.call("GET", f"/v1/sessions/{session}/history", token=token)
    assert 200 == status
    assert "assistant" == answer["messages"][-1]["type"]


async def test_envelope(local, session, token):
    """Each message has type, time, session and payload."""
    async with attach(local, f"/v1/sessions/{session}/ws", token) as socket:
        message = await socket.receive_json()
        assert {"type", "timestamp", "session_id", "payload"} == set(message)
        assert session == message["session_id"]


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        ("{", "invalid_message"),
        ("[]", "invalid_message"),
        ('{"type": "dance"}', "invalid_message"),
        ('{"type": "prompt"}', "invalid_message"),
        ('{"type": "prompt", "payload": {"text": ""}}', "invalid_message"),
        ('{"type": "tool_approval_response", "payload": {"tool_use_id": "x"}}', "invalid_message"),
        ('{"type": "download_request", "payload": {"path": "/etc/passwd"}}', "invalid_message"),
        ('{"type": "upload_request", "payload": {"filename": "x", "size": 100000001}}', "invalid_message"),
        ('{"type": "upload_complete", "payload": {"path": "/x"}}', "invalid_message"),
    ],
)
async def test_wrong_messages(local, session, token, sent, code):
    """A message that cannot be understood or granted is answered by an error."""
    async with attach(local, f"/v1/sessions/{session}/ws", token) as socket:
        await socket.send_str(sent)
        assert code == (await until(socket, "error"))["payload"]["code"]


async def test_rate(local, session, token):
    """More than 100 messages in a second are refused."""
    async with attach(local, f"/v1/sessions/{session}/ws", token) as socket:
        for _ in range(101):
            await socket.send_str('{"type": "heartbeat"}')
        assert {"code": "rate_limited", "message": "Rate limit exceeded"} == (await until(socket, "error"))["payload"]


async def test_too_large(local, session, token):
    """A message of more than 1 MB closes the connection."""
    async with attach(local, f"/v1/sessions/{session}/ws", token) as socket:
        await socket.send_str(json.dumps({"type": "prompt", "payload": {"text": "x" * (1 << 20)}}))
        assert 1009 == (await rest(socket))[1]


async def test_prompt_limit(local, session, token):
    """60 prompts in a minute."""
    await local.turn("ai_script", steps=[{"result": "ok"}])
    async with attach(local, f"/v1/sessions/{session}/ws", token) as socket:
        for _ in range(61):
            await socket.send_str('{"type": "prompt", "payload": {"text": "x"}}')
        assert "rate_limited" == (await until(socket, "error"))["payload"]["code"]


async def test_ping(local, session, token):
    """The service pings."""
    await local.turn("ai_timing", ping=0.05)
    headers = {"Authorization": f"Bearer {token}"}
    url = f"{local.ready['url']}/v1/sessions/{session}/ws"
    async with local.client.ws_connect(url, headers=headers, autoping=False) as socket:
        while (await socket.receive()).type is not aiohttp.WSMsgType.PING:
            pass


async def test_inactive(local, session, token):
    """Who says nothing is closed; who sends heartbeats is not."""
    await local.turn("ai_timing", idle=0.2)
    async with attach(local, f"/v1/sessions/{session}/ws", token) as socket:
        for _ in range(6):
            await asyncio.sleep(0.05)
            await socket.send_str('{"type": "heartbeat"}')
        assert not socket.closed
        assert 4101 == (await rest(socket))[1]


async def test_replay(local, session, token):
    """What is buffered comes again to who connects, and twice with the knob."""
    path = f"/v1/sessions/{session}/ws"
    async with attach(local, path, token) as socket:
        first = [await socket.receive_str() for _ in range(2)]
    await local.turn("ai_replay", copies=2)
    async with attach(local, path, token) as socket:
        assert first + first == [await socket.receive_str() for _ in range(4)]
    async with attach(local, path, token) as socket:
        assert first == [await socket.receive_str() for _ in range(2)]


async def test_drop_after(local, session, token):
    """The next connection breaks after so many messages."""
    await local.turn("ai_drop", after=1)
    async with attach(local, f"/v1/sessions/{session}/ws", token) as socket:
        got, code = await rest(socket)
        assert (1, 1006) == (len(got), code)


@pytest.mark.parametrize("code", [4001, 4003, 4004, 4009, 4100, 4101, 4500])
async def test_close_knob(local, session, token, code):
    """Each close code, for the connections that are open and the next ones."""
    path = f"/v1/sessions/{session}/ws"
    async with attach(local, path, token) as socket:
        await until(socket, "system")
        assert {"closed": 1} == await local.turn("ai_close", code=code, next=1)
        assert code == (await rest(socket))[1]
    async with attach(local, path, token) as socket:
        assert ([], code) == await rest(socket)
    async with attach(local, path, token) as socket:
        await until(socket, "system")


async def test_read_only(local, token):
    """The organization's view shows all and takes nothing but heartbeats."""
    headers = {"Authorization": f"Bearer {local.api_key}", "X-LC-OID": local.oid}
    body = {"prompt": "x", "anthropic_key": "k"}
    async with local.client.post(local.ready["url"] + "/v1/api/sessions", json=body, headers=headers) as response:
        session = (await response.json())["session_id"]

    async def runs():
        url = f"{local.ready['url']}/v1/org/sessions/{session}"
        async with local.client.get(url, headers=headers) as response:
            return (await response.json())["session"]["status"] == "running"

    await local.until(runs)
    async with attach(local, f"/v1/ws/org/sessions/{session}", await local.token()) as socket:
        await socket.send_str('{"type": "heartbeat"}')
        await socket.send_str('{"type": "interrupt"}')
        assert "This connection is read-only" == (await until(socket, "error"))["payload"]["message"]


async def test_stop(local, session, token):
    """The emulator stops with connections open, silent ones too, without a delay."""
    await local.turn("ai_silence", next=1)
    path = f"/v1/sessions/{session}/ws"
    async with attach(local, path, token), attach(local, path, token) as socket:
        await until(socket, "system")
        async with asyncio.timeout(5):
            await local.emulator.stop()
        assert (await rest(socket))[1] in (1001, 1006)
