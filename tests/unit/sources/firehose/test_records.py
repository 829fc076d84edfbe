"""What arrives on a connection, and in which state."""

from __future__ import annotations

import asyncio
import socket
import ssl

import pytest

from pipeline.kit.framing import TURN


async def test_records_arrive(start, record):
    """Records come out as they went in, in order, without line ends."""
    sent = [record(n, size=n % 3000) for n in range(2000)]
    async with start() as lab:
        await lab.push(b"\n".join(sent) + b"\n")
        assert await lab.outlet.until(2000) == sent
        assert lab.outlet.refused == []


async def test_an_unfinished_whole_record_is_delivered(start, record):
    """A record without LF at the end of a connection is delivered when it is whole."""
    async with start() as lab:
        await lab.push(record(1) + b"\r\n\n" + record(2))
        assert await lab.outlet.until(2) == [record(1), record(2)]


async def test_a_cut_record_is_refused(start, record):
    """A record that its connection cut short is refused as truncated."""
    async with start() as lab:
        await lab.push(record(1) + b"\n" + record(2)[:30])
        await lab.until(lambda: lab.outlet.refused)
        assert lab.outlet.refused == [(record(2)[:30], "truncated")]
        assert lab.outlet.all == [record(1)]


async def test_plain_tcp_behind_a_balancer(start, record):
    """With `tls: off`, also as YAML 1.1 reads it, records come over plain TCP."""
    for off in ("off", False):
        async with start(tls=off) as lab:
            await lab.push(record(1) + b"\n", tls=False)
            assert await lab.outlet.until(1) == [record(1)]


async def test_an_oversize_record_is_counted_and_passed_over(start, record):
    """A record over `max_record` is refused and the next one is read."""
    async with start(max_record=10_000) as lab:
        await lab.push(record(1) + b"\n" + record(2, size=300_000) + b"\n" + record(3) + b"\n")
        assert await lab.outlet.until(2) == [record(1), record(3)]
        ((head, reason),) = lab.outlet.refused
        assert (reason, head) == ("oversize", record(2, size=300_000)[:1024])


async def test_openssl_is_a_client(start, record, openssl):
    """Both TLS versions of a client that is not ours are served."""
    async with start() as lab:
        for version in ("-tls1_2", "-tls1_3"):
            await asyncio.to_thread(openssl, lab.port, record(1) + b"\n", version)
        assert await lab.outlet.until(2) == [record(1)] * 2


async def test_tls_on_a_plain_listener(start):
    """A peer that speaks TLS to a plain listener is sent away with a hint, and its handshake is no record."""
    async with start(tls="off") as lab:
        with pytest.raises(OSError):  # a reset, or an end in the middle of the handshake
            await asyncio.to_thread(_send_and_close, lab.port, b"{}", tls=True)
        await lab.until(lambda: lab.report.counts.get("tls"))
        assert lab.outlet.refused == []
        assert any("Leave `tls: off` out" in line.get("fix", "") for line in lab.log)


@pytest.mark.parametrize("tls", [True, False])
async def test_back_pressure_holds_the_sender(start, record, tls):
    """While the outlet waits, the sender is held by TCP and little is in memory; then all arrives."""
    data = record(1, size=1000) + b"\n"
    total = 20_000
    async with start(tls=None if tls else "off") as lab:
        lab.outlet.gate.clear()
        pushing = asyncio.create_task(lab.push(data * total, tls=tls))
        await lab.until(lambda: lab.source._budget.total > 0)
        await asyncio.sleep(0.3)
        assert lab.source._budget.total < 3 * (256 << 10)
        assert not pushing.done()
        lab.outlet.gate.set()
        await pushing
        assert len(await lab.outlet.until(total)) == total
        await lab.until(lambda: lab.source._budget.total == 0)


def _send_and_close(port: int, data: bytes, *, tls: bool) -> None:
    with socket.create_connection(("127.0.0.1", port)) as sock:
        wire = ssl._create_unverified_context().wrap_socket(sock) if tls else sock
        wire.sendall(data)
        wire.close()


@pytest.mark.timeout(60)
@pytest.mark.parametrize("tls", [True, False])
async def test_closing_while_paused_loses_nothing(start, record, tls):
    """In 100 runs, a peer that closes while we do not read loses no byte of what it sent."""
    one = record(1, size=900) + b"\n"
    # More than the read-ahead, less than what the kernels hold: the peer is gone before we go on.
    data, count = one * 1200, 1200
    async with start(tls=None if tls else "off") as lab:
        for _ in range(100):
            lab.outlet.gate.clear()
            await asyncio.to_thread(_send_and_close, lab.port, data, tls=tls)
            lab.outlet.gate.set()
            assert len(await lab.outlet.until(count)) == count
            lab.outlet.records.clear()
        assert lab.outlet.refused == []


async def test_stop_reads_what_the_kernel_holds(start, record):
    """At the stop, what peers sent before is read and delivered, then they see the end."""
    data = record(1, size=900) + b"\n"
    async with start() as lab:
        lab.outlet.gate.clear()
        reader, writer = await lab.connect()
        writer.write(data * 600)
        await writer.drain()
        await lab.until(lambda: lab.source._budget.total > 0)
        lab.stopping.set()
        lab.outlet.gate.set()
        assert await reader.read() == b""
        await lab.task
        assert len(lab.outlet.all) == 600
        writer.close()


async def test_a_stop_with_a_busy_peer_ends(start, record):
    """A peer that never stops sending does not keep the stop from ending in time."""
    data = record(1, size=900) + b"\n"
    async with start() as lab:
        _, writer = await lab.connect()

        async def flood() -> None:
            while True:
                writer.write(data * 100)
                await writer.drain()

        flooding = asyncio.create_task(flood())
        await lab.outlet.until(100)
        await lab.stop()
        with pytest.raises(OSError):
            await flooding


async def test_a_cancelled_source_refuses_what_it_holds(start, record):
    """At the stop timeout, every record that was read and is not in the spool is refused as `shutdown`, once."""
    async with start() as lab:
        lab.outlet.gate.clear()
        _, writer = await lab.connect()
        writer.write(record(1) + b"\n")
        await lab.until(lambda: any(one.sending for one in lab.source._peers))
        writer.write(record(2) + b"\n" + record(3) + b"\n" + record(4))
        await lab.until(lambda: lab.source._budget.total > 4 * len(record(1)))
        await lab.cancel()
        assert sorted(lab.outlet.refused) == [(record(n), "shutdown") for n in range(1, 5)]
        assert lab.outlet.all == []
        assert not lab.source._peers
        writer.transport.abort()


async def test_what_was_never_read_is_told(start, record):
    """Bytes that the kernel still holds at the stop timeout are no records yet, but their number is logged, and they are a gap."""
    data = record(1, size=900) + b"\n"
    async with start(tls="off") as lab:
        _, writer = await lab.connect(tls=False)
        writer.write(data)
        await lab.outlet.until(1)
        lab.outlet.gate.clear()
        writer.write(data * 3000)
        await lab.until(lambda: any(one.unread for one in lab.source._peers))
        await lab.cancel()
        (entry,) = [entry for entry in lab.log if entry["log_level"] == "error"]
        assert entry["bytes"] > 0
        assert entry["event"] == "There was no time to read all that peers sent."
        assert lab.report.open_gaps == {"": "unread"}
        writer.transport.abort()


async def test_a_cancelled_source_refuses_what_waits_for_its_turn(start):
    """Records that were read and not parsed yet are refused one by one, too."""
    async with start(tls="off") as lab:
        lab.outlet.gate.clear()
        _, writer = await lab.connect(tls=False)
        writer.write(b"2 {}" * 5000)
        await lab.until(lambda: lab.source._budget.total >= 15_000)
        await lab.cancel()
        assert lab.outlet.refused == [(b"{}", "shutdown")] * 5000
        writer.transport.abort()


async def test_tiny_records_come_in_turns(start):
    """A read full of the smallest frames arrives whole, and is taken a piece at a time, so that others get their turn."""
    async with start(tls="off") as lab:
        await lab.push(b"2 {}" * 60_000, tls=False)
        assert await lab.outlet.until(60_000) == [b"{}"] * 60_000
        assert lab.outlet.largest <= 2 * TURN


async def test_headers_are_told_apart_per_record(start, record):
    """Every kind of header may come on one connection, mixed."""
    framed = b"<38>1 2026-01-01T00:00:00Z h lc - - - " + record(4)
    lines = [
        record(1) + b"\n",
        b"<38> " + record(2) + b"\r\n",
        b"<38>Jan  2 03:04:05 host lc[1]: " + record(3) + b"\n",
        b"%d %s" % (len(framed), framed),
        rb'<38>1 2026-01-01T00:00:00Z h lc - - [x@1 a="{\"]\]"][y] ' + record(5) + b"\n",
    ]
    async with start() as lab:
        await lab.push(b"".join(lines))
        assert await lab.outlet.until(5) == [record(n) for n in range(1, 6)]
