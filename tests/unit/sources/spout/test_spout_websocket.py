"""Source `spout` over a WebSocket: what only this form has."""

import asyncio
import json

import pytest
from pydantic import ValidationError

from pipeline.sources.spout import SpoutConfig

from .conftest import KEY, OID, frame

pytestmark = pytest.mark.parametrize("transport", ["websocket"], indirect=True)
RECORDS = [b'{"cat":"c","detect":{},"n":%d}' % n for n in range(500)]


async def test_it_asks_in_its_first_message(bench, cloud):
    """One JSON object with organization, token, stream and filters, and never the key."""
    async with bench.running(tag="prod", options={"is_flat": True}):
        await cloud.connected(1)
    asked = cloud.connections[0]
    assert "/stream/ws" == asked.path
    assert 2 == asked.form.pop("jwt").count(".")
    expected = {"oid": OID, "type": "detect", "tag": "prod", "is_flat": "true", "resume_context": {"oid": OID}}
    assert expected == asked.form
    assert KEY not in asked.headers + json.dumps(asked.form)


async def test_each_message_is_a_record(bench, cloud):
    """However it is cut into frames, as text or binary; one with line ends inside is one line, and an empty one is none."""
    record = b'{"cat":"c",\n "detect":{},\r\n"n":1}'
    frames = [
        *(frame(0x1, RECORDS[0][:5], last=False), frame(0x0, RECORDS[0][5:9], last=False), frame(0x0, RECORDS[0][9:])),
        *(frame(0x2, RECORDS[1]), frame(0x1, b""), frame(0x1, record + b"\n"), frame(0x1, RECORDS[2])),
    ]

    async def script(connection):
        await connection.live()
        for byte in b"".join(frames):
            await connection.raw(bytes([byte]))
        await asyncio.Event().wait()

    cloud.script = script
    async with bench.running():
        await bench.outlet.until(4)
    assert [*RECORDS[:2], record.replace(b"\n", b" ").replace(b"\r", b" "), RECORDS[2]] == bench.outlet.records
    assert json.loads(record) == json.loads(bench.outlet.records[2])


@pytest.mark.parametrize("how", ["message", "close"])
async def test_a_refusal_is_typed_however_it_comes(bench, cloud, how):
    """As a message or as the reason of a close, it is tried with another token once, then it is a missing permission."""

    async def script(connection):
        if how == "message":
            await connection.send(b'{"error":"unauthorized"}')
        await connection.end(1008, "unauthorized")

    cloud.script = script
    async with bench.running():
        await bench.report.until(lambda: any(state == "failed" for state, _, _ in bench.report.states))
    state, text, code = bench.report.states[-1]
    assert ("failed", "permission") == (state, code)
    assert "unauthorized" in text
    assert 2 == len(cloud.connections)


async def test_a_close_with_another_code_is_no_reason_to_give_up(bench, cloud):
    """A close that does not say why is the end of a connection, and the next one follows."""

    async def script(connection):
        if len(cloud.connections) == 1:
            await connection.live(RECORDS[0])
            await connection.end(1011)
        else:
            await cloud.idle(connection)

    cloud.script = script
    async with bench.running():
        await bench.report.until(lambda: bool(bench.report.gaps))
    assert ["ok", "degraded", "ok"] == [state for state, _, _ in bench.report.states]
    assert "1011" in bench.report.states[1][1]
    assert RECORDS[:1] == bench.outlet.records


@pytest.mark.parametrize(
    ("status", "headers", "code"),
    [(429, "Retry-After: 1\r\n", "rate_limited"), (503, "", "unavailable"), (404, "", "not_found")],
)
async def test_a_refused_upgrade_has_its_status(bench, cloud, status, headers, code):
    """The answer in the place of a WebSocket is understood like that of any request, its wait included."""
    cloud.upgrade_status, cloud.upgrade_headers = status, headers
    async with bench.running():
        await cloud.connected(1)
    assert [code] == bench.report.errors
    if status == 429:
        assert 1.0 <= cloud.times[1] - cloud.times[0]


async def test_a_ping_is_answered_and_a_sign_of_life(bench, cloud):
    """Pings alone keep the connection."""

    async def script(connection):
        await connection.live()
        for number in range(8):
            await asyncio.sleep(0.06)
            await connection.raw(frame(0x9, b"%d" % number))
            await connection.receive()
        await connection.send(RECORDS[0])
        await asyncio.Event().wait()

    cloud.script = script
    async with bench.running(idle_timeout=0.3):
        await bench.outlet.until(1)
    assert [b"%d" % number for number in range(8)] == cloud.connections[0].pongs
    assert 1 == len(cloud.connections)


@pytest.mark.parametrize("data", [frame(0x1, b"x" * 5000), b"\xff\xff\xff\xff", frame(0x9, b"x") + b"GET / HTTP/1.1"])
async def test_what_is_too_large_or_no_message_ends_the_connection(bench, cloud, data):
    """Nothing is kept of it, what came before is delivered, and the next connection follows."""

    async def script(connection):
        if len(cloud.connections) == 1:
            await connection.live(RECORDS[0])
            await connection.raw(data)
            await asyncio.sleep(5)
        else:
            await cloud.idle(connection)

    cloud.script = script
    async with bench.running(max_record=1000):
        await bench.report.until(lambda: bool(bench.report.gaps))
    assert RECORDS[:1] == bench.outlet.records
    assert "broken" == bench.report.gaps[0][2]


async def test_at_a_stop_it_takes_its_leave(bench, cloud):
    """The other side is told by a close; one that does not answer holds nothing up."""
    closed = asyncio.Event()

    async def script(connection):
        await connection.live()
        while not connection.codes:
            await connection.receive()
        closed.set()
        await asyncio.Event().wait()

    cloud.script = script
    async with asyncio.timeout(4):
        async with bench.running():
            await bench.report.until(lambda: bool(bench.report.states))
        await closed.wait()
    assert [1000] == cloud.connections[0].codes


def test_a_host_is_of_the_other_form(transport):
    """There is one address for WebSockets."""
    with pytest.raises(ValidationError, match="host"):
        SpoutConfig.model_validate({"type": "spout", "transport": transport, "host": "stream-tmp"})
