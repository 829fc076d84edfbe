"""The spout service: what a stream connection gets, and how it ends."""

import asyncio
import json
import socket
from contextlib import asynccontextmanager, suppress

import pytest

CONNECTED = b'{"__trace":"connected"}'
KEEPALIVE = b'{"__trace":"keepalive"}'


def kinds(lines: list[bytes]) -> list[str]:
    return [json.loads(line)["routing"]["event_type"] for line in lines]


async def test_run_is_the_same_each_time(emulate):
    """At rate 0 each connection gets the same bytes from the start, in one process and in the next."""
    runs = []
    for _ in range(2):
        local = await emulate(events=600, ledger=None)
        for _ in range(2):
            async with local.stream() as stream:
                assert await stream.line() == CONNECTED
                runs.append(await stream.lines(600))
    assert len(set(runs[0])) == 600
    assert runs[1:] == [runs[0]] * 3


async def test_keepalives_follow_the_last_event(emulate):
    """After the configured number of events only keep-alives come."""
    local = await emulate(events=3, keepalive=0.05)
    async with local.stream() as stream:
        lines = await stream.lines(6)
    assert lines[0] == CONNECTED
    assert lines[4:] == [KEEPALIVE, KEEPALIVE]
    assert len(kinds(lines[1:4])) == 3


async def test_events_counts_what_passes(emulate):
    """The number of events counts those that pass the connection's filters."""
    local = await emulate(events=40, keepalive=0.05)
    async with local.stream(event_white_list="NEW_PROCESS\n DNS_REQUEST \n") as stream:
        await stream.line()
        assert set(kinds(await stream.lines(40))) == {"NEW_PROCESS", "DNS_REQUEST"}
        assert await stream.line() == KEEPALIVE


async def test_run_beyond_what_is_kept(emulate, monkeypatch, ledger):
    """A run that outgrows the memory goes on with a generator of each connection's own, with the same bytes."""
    monkeypatch.setattr("pipeline.emulator.live.KEPT_BYTES", 300_000)
    local = await emulate(events=2000)
    runs = []
    for _ in range(3):
        async with local.stream() as stream:
            await stream.line()
            runs.append(await stream.lines(2000))
    assert runs[1:] == [runs[0]] * 2
    assert ledger.lines("generated-event.jsonl") == runs[0]


async def test_filter_that_matches_nothing(emulate, monkeypatch):
    """A filter that nothing passes ends in keep-alives instead of a busy loop."""
    monkeypatch.setattr("pipeline.emulator.live.MAX_MISSES", 1000)
    local = await emulate(keepalive=0.05)
    async with local.stream(tag="no-such-tag") as stream:
        assert await stream.lines(2) == [CONNECTED, KEEPALIVE]


@pytest.mark.parametrize("name", ["event", "detect", "audit", "deployment", "billing"])
async def test_each_stream(emulate, name):
    """Every stream has records of its own."""
    local = await emulate(events=5)
    async with local.stream(type=name) as stream:
        await stream.line()
        assert all(map(json.loads, await stream.lines(5)))


async def test_unknown_stream_is_quiet(emulate):
    """A stream that the emulator makes nothing for is connected and stays quiet."""
    local = await emulate(keepalive=0.05)
    async with local.stream(type="tailored") as stream:
        assert await stream.lines(2) == [CONNECTED, KEEPALIVE]


async def test_filters(emulate):
    """Sensor, tag, category and investigation filters let through only what matches."""
    local = await emulate(keepalive=0.05)
    record = {"routing": {"event_type": "X", "sid": "s1", "tags": ["vip", "web"], "investigation_id": "inv/1"}}
    other = {"routing": {"event_type": "Y", "sid": "s2", "tags": [], "investigation_id": "inventory"}}
    for form in (
        {"sid": "s1"},
        {"tag": "vip"},
        {"inv_id": "inv"},
        {"event_black_list": "Y"},
        {"event_white_list": "X"},
        {"sample_rate": "2"},
    ):
        async with local.stream(type="artifact", **form) as stream:
            await stream.line()
            await local.turn("emit", stream="artifact", records=[record, other])
            assert json.loads(await stream.line()) == record
            assert await stream.line() == KEEPALIVE
    async with local.stream(type="tailored", cat="bad") as stream:
        await stream.line()
        await local.turn("emit", stream="tailored", records=[{"cat": "good"}, {"cat": "bad"}])
        assert json.loads(await stream.line()) == {"cat": "bad"}


@pytest.mark.parametrize("credentials", ["api_key", "jwt", "user"])
async def test_credentials_in_the_form(emulate, credentials):
    """A stream opens with an organization's key, a token, or a user's key and uid."""
    local = await emulate(events=1)
    form = {
        "api_key": {},
        "jwt": {"api_key": "", "jwt": await local.token()},
        "user": {"api_key": local.ready["user_api_key"], "uid": local.ready["uid"]},
    }[credentials]
    async with local.stream(**form) as stream:
        assert await stream.line() == CONNECTED


@pytest.mark.parametrize("path", ["/stream-tmp", ""])
async def test_stream_tmp_refuses_after_the_200(emulate, path):
    """stream-tmp says 200 and then, in a line of text, that the credential is no good."""
    local = await emulate()
    async with local.stream(path, api_key="wrong") as stream:
        assert stream.response.status == 200
        assert await stream.rest() == [b"error: unauthorized"]


async def test_stream_refuses_with_a_status(emulate):
    """The host `stream` says 401 with a text, under its path or by its name."""
    local = await emulate()
    async with local.stream(api_key="wrong") as stream:
        assert (stream.response.status, await stream.rest()) == (401, [b"unauthorized"])
    url = f"{local.ready['url']}/{local.oid}"
    headers = {"Host": "stream.limacharlie.io"}
    async with local.client.post(url, data={"type": "event", "api_key": "x"}, headers=headers) as response:
        assert response.status == 401


async def test_streams_need_all_output_permissions(emulate):
    """A key without one of output.* cannot stream, though it can mint tokens."""
    local = await emulate()
    key = (await local.turn("key", permissions=["output.list", "output.set", "org.get"]))["api_key"]
    assert await local.token(oid=local.oid, secret=key)
    async with local.stream("/stream-tmp", api_key=key) as stream:
        assert await stream.rest() == [b"error: unauthorized"]


async def test_unsupported_option(emulate):
    """An option that would change records is refused in a line, not ignored."""
    local = await emulate()
    async with local.stream(is_flat="true") as stream:
        assert await stream.rest() == [b"error: is_flat is not supported by the emulator"]


async def test_live_reader_misses_what_came_before(emulate, ledger):
    """With a rate, who connects later gets only what is generated from then on; the generator stops at its number."""
    local = await emulate(rate=400, events=100, keepalive=0.5)
    await local.turn("connect_delay", seconds=0)
    await local.until(lambda: _generated(ledger, "event", 20))
    async with local.stream() as stream:
        assert await stream.line() == CONNECTED
        received = []
        while (line := await stream.line()) != KEEPALIVE:
            received.append(line)
    generated = ledger.lines("generated-event.jsonl")
    assert len(generated) == 100
    assert received == generated[-len(received) :]
    assert 0 < len(received) <= 80


async def _generated(ledger, stream: str, count: int) -> bool:
    path = ledger.folder / f"generated-{stream}.jsonl"
    return path.exists() and path.read_bytes().count(b"\n") >= count


async def test_slow_reader_is_told_what_it_lost(emulate, ledger):
    """A reader that does not read what is offered loses records, and a trace says how many."""
    local = await emulate()
    await local.turn("buffer", records=50)
    async with raw_stream(local, "artifact") as (reader, _):
        await reader.readuntil(CONNECTED)
        total = 400
        for number in range(total // 10):
            records = [{"n": number * 10 + each, "pad": "x" * 65_536} for each in range(10)]
            await local.turn("emit", stream="artifact", records=records)
        received, dropped = 0, 0
        while received + dropped < total:
            line = await reader.readline()
            received += line.startswith(b'{"n"')
            if line.startswith(b'{"__trace":"dropped"'):
                dropped += json.loads(line)["n"]
    assert received + dropped == total
    assert dropped > 0
    assert len(ledger.lines("spout-artifact-1.jsonl")) == received


@asynccontextmanager
async def raw_stream(local, stream: str, header: str = ""):
    """A stream connection as bytes, with a small receive buffer."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32_768)
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", int(local.ready["url"].rpartition(":")[2])))
    reader, writer = await asyncio.open_connection(sock=sock, limit=1 << 20)
    body = f"type={stream}&api_key={local.api_key}"
    writer.write(
        f"POST /stream/{local.oid} HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-www-form-urlencoded\r\n"
        f"{header}Content-Length: {len(body)}\r\n\r\n{body}".encode()
    )
    try:
        yield reader, writer
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


async def test_connected_is_late_when_live(emulate):
    """Records flow from `connected` on, which comes as late as the knob says."""
    local = await emulate(rate=1000)
    await local.turn("connect_delay", seconds=0.3)
    loop = asyncio.get_running_loop()
    start = loop.time()
    async with local.stream() as stream:
        assert await stream.line() == CONNECTED
        assert loop.time() - start >= 0.3


@pytest.mark.parametrize("tls", [False, True])
async def test_clean_end(emulate, ledger, tls):
    """A stream that the emulator ends, and whose peer then closes, is clean and has exactly the lines received."""
    local = await emulate(events=300, tls=tls)
    local.client.connector._ssl = _trust(local)
    async with local.stream() as stream:
        await stream.line()
        received = await stream.lines(300)
        assert await local.turn("close") == {"connections": 1}
        assert await stream.rest() == []
    await local.until(lambda: _ended(ledger, 1))
    assert ledger.ends() == {"spout-event-1.jsonl": True}
    assert ledger.lines("spout-event-1.jsonl") == received == ledger.lines("generated-event.jsonl")


def _trust(local):
    import ssl

    return ssl.create_default_context(cafile=local.ready["ca"]) if local.ready["ca"] else True


async def _ended(ledger, count: int) -> bool:
    return len(ledger.ends()) >= count


async def test_next_request_makes_it_clean(emulate, ledger):
    """A peer that uses the connection again has seen the end as well."""
    local = await emulate(events=1)
    async with raw_stream(local, "event") as (reader, writer):
        await reader.readuntil(CONNECTED)
        await local.turn("close")
        await reader.readuntil(b"\r\n0\r\n\r\n")
        assert not (ledger.folder / "connections.jsonl").read_bytes()
        writer.write(b"GET /v1/who HTTP/1.1\r\nHost: x\r\n\r\n")
        await reader.readuntil(b"HTTP/1.1 401")
        assert ledger.ends() == {"spout-event-1.jsonl": True}


async def test_peer_that_asked_to_close(emulate, ledger):
    """An end is clean too where the request said "Connection: close" and the server would close first."""
    local = await emulate(events=1)
    async with raw_stream(local, "event", "Connection: close\r\n") as (reader, writer):
        await reader.readuntil(CONNECTED)
        await local.turn("close")
        await reader.readuntil(b"\r\n0\r\n\r\n")
        writer.write_eof()
        assert await reader.read() == b""
    assert ledger.ends() == {"spout-event-1.jsonl": True}


async def test_peer_that_leaves_first_is_unclean(emulate, ledger):
    """A stream that the peer ends is unclean, though its ledger holds what was handed over."""
    local = await emulate(events=10)
    async with local.stream() as stream:
        received = (await stream.lines(11))[1:]
    await local.until(lambda: _ended(ledger, 1))
    assert ledger.ends() == {"spout-event-1.jsonl": False}
    assert ledger.lines("spout-event-1.jsonl") == received


@pytest.mark.parametrize("how", ["abort", "midline"])
async def test_broken_end(emulate, ledger, how):
    """A stream that is reset, or cut in a record, is unclean, and what was received is a prefix of the ledger."""
    import aiohttp

    local = await emulate(events=5000)
    async with local.stream() as stream:
        await stream.lines(101)
        await local.turn("close", how=how)
        received, error = await _until_broken(stream)
    assert isinstance(error, aiohttp.ClientError)
    await local.until(lambda: _ended(ledger, 1))
    assert ledger.ends() == {"spout-event-1.jsonl": False}
    whole = received.splitlines()[: received.count(b"\n")]
    assert whole == ledger.lines("spout-event-1.jsonl")[100 : 100 + len(whole)]


async def test_peer_that_closes_before_all_has_arrived(emulate, ledger):
    """A peer that closes while records are on their way is unclean, though the emulator had begun to end."""
    local = await emulate()
    async with raw_stream(local, "event") as (reader, writer):
        await reader.readuntil(CONNECTED)
        await local.turn("close")
        writer.write_eof()
        await local.until(lambda: _ended(ledger, 1))
    assert ledger.ends() == {"spout-event-1.jsonl": False}


async def test_stop_does_not_wait_for_a_stuck_reader(emulate, ledger, monkeypatch):
    """A reader that has stopped reading holds the stop up for the grace period only."""
    monkeypatch.setattr("pipeline.emulator.server.STOP_GRACE", 0.2)
    local = await emulate()
    async with raw_stream(local, "event") as (reader, _):
        await reader.readuntil(CONNECTED)
        async with asyncio.timeout(5):
            await local.emulator.stop()
    assert ledger.ends() == {"spout-event-1.jsonl": False}


async def _until_broken(stream) -> tuple[bytes, Exception | None]:
    received = b""
    try:
        while data := await stream.response.content.readany():
            received += data
    except Exception as error:
        return received, error
    return received, None


async def test_open_streams_end_with_the_emulator(emulate, ledger, monkeypatch):
    """At the stop streams end in order; one whose peer does not close is unclean."""
    monkeypatch.setattr("pipeline.emulator.server.STOP_GRACE", 0.5)
    local = await emulate(events=1)
    async with raw_stream(local, "event") as (polite, polite_writer), raw_stream(local, "event") as (rude, _):
        await polite.readuntil(CONNECTED)
        await rude.readuntil(CONNECTED)
        stopping = asyncio.create_task(local.emulator.stop())
        await polite.readuntil(b"\r\n0\r\n\r\n")
        polite_writer.close()
        await stopping
    assert ledger.ends() == {"spout-event-1.jsonl": True, "spout-event-2.jsonl": False}
