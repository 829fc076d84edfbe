"""The push side: the emulator connects to the destinations of syslog outputs."""

import asyncio
import json
import os
import re
import socket
import ssl
from concurrent.futures import Future
from contextlib import asynccontextmanager

import pytest
import trustme

from pipeline.emulator.shape import TEXT_LINE, Framer, Shape


class Destination:
    """A listener whose accepted connections are handed out one by one."""

    def __init__(self, port: int) -> None:
        self.address = f"127.0.0.1:{port}"
        self.accepted: asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = asyncio.Queue()


@asynccontextmanager
async def destination(context: ssl.SSLContext | None = None, port: int = 0):
    writers = []

    async def accept(reader, writer):
        writers.append(writer)
        await target.accepted.put((reader, writer))

    server = await asyncio.start_server(accept, "127.0.0.1", port, ssl=context, limit=1 << 22)
    target = Destination(server.sockets[0].getsockname()[1])
    try:
        yield target
    finally:
        server.close()
        for writer in writers:
            writer.transport.abort()


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def context(authority) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    return context


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


@pytest.mark.parametrize("tls", [False, True])
async def test_delivers_and_ends_clean(emulate, ledger, context, tls):
    """An output's destination gets the records, and an end that it answers in order is clean."""
    local = await emulate(events=700)
    async with destination(context if tls else None) as target:
        fields = {"is_tls": str(tls).lower(), "is_no_header": "true", "dest_host": target.address}
        await local.output("one", **fields)
        reader, writer = await target.accepted.get()
        received = [(await reader.readline()).rstrip(b"\n") for _ in range(700)]
        token = await local.token()
        await local.call("DELETE", f"/v1/outputs/{local.oid}", {"name": "one"}, token)
        assert await reader.read() == b""
        writer.close()
        await local.until(lambda: _ended(ledger, 1))
    assert received == ledger.lines("firehose-event-1.jsonl") == ledger.lines("generated-event.jsonl")
    assert ledger.ends() == {"firehose-event-1.jsonl": True}


async def test_a_peer_that_is_killed_while_it_closes_is_unclean(emulate, ledger, context):
    """A FIN without TLS's close_notify, as the kernel sends it for a process that was killed, is no orderly end."""
    local = await emulate(events=700)
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with context.wrap_socket(server.accept()[0], server_side=True) as tls:
                asked.set_result(None)
                while tls.recv(65536):
                    continue
                os.close(tls.detach())

        asked: Future[None] = Future()
        served = asyncio.create_task(asyncio.to_thread(serve))
        address = f"127.0.0.1:{server.getsockname()[1]}"
        await local.output("one", is_tls="true", is_no_header="true", dest_host=address)
        await asyncio.wrap_future(asked)
        await local.until(lambda: _lines(ledger, 700))
        await local.call("DELETE", f"/v1/outputs/{local.oid}", {"name": "one"}, await local.token())
        await served
        await local.until(lambda: _ended(ledger, 1))
    assert ledger.ends() == {"firehose-event-1.jsonl": False}


async def _lines(ledger, count: int) -> bool:
    return len(ledger.lines("firehose-event-1.jsonl")) >= count


async def _ended(ledger, count: int) -> bool:
    return len(ledger.ends()) >= count


@pytest.mark.parametrize("tls", [False, True])
async def test_peer_that_leaves_first_is_unclean(emulate, ledger, context, tls):
    """A connection that the destination closes is unclean, reported, and made again."""
    local = await emulate(events=1)
    async with destination(context if tls else None) as target:
        await local.output("one", is_tls=str(tls).lower(), dest_host=target.address)
        for _ in range(2):
            reader, writer = await target.accepted.get()
            await reader.readline()
            writer.close()
        await local.until(lambda: _ended(ledger, 2))
        _, body = await local.call("GET", f"/v1/errors/{local.oid}", token=await local.token())
    assert ledger.ends() == {"firehose-event-1.jsonl": False, "firehose-event-2.jsonl": False}
    assert [(row["component"], row["error"]) for row in body["errors"]] == [
        ("outputs/one", "connection closed by the destination")
    ]


async def test_peer_that_does_not_answer_the_end(emulate, ledger, context, monkeypatch):
    """A destination that keeps the connection open after the end leaves it unclean."""
    monkeypatch.setattr("pipeline.emulator.dialer.CLOSE_TIMEOUT", 0.2)
    local = await emulate(events=1)
    async with destination() as target:
        await local.output("one", dest_host=target.address)
        reader, _writer = await target.accepted.get()
        await reader.readline()
        await local.turn("close", via="firehose")
        await local.until(lambda: _ended(ledger, 1))
        assert ledger.ends()["firehose-event-1.jsonl"] is False


@pytest.mark.parametrize("tls", [False, True])
async def test_peer_that_closes_before_all_has_arrived(emulate, ledger, context, tls):
    """A destination that closes while records are on their way is unclean, though the emulator had begun to end."""
    local = await emulate()
    async with destination(context if tls else None) as target:
        await local.output("one", is_tls=str(tls).lower(), dest_host=target.address)
        reader, writer = await target.accepted.get()
        await reader.readline()
        await local.turn("output", name="one", enabled=False)
        writer.transport.close()
        await local.until(lambda: _ended(ledger, 1))
    assert ledger.ends() == {"firehose-event-1.jsonl": False}


async def test_strict_tls(emulate, context, authority, tmp_path):
    """A strict output refuses a certificate of an unknown authority, says so, and accepts it once trusted."""
    local = await emulate(events=1)
    async with destination(context) as target:
        await local.output("one", is_tls="true", is_strict_tls="true", dest_host=target.address)

        async def reported() -> bool:
            _, body = await local.call("GET", f"/v1/errors/{local.oid}", token=await local.token())
            return any("CERTIFICATE_VERIFY_FAILED" in row["error"] for row in body["errors"])

        await local.until(reported)
        pem = tmp_path / "ca.pem"
        authority.cert_pem.write_to_path(pem)
        await local.turn("trust", ca=str(pem))
        reader, _ = await target.accepted.get()
        assert (await reader.readline()).startswith(b"<38> {")


async def test_disabled_after_failures_and_enabled_by_an_update(emulate):
    """After so many failures an output rests; setting it again makes the emulator dial at once."""
    local = await emulate(events=1)
    await local.turn("dialer", failures=2, disable_for=3600, backoff_base=0.01)
    address = f"127.0.0.1:{free_port()}"
    await local.output("one", dest_host=address)
    token = await local.token()

    async def disabled() -> bool:
        _, body = await local.call("GET", f"/v1/errors/{local.oid}", token=token)
        return any("disabled" in row["error"] for row in body["errors"])

    await local.until(disabled)
    async with destination(port=int(address.rpartition(":")[2])) as target:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(target.accepted.get(), 0.3)
        await local.output("one", dest_host=address)
        await target.accepted.get()


async def test_disable_knob(emulate):
    """An output can be disabled for a while, which ends its connection, and comes back by itself."""
    local = await emulate(events=1)
    async with destination() as target:
        await local.output("one", dest_host=target.address)
        reader, writer = await target.accepted.get()
        await local.turn("output", name="one", enabled=False, seconds=0.2)
        await reader.read()
        writer.close()
        await target.accepted.get()


async def test_delete_on_failure(emulate):
    """An output that asks for it is gone after its first failure."""
    local = await emulate()
    await local.output("one", dest_host=f"127.0.0.1:{free_port()}", is_delete_on_failure="true")
    token = await local.token()

    async def gone() -> bool:
        return (await local.call("GET", f"/v1/outputs/{local.oid}", token=token))[1] == {local.oid: {}}

    await local.until(gone)


async def test_update_moves_the_destination(emulate):
    """An output set again with another destination leaves the old one in order and dials the new."""
    local = await emulate(events=1)
    async with destination() as old, destination() as new:
        await local.output("one", dest_host=old.address)
        reader, writer = await old.accepted.get()
        await local.output("one", dest_host=new.address)
        await reader.read()
        writer.close()
        await new.accepted.get()


async def test_update_leaves_a_stuck_destination(emulate, monkeypatch):
    """A destination that does not read holds an update up for the time it has to close, no longer."""
    monkeypatch.setattr("pipeline.emulator.dialer.CLOSE_TIMEOUT", 0.2)
    local = await emulate()
    async with destination() as old, destination() as new:
        await local.output("one", dest_host=old.address)
        await old.accepted.get()
        await local.output("one", dest_host=new.address)
        reader, _ = await new.accepted.get()
        assert (await reader.readline()).endswith(b"}\n")


async def test_structured_data_and_filters(emulate):
    """An output with structured data writes RFC 5424 headers, and its filters count."""
    local = await emulate(events=5)
    async with destination() as target:
        await local.output(
            "one", dest_host=target.address, structured_data='[tok@1 k="v"]', event_white_list="DNS_REQUEST"
        )
        reader, _ = await target.accepted.get()
        lines = [await reader.readline() for _ in range(5)]
    for line in lines:
        head, _, record = line.partition(b' [tok@1 k="v"] ')
        assert re.fullmatch(rb"<38>1 \d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ limacharlie limacharlie - -", head)
        assert json.loads(record)["routing"]["event_type"] == "DNS_REQUEST"


async def test_ipv6_destination(emulate):
    """A destination may be an IPv6 address in brackets."""
    local = await emulate(events=1)
    accepted = asyncio.Event()

    async def accept(_reader, writer):
        accepted.set()
        writer.close()

    async with await asyncio.start_server(accept, "::1", 0) as server:
        await local.output("one", dest_host=f"[::1]:{server.sockets[0].getsockname()[1]}")
        await accepted.wait()


LINES = [b'{"a":1}', b'{"b":"' + b"x" * 100 + b'"}', b'{"c":3}']
PLAIN = b"\n".join(LINES) + b"\n"


def frames(*, headed: bool = False, **shape) -> list[bytes]:
    return list(Framer(header=headed).pieces(LINES, Shape(**shape)))


def test_big_writes():
    """By default a group is one write."""
    assert frames() == [PLAIN]


@pytest.mark.parametrize("header", [False, True])
def test_one_write_a_record(header):
    """Each record can be a write, and so a TLS record, of its own."""
    head = b"<38> " if header else b""
    assert frames(headed=header, write="record") == [head + line + b"\n" for line in LINES]


def test_tails_apart():
    """The last byte of each record can come apart, with its LF."""
    assert frames(write="tail") == [piece for line in LINES for piece in (line[:-1], line[-1:] + b"\n")]


def test_split():
    """Writes can be cut at random places, none longer than asked, and lose nothing."""
    pieces = frames(write="split", max_piece=7)
    assert b"".join(pieces) == PLAIN
    assert {len(piece) for piece in pieces} <= set(range(1, 8))
    assert len(pieces) > 10


def test_line_ends_and_extra_lines():
    """CR LF, blank lines and lines of text come as often as asked."""
    assert b"".join(frames(crlf=True)) == PLAIN.replace(b"\n", b"\r\n")
    assert b"".join(frames(blank_every=2)) == LINES[0] + b"\n\n" + LINES[1] + b"\n" + LINES[2] + b"\n"
    assert b"".join(frames(text_every=3)) == b"\n".join([*LINES[:2], TEXT_LINE, LINES[2], b""])


def test_headers():
    """The header is a bare priority, RFC 3164 or RFC 5424, as asked."""
    assert b"".join(frames(headed=True, header="pri")).startswith(b"<38> {")
    assert re.match(
        rb"<38>[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d \w+ \w+: \{", b"".join(frames(headed=True, header="rfc3164"))
    )
    assert re.match(rb"<38>1 \S+Z \w+ \w+ - - - \{", b"".join(frames(headed=True, header="rfc5424")))


def test_octet_counting():
    """Lengths can stand before the frames instead of LF behind them."""
    assert b"".join(frames(headed=True, octet_counting=True)) == b"".join(
        b"%d <38> %b" % (len(line) + 5, line) for line in LINES
    )


def test_duplicates_and_order():
    """Every n-th record can come twice, and the order can be shuffled, and nothing is lost."""
    framer = Framer()
    assert framer.arrange(LINES[:], Shape(duplicate_every=2)) == [LINES[0], LINES[1], LINES[1], LINES[2]]
    many = [b"%d" % number for number in range(50)]
    mixed = framer.arrange(many[:], Shape(reorder=True))
    assert mixed != many
    assert sorted(mixed) == sorted(many)


async def test_live_records(emulate, ledger):
    """In live mode a destination gets what is generated while it is connected, of its own organization only."""
    local = await emulate(rate=200, orgs=2)
    async with destination() as target:
        await local.output("one", dest_host=target.address, is_no_header="true")
        reader, _ = await target.accepted.get()
        received = [(await reader.readline()).rstrip(b"\n") for _ in range(40)]
    assert received == ledger.lines("firehose-event-1.jsonl")[:40]
    assert {json.loads(line)["routing"]["oid"] for line in received} == {local.oid}
    assert set(received) < set(ledger.lines("generated-event.jsonl"))
