"""The listener: limits, certificates, addresses."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl

import pytest
import trustme

from pipeline.core.component import Org
from pipeline.core.errors import ConfigError


def write_pair(authority, folder, *names):
    issued = authority.issue_cert(*names)
    issued.cert_chain_pems[0].write_to_path(folder / "tls.crt")
    issued.private_key_pem.write_to_path(folder / "tls.key")


async def served_by(lab, authority):
    """The serial number of the certificate that a strict client sees."""
    context = ssl.create_default_context()
    authority.configure_trust(context)
    _, writer = await asyncio.open_connection("localhost", lab.port, ssl=context)
    serial = writer.get_extra_info("peercert")["serialNumber"]
    writer.close()
    await writer.wait_closed()
    return serial


async def test_both_families_are_served(start, record):
    """`:port` and `[::]:port` take IPv4 and IPv6 connections on one port."""
    for listen in (":0", "[::]:0", "localhost:0"):
        async with start(listen=listen) as lab:
            for host in ("127.0.0.1", "::1") if listen != "localhost:0" else ("localhost",):
                _, writer = await lab.connect(host=host)
                writer.write(record(1) + b"\n")
                await lab.outlet.until(1)
                lab.outlet.records.clear()
                writer.close()
                await writer.wait_closed()


async def test_a_taken_port_is_a_config_error(start):
    """A port that is taken is a config error that names the address and the cause."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(ConfigError, match=f"cannot listen on {address}: Address already in use"):
            async with start(listen=address):
                pass


async def test_a_given_certificate_is_served_and_reloaded(start, tmp_path, monkeypatch):
    """Certificate files are used, loaded again when they change, and a bad pair leaves the old one in place."""
    monkeypatch.setattr("pipeline.sources.firehose_certificate.CERTIFICATE_CHECK", 0.02)
    authority = trustme.CA()
    write_pair(authority, tmp_path, "localhost")
    async with start(tls={"cert": tmp_path / "tls.crt", "key": tmp_path / "tls.key"}) as lab:
        first = await served_by(lab, authority)
        (tmp_path / "tls.key").write_text("nonsense")
        await lab.until(lambda: lab.report.errors)
        assert lab.report.errors == ["config"]
        assert [entry["log_level"] for entry in lab.log if "stays" in entry["event"]] == ["error"]
        assert await served_by(lab, authority) == first
        write_pair(authority, tmp_path, "localhost")
        await lab.until(lambda: any("loaded again" in entry["event"] for entry in lab.log))
        assert await served_by(lab, authority) != first


async def test_a_bad_certificate_stops_the_start(start, tmp_path):
    """Files that are no pair are a config error."""
    for name in ("tls.crt", "tls.key"):
        (tmp_path / name).write_text("nonsense")
    with pytest.raises(ConfigError, match=r"tls\.crt and .*tls\.key cannot be used"):
        async with start(tls={"cert": tmp_path / "tls.crt", "key": tmp_path / "tls.key"}):
            pass


async def test_a_health_check_is_counted_and_not_logged(start):
    """A connect without a byte is a health check."""
    async with start() as lab:
        quiet = len(lab.log)
        _, writer = await lab.connect(tls=False)
        writer.close()
        await writer.wait_closed()
        await lab.until(lambda: lab.report.counts.get("silent"))
        assert len(lab.log) == quiet
        assert lab.report.counts == {"silent": 1}


async def test_a_failed_handshake_is_counted_and_logged(start):
    """Bytes that are no TLS end the connection, with a warning."""
    async with start() as lab:
        reader, writer = await lab.connect(tls=False)
        writer.write(b"GET / HTTP/1.1\r\n\r\n")
        await asyncio.wait_for(reader.read(), 10)
        writer.close()
        await lab.until(lambda: lab.report.counts.get("handshake"))
        assert lab.report.errors == ["tls"]
        assert [entry["event"] for entry in lab.log if entry["log_level"] == "warning"] == ["A TLS connection failed."]


@pytest.mark.parametrize(("first", "count"), [(b"", "silent"), (b"\x16\x03\x01", "handshake")])
async def test_a_slow_handshake_is_ended(start, first, count):
    """Who does not come to an agreement within `handshake_timeout` is disconnected."""
    async with start(handshake_timeout=0.1) as lab:
        reader, writer = await lab.connect(tls=False)
        writer.write(first)
        with contextlib.suppress(ConnectionError):
            assert await asyncio.wait_for(reader.read(), 10) == b""
        writer.close()
        await lab.until(lambda: lab.report.counts.get(count))
        await lab.until(lambda: not lab.source._peers)


async def test_idle_connections_are_closed_where_asked(start, record):
    """A connection without a byte for `idle_timeout` is closed; what it brought stays."""
    async with start(idle_timeout=0.2) as lab:
        reader, writer = await lab.connect()
        writer.write(record(1) + b"\n")
        assert await asyncio.wait_for(reader.read(), 10) == b""
        writer.close()
        assert lab.outlet.all == [record(1)]
        assert lab.report.counts["idle"] == 1


async def test_too_many_connections(start, record):
    """At the limit a connection that brought nothing gives way; where all did bring something, the new one does."""
    async with start(max_connections=2) as lab:
        idle_reader, idle = await lab.connect()
        _, first = await lab.connect()
        first.write(record(1) + b"\n")
        await lab.outlet.until(1)
        _, second = await lab.connect()
        with contextlib.suppress(ConnectionError):
            assert await asyncio.wait_for(idle_reader.read(), 10) == b""
        second.write(record(2) + b"\n")
        await lab.outlet.until(2)
        with pytest.raises((ConnectionError, ssl.SSLError)):
            await lab.connect()
        first.write(record(3) + b"\n")
        assert await lab.outlet.until(3) == [record(1), record(2), record(3)]
        for writer in (idle, first, second):
            writer.close()


async def test_unfinished_records_take_turns(start, record):
    """Ten connections with large records pass a limit that holds two of them; none is lost, all bounded."""
    big = [record(n, size=900_000) for n in range(10)]
    async with start(max_record=1_000_000, max_unparsed=2_000_000) as lab:
        peak = 0

        async def push(data: bytes) -> None:
            nonlocal peak
            _, writer = await lab.connect()
            # Who has shown an oid before is not taken for a stranger when the room gets short.
            data = record(0) + b"\n" + data
            for at in range(0, len(data), 50_000):
                writer.write(data[at : at + 50_000])
                await writer.drain()
                peak = max(peak, lab.source._budget.total)
                await asyncio.sleep(0)
            writer.close()
            await writer.wait_closed()

        async with asyncio.timeout(15):
            await asyncio.gather(*(push(data + b"\n") for data in big))
            arrived = await lab.outlet.until(20)
            assert sorted(raw for raw in arrived if raw != record(0)) == sorted(big)
        assert peak < 2_000_000 + 1_000_000 + (256 << 10)
        await lab.until(lambda: lab.source._budget.total == 0)


@pytest.mark.parametrize(("orgs", "first"), [(None, b""), (None, b'{"x":1}\n'), ((Org(),), b"")])
async def test_strangers_cannot_hold_up_a_peer(start, record, orgs, first):
    """Strangers whose records never end are dropped at once when the room gets short, and a known peer goes on."""
    async with start(max_record=100_000, max_unparsed=150_000, **({"orgs": orgs} if orgs else {})) as lab:
        _, peer = await lab.connect()
        peer.write(record(0) + b"\n")
        await lab.outlet.until(1)
        strangers = []
        for _ in range(4):
            _, writer = await lab.connect()
            writer.write(first + b'{"a":"' + b"x" * 90_000)
            strangers.append(writer)
        await lab.until(lambda: lab.report.counts.get("unfinished") == 3)
        assert lab.source._budget.total <= 150_000
        peer.write(record(1) + b"\n")
        await lab.until(lambda: record(1) in lab.outlet.all)
        assert {reason for _, reason in lab.outlet.refused} == {"unfinished"}
        for writer in (peer, *strangers):
            writer.transport.abort()


@pytest.mark.parametrize("orgs", [None, (Org(),)])
async def test_quiet_strangers_make_room(start, record, monkeypatch, orgs):
    """Connections that brought a record without an allowed oid, and are quiet, give way to a new one, the oldest first."""
    monkeypatch.setattr("pipeline.sources.firehose_peers.STALE", 0.1)
    async with start(max_connections=3, **({"orgs": orgs} if orgs else {})) as lab:
        strangers = []
        for count in range(1, 4):
            strangers.append(await lab.connect())
            strangers[-1][1].write(b'{"x":1}\n')
            await lab.outlet.until(count)
        await asyncio.sleep(0.15)
        _, peer = await lab.connect()
        peer.write(record(1) + b"\n")
        assert (await lab.outlet.until(4))[-1] == record(1)
        with contextlib.suppress(ConnectionError):
            assert await asyncio.wait_for(strangers[0][0].read(), 10) == b""
        assert lab.report.counts["gave_way"] == 1
        assert [one.usable for one in lab.source._peers] == [True] * 3
        for _, writer in (*strangers, (None, peer)):
            writer.transport.abort()


async def test_connections_end_without_traces(start, record):
    """Nothing of a connection is kept when it is over, however it ended."""
    async with start() as lab:
        for data in (record(1) + b"\n", record(1)[:20], b""):
            await lab.push(data)
            _, writer = await lab.connect()
            writer.write(data)
            writer.transport.abort()
        await lab.until(lambda: not lab.source._peers)
        assert lab.source._budget.total == 0
        assert not lab.source._budget._members


async def test_close_is_safe_without_open_and_twice(start):
    """`close` may come at any time."""
    async with start() as lab:
        await lab.stop()
        await lab.source.close()
        await lab.source.close()
