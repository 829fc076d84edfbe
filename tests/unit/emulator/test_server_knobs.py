"""The control panel: every fault by a call and by a scenario."""

import asyncio
import json
import time

import aiohttp
import pytest

from pipeline.emulator.knobs import KNOBS

CONNECTED = b'{"__trace":"connected"}'
KEEPALIVE = b'{"__trace":"keepalive"}'


async def test_knobs_are_listed(emulate):
    """Each knob is listed with what it does, and what each of its arguments means where the name does not say."""
    local = await emulate()
    listed = await local.look("")
    assert set(listed) == set(KNOBS)
    assert all(knob["does"] for knob in listed.values())
    assert listed["respond"]["arguments"]["times"]["default"] == 1


@pytest.mark.parametrize(
    ("knob", "arguments", "status"),
    [
        ("nonsense", {}, 404),
        ("respond", {"status": 99}, 400),
        ("respond", {"status": 401, "tims": 3}, 400),
        ("respond", [], 400),
        ("revoke", {}, 404),
        ("emit", {"stream": "event", "records": ["a\nb"]}, 400),
        ("emit", {"stream": "event", "records": ["{}"], "oid": "nobody"}, 404),
        ("trust", {"ca": "/no/such/file"}, 400),
        ("output", {"name": "none", "enabled": True}, 404),
    ],
)
async def test_wrong_use(emulate, knob, arguments, status):
    """A knob that does not exist, or arguments that make no sense, are refused with the reason."""
    local = await emulate()
    async with local.client.post(f"{local.ready['url']}/_emulator/{knob}", json=arguments) as response:
        assert response.status == status
        assert (await response.json())["error"]


@pytest.mark.parametrize(
    ("status", "headers"),
    [
        (401, {}),
        (413, {}),
        (429, {}),
        (429, {"Retry-After": "7", "X-RateLimit-Quota": "10", "X-RateLimit-Period": "60"}),
        (504, {}),
    ],
)
async def test_respond(emulate, status, headers):
    """A route answers with the status and headers asked for, as often as asked, and then works again."""
    local = await emulate()
    token = await local.token()
    await local.turn("respond", route="outputs", status=status, headers=headers, times=2, body='{"error":"so"}')
    url = f"{local.ready['url']}/v1/outputs/{local.oid}"
    seen = []
    for _ in range(3):
        async with local.client.get(url, headers={"Authorization": f"bearer {token}"}) as response:
            seen.append(response.status)
            if response.status != 200:
                assert headers.items() <= dict(response.headers).items()
                assert await response.json() == {"error": "so"}
        assert (await local.call("GET", "/v1/who", token=token))[0] == 200
    assert seen == [status, status, 200]


async def test_respond_before_a_stream(emulate):
    """A stream can be refused with a status of its own, for one organization alone."""
    local = await emulate(orgs=2, events=1)
    await local.turn("respond", route="stream", status=503, times=None, oid=local.ready["orgs"][1]["oid"])
    async with local.stream() as stream:
        assert stream.response.status == 200
    local.oid, local.api_key = (local.ready["orgs"][1][key] for key in ("oid", "api_key"))
    async with local.stream() as stream:
        assert stream.response.status == 503
    await local.turn("clear")
    async with local.stream() as stream:
        assert stream.response.status == 200


async def test_headers_and_latency(emulate):
    """Good answers can carry headers, and any answer can be late."""
    local = await emulate()
    await local.turn("headers", route="url", headers={"X-RateLimit-Quota": "5"}, times=None)
    await local.turn("latency", route="url", seconds=0.2)
    start = time.monotonic()
    async with local.client.get(f"{local.ready['url']}/v1/orgs/{local.oid}/url") as response:
        assert (response.status, response.headers["X-RateLimit-Quota"]) == (200, "5")
    assert time.monotonic() - start >= 0.2


async def test_an_answer_can_be_held_back(emulate):
    """With `after` the request is carried out at once, and only its answer is late."""
    local = await emulate()
    await local.turn("latency", route="url", seconds=60, after=True)
    call = asyncio.create_task(local.call("GET", f"/v1/orgs/{local.oid}/url", token=await local.token()))
    async with asyncio.timeout(5):
        while not (await local.look("requests")).get("GET /v1/orgs/{oid}/url"):
            await asyncio.sleep(0.01)
    assert not call.done()
    call.cancel()


async def test_expire_tokens(emulate):
    """After it every old token is a 401 and a new one works."""
    local = await emulate()
    old = await local.token()
    await local.turn("expire_tokens")
    assert (await local.call("GET", "/v1/who", token=old))[0] == 401
    assert (await local.call("GET", "/v1/who", token=await local.token()))[0] == 200


async def test_token_lifetime(emulate):
    """New tokens live as long as the knob says."""
    import base64

    local = await emulate()
    await local.turn("token_lifetime", seconds=30)
    part = (await local.token()).split(".")[1]
    claims = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    assert 28 < claims["exp"] - time.time() <= 31


async def test_revoke(emulate):
    """A revoked key mints nothing, its tokens are worthless, and it can come back."""
    local = await emulate(orgs=2)
    token = await local.token()
    await local.turn("revoke", oid=local.oid)
    assert (await local.mint())[1] == {"error": "unknown api key"}
    assert (await local.call("GET", "/v1/who", token=token))[0] == 401
    other = local.ready["orgs"][1]
    assert (await local.mint(oid=other["oid"], secret=other["api_key"]))[0] == 200
    await local.turn("revoke", oid=local.oid, revoked=False)
    assert (await local.mint())[0] == 200


async def test_permissions(emulate):
    """A key's permissions change with the next token."""
    local = await emulate()
    await local.turn("permissions", api_key=local.api_key, permissions=["org.get"])
    status, body = await local.call("GET", f"/v1/outputs/{local.oid}", token=await local.token())
    assert (status, body["error"]) == (401, "unauthorized: missing permission output.list")


@pytest.mark.parametrize("line", ["error: unauthorized", '{"error":"quota exceeded"}', "error: anything else"])
async def test_stream_error(emulate, line):
    """A stream can open with 200, a line of error, and the end."""
    local = await emulate(events=1)
    await local.turn("stream_error", line=line)
    async with local.stream() as stream:
        assert (stream.response.status, await stream.rest()) == (200, [line.encode()])
    async with local.stream() as stream:
        assert await stream.line() == CONNECTED


async def test_instant_close(emulate):
    """Streams can end right after the 200, until told otherwise."""
    local = await emulate(events=1)
    await local.turn("instant_close", times=None, stream="event")
    for _ in range(3):
        async with local.stream() as stream:
            assert (stream.response.status, await stream.rest()) == (200, [])
    async with local.stream(type="detect") as stream:
        assert await stream.line() == CONNECTED


async def test_stall(emulate):
    """A stalled stream says nothing, not even keep-alives, until it is told to go on."""
    import asyncio

    local = await emulate(events=1, keepalive=0.05)
    async with local.stream() as stream:
        await stream.lines(3)
        await local.turn("stall", stream="event")
        waiting = asyncio.create_task(_after_silence(stream, KEEPALIVE, 0.3))
        await waiting
        await local.turn("stall", seconds=0)
        assert await stream.line() == KEEPALIVE


async def _after_silence(stream, allowed: bytes, seconds: float) -> None:
    """Read what was under way, then expect nothing for so long."""
    import asyncio

    try:
        async with asyncio.timeout(seconds):
            while True:
                assert await stream.line() == allowed
    except TimeoutError:
        return


async def test_drop(emulate, ledger):
    """Dropped records are announced and are not in the ledger."""
    local = await emulate(keepalive=30)
    async with local.stream(type="tailored") as stream:
        await stream.line()
        await local.turn("drop", n=2)
        await local.turn("emit", stream="tailored", records=['{"n":1}', '{"n":2}', '{"n":3}'])
        assert await stream.lines(2) == [b'{"__trace":"dropped","n":2}', b'{"n":3}']
    assert ledger.lines("spout-tailored-1.jsonl") == [b'{"n":3}']


async def test_say_and_emit(emulate, ledger):
    """Any line can be said; any record, even one that is not JSON, can be emitted and is in the ledger."""
    local = await emulate(keepalive=30)
    async with local.stream(type="tailored") as stream:
        await stream.line()
        await local.turn("say", line="error: out of quota")
        await local.turn("emit", stream="tailored", records=["plain text", {"a": 1}])
        assert await stream.lines(3) == [b"error: out of quota", b"plain text", b'{"a":1}']
    assert ledger.lines("spout-tailored-1.jsonl") == [b"plain text", b'{"a":1}']


async def test_shape_by_scope(emulate):
    """A shape counts for the connections in its scope."""
    local = await emulate(events=2, keepalive=30)
    await local.turn("shape", stream="event", crlf=True, duplicate_every=1)
    async with local.stream() as stream:
        await stream.line()
        lines = await stream.lines(4)
    assert all(line.endswith(b"}\r") for line in lines)
    assert lines[0] == lines[1]
    async with local.stream(type="detect") as stream:
        await stream.line()
        assert all(line.endswith(b"}") for line in await stream.lines(2))


async def test_hostile(emulate, ledger):
    """Hostile records reach a stream whole, the large one too."""
    local = await emulate(keepalive=30)
    async with local.stream(type="tailored") as stream:
        await stream.line()
        await local.turn("hostile", stream="tailored", distinct=3, string_bytes=10 << 20, depth=50)
        lines = [await stream.line()]
        while len(lines[-1]) < 10 << 20:
            lines.append(await stream.line())
    assert lines == ledger.lines("spout-tailored-1.jsonl")[: len(lines)]


@pytest.mark.parametrize("rate", [0, 100])
async def test_detect_shape(emulate, rate):
    """Detections can have the documented shape instead of the real one."""
    local = await emulate(rate=rate, keepalive=30)
    await local.turn("connect_delay", seconds=0)
    nested = []
    for shape in ("real", "documented"):
        await local.turn("detect_shape", shape=shape)
        async with local.stream(type="detect") as stream:
            nested.append(["routing" in json.loads(line)["detect"] for line in (await stream.lines(41))[21:]])
    assert nested == [[True] * 20, [False] * 20]


async def test_requests_are_counted(emulate):
    """Requests are counted by route and status, the control panel's own not."""
    local = await emulate(events=1)
    await local.mint()
    await local.mint(secret="wrong")
    async with local.stream("/stream-tmp"):
        pass
    assert await local.look("requests") == {"POST /": {"200": 1, "401": 1}, "POST /stream-tmp/{oid}": {"200": 1}}


async def test_open_connections_are_listed(emulate):
    """The panel shows who is connected and what was sent."""
    local = await emulate(events=4)
    async with local.stream() as stream:
        await stream.lines(5)
        assert (await local.look("connections"))["connections"] == [
            {"via": "spout", "oid": local.oid, "stream": "event", "name": "", "sent": 4}
        ]


YAML = """
- {at: 0, fault: token_lifetime, seconds: 5}
- {fault: respond, route: who, status: 504, at: 0.01}
"""
LINES = '{"at":0,"fault":"token_lifetime","seconds":5}\n{"fault":"respond","route":"who","status":504,"at":0.01}\n'


@pytest.mark.parametrize("text", [YAML, LINES])
async def test_scenario(emulate, tmp_path, text):
    """A scenario turns the knobs at its times, written as YAML or as JSON lines."""
    path = tmp_path / "scenario"
    path.write_text(text)
    local = await emulate(scenario=path)

    async def armed() -> bool:
        return (await local.call("GET", "/v1/who"))[0] == 504

    await local.until(armed)
    assert local.emulator.panel.tokens.lifetime == 5


@pytest.mark.parametrize(
    "text",
    ["[1, 2", "- 3", "just text", "- {fault: nonsense}", "- {fault: stall, at: soon}", "- {fault: respond}", "{nope"],
)
async def test_bad_scenario(emulate, tmp_path, text):
    """A scenario that cannot be understood is an error at the start, not at its time."""
    path = tmp_path / "scenario.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match="scenario"):
        await emulate(scenario=path)


async def test_mid_record_close_is_seen(emulate):
    """The client of a stream cut in a record gets an error, not an end."""
    local = await emulate(events=1)
    async with local.stream() as stream:
        await stream.lines(2)
        await local.turn("close", how="midline")
        with pytest.raises(aiohttp.ClientPayloadError):
            await stream.rest()
