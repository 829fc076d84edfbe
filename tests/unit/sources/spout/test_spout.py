"""Source `spout`: what it asks for, what it delivers, how it ends."""

import asyncio

import pytest
import structlog.testing
from pydantic import ValidationError

from pipeline.core.errors import AuthenticationError, PermissionDeniedError
from pipeline.sources.spout import SpoutConfig

OID = "8cbe27f4-bfa1-4afb-ba19-138cd51389cd"
BOTH = pytest.mark.parametrize("transport", ["https", "websocket"], indirect=True)
RECORDS = [b'{"cat":"c","detect":{},"n":%d}' % n for n in range(500)]


async def test_it_asks_for_what_is_configured(bench, cloud):
    """The form has the stream, the filters and the options, a token and never the key; compression is not asked for."""
    options = {"event_white_list": ["NEW_PROCESS", "DNS_REQUEST"], "is_flat": True, "sample_rate": 5}
    async with bench.running(tag="prod", cat="c", sid="s", inv_id="i", options=options):
        await cloud.connected(1)
    asked = cloud.connections[0]
    token = asked.form.pop("jwt")
    assert token.count(".") == 2
    assert asked.form == {
        "type": "detect",
        "tag": "prod",
        "cat": "c",
        "sid": "s",
        "inv_id": "i",
        "event_white_list": "NEW_PROCESS\nDNS_REQUEST",
        "is_flat": "true",
        "sample_rate": "5",
    }
    assert asked.path == f"/stream-tmp/{OID}"
    assert "gzip" not in asked.headers


async def test_the_other_host_is_one_key_away(bench, cloud):
    """`host: stream` asks the service that confirms nothing, and the answer's beginning is what counts."""

    async def script(connection):
        await connection.accept()
        await asyncio.Event().wait()

    cloud.script = script
    async with bench.running(host="stream", connect_timeout=0.3):
        await bench.report.until(lambda: bool(bench.report.states))
    assert cloud.connections[0].path == f"/stream/{OID}"
    assert bench.report.states[0][0] == "ok"


async def test_records_arrive_whole_and_in_order(bench, cloud):
    """However the bytes are cut, the records are those that were sent; traces and blank lines are not among them."""
    data = b"\n\n".join(RECORDS) + b"\n"

    async def script(connection):
        await connection.live()
        for start in range(0, len(data), 97):
            await connection.raw(data[start : start + 97])
            if start % 970 == 0:
                await asyncio.sleep(0)
        await connection.send(b'{"__trace":"keepalive"}', b"")
        await asyncio.Event().wait()

    cloud.script = script
    async with bench.running():
        await bench.outlet.until(len(RECORDS))
    assert bench.outlet.records == RECORDS
    assert bench.report.gaps == []


@BOTH
async def test_it_is_ok_only_when_confirmed(bench, cloud):
    """A 200 alone means nothing."""
    confirm = asyncio.Event()

    async def script(connection):
        await connection.accept()
        await confirm.wait()
        await connection.send(b'{"__trace":"connected"}')
        await asyncio.Event().wait()

    cloud.script = script
    async with bench.running():
        await cloud.connected(1)
        await asyncio.sleep(0.05)
        assert bench.report.states == []
        confirm.set()
        await bench.report.until(lambda: bool(bench.report.states))
    assert bench.report.states == [("ok", "Connected.", "")]


@BOTH
async def test_stopping_reads_what_the_kernel_holds(bench, cloud):
    """What arrived before the stop is delivered, even if the source had no time for it yet."""
    sent = asyncio.Event()

    async def script(connection):
        await connection.live(*RECORDS[:10])
        await bench.outlet.until(10)
        # From here on the source's side of the loop gets no turn before the stop.
        connection.write(*RECORDS[10:])
        bench.stopping.set()
        sent.set()
        await asyncio.Event().wait()

    cloud.script = script
    async with bench.running():
        await sent.wait()
    assert bench.outlet.records == RECORDS


@BOTH
@pytest.mark.parametrize("forced", [True, False])
async def test_a_cancelled_source_refuses_what_it_holds(bench, cloud, forced):
    """At the stop timeout, or at once, every record that was read and is not in the spool is refused, once."""
    sent = asyncio.Event()

    async def script(connection):
        await connection.live(RECORDS[0])
        while not bench.outlet.waiting:
            await asyncio.sleep(0.005)
        await connection.send(*RECORDS[1:100])
        await connection.send_unfinished(RECORDS[100])
        sent.set()
        await asyncio.Event().wait()

    cloud.script = script
    bench.outlet.room.clear()
    task = asyncio.ensure_future(bench.spout().run(bench.outlet))
    await sent.wait()
    bench.stopping.set()
    if not forced:
        # Long enough for the connection to come to its end.
        await asyncio.sleep(0.2)
    task.cancel()
    await asyncio.wait([task], timeout=5)
    assert task.cancelled()
    assert bench.outlet.refused == [(raw, "shutdown") for raw in RECORDS[:101]]
    assert bench.outlet.records == []


@BOTH
async def test_stopping_ends_a_connection_attempt(bench, cloud):
    """A service that does not answer does not hold up the end of the process."""

    async def script(connection):
        await asyncio.Event().wait()

    cloud.script = script
    async with asyncio.timeout(3):
        async with bench.running(connect_timeout=60):
            await cloud.connected(1)


@BOTH
async def test_stopping_ends_a_wait_between_connections(bench, cloud):
    """A long back-off is left at once; a source that never got through has no gap."""
    cloud.mint_status = 401
    async with asyncio.timeout(3):
        async with bench.running(reconnect={"refused_base": 600, "refused_cap": 600}):
            await bench.report.until(lambda: bool(bench.report.states))
    assert bench.report.gaps == []


@BOTH
async def test_a_keep_alive_is_proof_that_nothing_is_missing(bench, cloud):
    """Up to the last sign of life nothing is missing, but only once all that came before is with the outlet."""
    on = asyncio.Event()

    async def script(connection):
        await connection.live()
        await on.wait()
        await connection.send(RECORDS[0], b'{"__trace":"keepalive"}')
        await asyncio.Event().wait()

    cloud.script = script
    async with bench.running():
        await bench.report.until(lambda: bench.report.heard_until > 0)
        connected = bench.report.heard_until
        bench.outlet.room.clear()
        on.set()
        async with asyncio.timeout(5):
            while not bench.outlet.waiting:
                await asyncio.sleep(0.001)
        assert bench.report.heard_until == connected
        bench.outlet.room.set()
        await bench.outlet.until(1)
        await bench.report.until(lambda: bench.report.heard_until > connected)


@BOTH
async def test_what_lima_charlie_dropped_is_counted_and_is_a_gap(bench, cloud):
    """`dropped` traces say how many records were lost upstream, and when."""

    async def script(connection):
        await connection.live(RECORDS[0])
        await connection.send(b'{"__trace":"dropped","n":5}', RECORDS[1], b'{"__trace":"dropped","n":2}')
        await asyncio.Event().wait()

    cloud.script = script
    async with bench.running():
        await bench.report.until(lambda: bench.report.dropped == 7)
        await bench.outlet.until(2)
    assert {reason for _, _, reason in bench.report.gaps} == {"dropped"}
    assert all(start <= end for start, end, _ in bench.report.gaps)


async def test_an_oversize_record_is_refused_and_the_next_one_passes(bench, cloud):
    """The beginning of the record goes to the dead letter, once."""

    async def script(connection):
        await connection.live()
        while not bench.outlet.refused:
            await connection.raw(b"x" * 1000)
            await asyncio.sleep(0.001)
        await connection.send(b"", RECORDS[0])
        await asyncio.Event().wait()

    cloud.script = script
    async with bench.running(max_record=5000):
        await bench.outlet.until(1)
    assert bench.outlet.records == RECORDS[:1]
    assert [reason for _, reason in bench.outlet.refused] == ["oversize"]


async def test_an_unknown_stream_is_passed_with_a_warning(bench, cloud):
    """New streams need no new version of the pipeline."""
    with structlog.testing.capture_logs() as lines:
        async with bench.running(stream="novel"):
            await cloud.connected(1)
    assert cloud.connections[0].form["type"] == "novel"
    assert [line["log_level"] for line in lines] == ["warning"]


@pytest.mark.parametrize("name", ["type", "jwt", "api_key", "uid", "tag"])
def test_options_cannot_replace_the_sources_own_fields(name):
    """A form has each field once."""
    with pytest.raises(ValidationError, match=name):
        SpoutConfig.model_validate({"type": "spout", "options": {name: "x"}})


async def test_check_gets_a_token_and_looks_at_its_permissions(bench, cloud):
    """`validate --connect` finds a key that cannot stream without opening a stream."""
    await bench.spout().check()
    assert (cloud.mints, cloud.connections) == (1, [])


async def test_check_names_the_missing_permissions(bench, cloud):
    """A key without any output permission is told which ones it needs."""
    cloud.permissions = ["insight.det.get"]
    with pytest.raises(PermissionDeniedError, match=r"output\.set"):
        await bench.spout().check()


async def test_check_without_credentials_says_so(bench):
    """An organization without an account cannot be streamed from."""
    spout = bench.spout()
    object.__setattr__(spout.orgs[0], "account", None)
    with pytest.raises(AuthenticationError, match="LC_API_KEY"):
        await spout.check()
