"""Source `spout` when things go wrong: each way has its back-off, its state and its gap."""

import asyncio
import time

import pytest

BOTH = pytest.mark.parametrize("transport", ["https", "websocket"], indirect=True)
RECORDS = [b'{"cat":"c","detect":{},"n":%d}' % n for n in range(500)]


async def refuse(connection, status, text):
    connection.writer.write(
        b"HTTP/1.1 %d X\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%b" % (status, len(text), text)
    )


@BOTH
@pytest.mark.parametrize(("orderly", "reason"), [(True, "ended"), (False, "broken")])
async def test_a_lost_connection_comes_again_and_leaves_a_gap(bench, cloud, orderly, reason):
    """The gap lasts from the loss until the next confirmation; no record is lost or doubled by us."""

    async def script(connection):
        number = len(cloud.connections)
        if number < 3:
            await connection.live(*RECORDS[number * 10 - 10 : number * 10])
            await bench.outlet.until(number * 10)
            await connection.end() if orderly else connection.abort()
        else:
            await cloud.idle(connection)

    cloud.script = script
    before = time.time()
    async with bench.running():
        await cloud.connected(3)
        await bench.report.until(lambda: len(bench.report.gaps) == 2)
    assert bench.outlet.records == RECORDS[:20]
    assert [gap[2] for gap in bench.report.gaps] == [reason, reason]
    assert all(before <= start < end <= time.time() for start, end, _ in bench.report.gaps)
    assert [state for state, _, _ in bench.report.states] == ["ok", "degraded", "ok", "degraded", "ok"]


@BOTH
async def test_nothing_that_arrived_is_lost_when_a_connection_breaks(bench, cloud):
    """A broken connection takes nothing with it that the kernel had handed over, though the spool was busy meanwhile."""
    bench.outlet.room.clear()
    broken = asyncio.Event()

    async def script(connection):
        if len(cloud.connections) == 1:
            await connection.live(RECORDS[0])
            await connection.send(*RECORDS[1:])
            await asyncio.sleep(0.1)
            connection.abort()
            broken.set()
        else:
            await cloud.idle(connection)

    cloud.script = script
    async with bench.running():
        await broken.wait()
        await asyncio.sleep(0.05)
        bench.outlet.room.set()
        await bench.outlet.until(len(RECORDS))
        await bench.report.until(lambda: bool(bench.report.gaps))
    assert bench.outlet.records == RECORDS
    assert bench.report.gaps[0][2] == "spool_full"


@BOTH
async def test_silence_ends_a_connection(bench, cloud):
    """Without a byte for `idle_timeout` the connection is dead, and the gap starts at the last byte."""

    async def script(connection):
        await connection.live(RECORDS[0])
        await asyncio.Event().wait()

    cloud.script = script
    async with bench.running(idle_timeout=0.3):
        await bench.report.until(lambda: len(bench.report.gaps) == 1)
    start, end, reason = bench.report.gaps[0]
    assert reason == "silent"
    assert end - start >= 0.3


async def test_any_byte_keeps_a_connection_alive(bench, cloud):
    """Keep-alives and blank lines are signs of life."""

    async def script(connection):
        await connection.live()
        for n in range(12):
            await asyncio.sleep(0.05)
            await connection.raw(b"\n" if n % 2 else b'{"__trace":"keepalive"}\n')
        await connection.send(RECORDS[0])
        await asyncio.Event().wait()

    cloud.script = script
    async with bench.running(idle_timeout=0.4):
        await bench.outlet.until(1)
    assert len(cloud.connections) == 1


@BOTH
async def test_a_full_spool_stops_the_reading_and_the_watchdog(bench, cloud):
    """While the spool is full the sender is held back by TCP, the silence is ours, and all arrives afterwards."""
    big = [b'{"n":%d,"x":"%b"}' % (n, b"y" * 100_000) for n in range(200)]
    bench.outlet.room.clear()
    sent = 0

    async def script(connection):
        nonlocal sent
        await connection.live()
        for record in big:
            await connection.send(record)
            sent += 1
        await asyncio.Event().wait()

    cloud.script = script
    async with bench.running(idle_timeout=0.3):
        await cloud.connected(1)
        await asyncio.sleep(1.0)
        held = sent
        bench.outlet.room.set()
        await bench.outlet.until(len(big))
    assert held < len(big)
    assert bench.outlet.records == big
    assert len(cloud.connections) == 1


@BOTH
async def test_an_instant_close_is_never_answered_in_a_hot_loop(bench, cloud):
    """A service that confirms and closes at once is asked ever more slowly."""

    async def script(connection):
        await connection.live(RECORDS[0])
        await connection.end()

    cloud.script = script
    async with bench.running(reconnect={"base": 0.1, "cap": 60}):
        await asyncio.sleep(2.0)
    # Full jitter: 0.1, 0.2, 0.4, 0.8 … at most, half of it on average, and never less than a hundredth of a second.
    assert 2 <= len(cloud.connections) <= 14
    assert cloud.mints == 1


@BOTH
async def test_no_confirmation_in_time_is_a_failure(bench, cloud):
    """A 200 that is followed by nothing is given up after `connect_timeout`."""

    async def script(connection):
        if len(cloud.connections) == 1:
            await connection.accept()
            await asyncio.Event().wait()
        await cloud.idle(connection)

    cloud.script = script
    async with bench.running(connect_timeout=0.5):
        # A busy machine may take longer than that for the next one, too.
        await bench.report.until(lambda: bench.report.states and bench.report.states[-1][0] == "ok")
    *before, _ = bench.report.states
    assert before
    assert all(state == "degraded" and "not confirmed" in why for state, why, _ in before)
    assert [gap[2] for gap in bench.report.gaps] == ["connect"]


async def test_a_demand_to_wait_is_honoured(bench, cloud):
    """A 429 with `Retry-After` keeps us away for as long as it says."""

    async def script(connection):
        if len(cloud.connections) == 1:
            connection.writer.write(
                b"HTTP/1.1 429 X\r\nRetry-After: 1\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
            )
        else:
            await cloud.idle(connection)

    cloud.script = script
    async with bench.running():
        await cloud.connected(2)
    assert cloud.times[1] - cloud.times[0] >= 1.0
    assert bench.report.errors == ["rate_limited"]


@pytest.mark.parametrize("status", [500, 503])
async def test_a_failing_service_is_tried_again_soon(bench, cloud, status):
    """5xx is temporary."""

    async def script(connection):
        if len(cloud.connections) == 1:
            await refuse(connection, status, b"sorry")
        else:
            await cloud.idle(connection)

    cloud.script = script
    async with bench.running():
        await bench.report.until(lambda: len(bench.report.states) == 2)
    assert bench.report.states[0][0] == "degraded"
    assert "sorry" in bench.report.states[0][1]


async def test_an_unknown_organization_is_permanent(bench, cloud):
    """404 is failed, and tried slowly."""
    cloud.script = lambda connection: refuse(connection, 404, b"no such org")
    async with bench.running():
        await bench.report.until(lambda: bool(bench.report.states))
    assert bench.report.states[0][::2] == ("failed", "not_found")


async def test_a_compressed_answer_is_refused(bench, cloud):
    """Compression was not asked for, and its bytes are not records."""

    async def script(connection):
        connection.writer.write(
            b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"
        )
        await asyncio.Event().wait()

    cloud.script = script
    async with bench.running():
        await bench.report.until(lambda: bool(bench.report.states))
    assert "compressed" in bench.report.states[0][1]
    assert bench.outlet.records == []


@BOTH
async def test_a_service_that_is_away_is_waited_for(bench, cloud):
    """Nothing listens at first; the gap begins with the first try."""
    began = time.time()
    url, bench.account.transport.endpoints = bench.account.endpoints, _nowhere(bench.account.endpoints)
    async with bench.running():
        await bench.report.until(lambda: len(bench.report.states) >= 2)
        bench.account.transport.endpoints = url
        await bench.report.until(lambda: bool(bench.report.gaps))
    start, _, reason = bench.report.gaps[0]
    assert reason == "connect"
    assert start - began < 0.5
    assert bench.report.states[0][::2] == ("degraded", "unavailable")


def _nowhere(endpoints):
    return type(endpoints)("http://127.0.0.1:1/", endpoints.api, endpoints.streams)


async def test_a_cut_record_is_counted_and_a_whole_one_delivered(bench, cloud):
    """The unterminated end of a connection is a record only if it is whole."""

    async def script(connection):
        number = len(cloud.connections)
        if number > 2:
            await cloud.idle(connection)
        await connection.live()
        await connection.raw(RECORDS[0] if number == 1 else RECORDS[1][:10])
        await connection.end()

    cloud.script = script
    async with bench.running():
        await cloud.connected(3)
        await bench.report.until(lambda: len(bench.report.gaps) == 2)
    assert bench.outlet.records == RECORDS[:1]
    assert bench.report.counts == {"cut_records": 1}


@BOTH
async def test_a_connection_that_lasted_resets_the_wait(bench, cloud, monkeypatch):
    """Only a connection that was good for a while makes the next wait short again."""
    monkeypatch.setattr("pipeline.sources.spout.SETTLED", 0.15)

    async def script(connection):
        await connection.live()
        if len(cloud.connections) == 4:
            await asyncio.sleep(0.2)
        await connection.end()

    cloud.script = script
    async with bench.running() as spout:
        await cloud.connected(4)
        assert spout._backoff.tries == 3
        await bench.report.until(lambda: len(bench.report.states) >= 8)
        assert spout._backoff.tries == 1


@BOTH
@pytest.mark.parametrize("run", range(5))
async def test_nothing_is_lost_over_tls_when_the_peer_closes_while_we_are_held_up(secure_bench, run):
    """The spool is full while the other side sends its last megabytes and closes in good order."""
    bench, cloud = secure_bench, secure_bench.cloud
    big = [b'{"n":%d,"x":"%b"}' % (n, b"y" * 1500) for n in range(4000)]
    bench.outlet.room.clear()

    async def script(connection):
        if len(cloud.connections) == 1:
            await connection.live()
            for start in range(0, len(big), 40):
                await connection.send(*big[start : start + 40])
            await connection.end()
        else:
            await cloud.idle(connection)

    cloud.script = script
    async with bench.running():
        await cloud.connected(1)
        await asyncio.sleep(0.1 * run)
        bench.outlet.room.set()
        await bench.outlet.until(len(big))
        await cloud.connected(2)
    assert bench.outlet.records == big
