"""A cloud that does exactly what a test tells it, on real sockets, and what a source sees of its engine."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import ssl
import time
import urllib.parse
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import orjson
import pytest
import trustme

from pipeline.core.batch import Receipt
from pipeline.core.component import Context, Org
from pipeline.kit import log
from pipeline.kit.clock import SystemClock
from pipeline.limacharlie.client import LimaCharlie
from pipeline.limacharlie.config import LimaCharlieConfig
from pipeline.sources.spout import Spout, SpoutConfig

OID = "8cbe27f4-bfa1-4afb-ba19-138cd51389cd"
KEY = "11111111-2222-3333-4444-555555555555"
HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


class Connection:
    """The server's side of one stream connection."""

    def __init__(self, writer: asyncio.StreamWriter, path: str, form: dict[str, str], headers: str) -> None:
        self.writer = writer
        self.path = path
        self.form = form
        self.headers = headers

    def write(self, *lines: bytes) -> None:
        """One HTTP chunk of lines, on its way."""
        data = b"".join(line + b"\n" for line in lines)
        self.writer.write(b"%x\r\n%b\r\n" % (len(data), data))

    async def send(self, *lines: bytes) -> None:
        self.write(*lines)
        await self.writer.drain()

    async def send_unfinished(self, record: bytes) -> None:
        """A record whose line end is yet to come."""
        await self.raw(record)

    async def raw(self, data: bytes) -> None:
        self.writer.write(b"%x\r\n%b\r\n" % (len(data), data))
        await self.writer.drain()

    async def end(self) -> None:
        self.writer.write(b"0\r\n\r\n")
        await self.writer.drain()

    def abort(self) -> None:
        self.writer.transport.abort()

    async def accept(self) -> None:
        """Answer as a stream that is not yet in force."""
        self.writer.write(HEAD)

    async def live(self, *lines: bytes) -> None:
        """Answer as a stream that is in force, then send these records."""
        await self.accept()
        await self.send(b'{"__trace":"connected"}', *lines)


class WebSocketConnection(Connection):
    """The same over a WebSocket, which the peer has asked for already; frames are made by hand."""

    def __init__(self, reader: asyncio.StreamReader, *given: Any) -> None:
        super().__init__(*given)
        self.reader = reader
        self.codes: list[int] = []
        """Codes of the peer's close frames."""
        self.pongs: list[bytes] = []

    async def accept(self) -> None:
        pass

    def write(self, *lines: bytes) -> None:
        self.writer.write(b"".join(frame(0x1, line) for line in lines))

    async def send_unfinished(self, record: bytes) -> None:
        await self.send(record)  # there is no such thing

    async def raw(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def end(self, code: int = 1000, text: str = "") -> None:
        """Close as the protocol says: the peer answers, then the connection ends."""
        self.writer.write(frame(0x8, code.to_bytes(2) + text.encode()))
        await self.writer.drain()
        while not self.codes:
            await self.receive()

    async def receive(self) -> bytes:
        """Take the peer's next frame."""
        first, length = await self.reader.readexactly(2)
        length &= 0x7F
        if length >= 126:
            length = int.from_bytes(await self.reader.readexactly(2 if length == 126 else 8))
        mask = await self.reader.readexactly(4)
        data = bytes(byte ^ mask[n % 4] for n, byte in enumerate(await self.reader.readexactly(length)))
        if first & 0xF == 0x8:
            self.codes.append(int.from_bytes(data[:2]))
        if first & 0xF == 0xA:
            self.pongs.append(data)
        return data


def frame(opcode: int, data: bytes, *, last: bool = True) -> bytes:
    size = len(data)
    length = bytes([size]) if size < 126 else b"\x7e" + size.to_bytes(2) if size < 65536 else b"\x7f" + size.to_bytes(8)
    return bytes([opcode | (0x80 if last else 0)]) + length + data


Script = Callable[[Connection], Awaitable[None]]


class Cloud:
    """Serves tokens at ``/`` and hands each stream connection to the script that the test set."""

    def __init__(self) -> None:
        self.url = ""
        self.script: Script = self.idle
        self.connections: list[Connection] = []
        self.times: list[float] = []
        self.mints = 0
        self.mint_status = 200
        self.permissions = ["output.list", "output.set", "output.del"]
        self.asked = asyncio.Condition()
        self.upgrade_status = 101
        self.upgrade_headers = ""

    async def idle(self, connection: Connection) -> None:
        await connection.live()
        await asyncio.Event().wait()

    def token(self) -> str:
        claims = {"exp": time.time() + 3600, "n": self.mints, "oid": [OID], "perms": self.permissions}
        return "e30." + base64.urlsafe_b64encode(orjson.dumps(claims)).decode().rstrip("=") + ".c2ln"

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            headers = {key.lower(): value for key, _, value in (line.partition(": ") for line in head.splitlines())}
            if headers.get("upgrade", "").lower() == "websocket":
                await self._upgrade(reader, writer, head, headers["sec-websocket-key"])
                writer.close()
                return
            length = int(headers["content-length"])
            form = dict(urllib.parse.parse_qsl((await reader.readexactly(length)).decode(), keep_blank_values=True))
            path = head.split()[1]
            if path == "/":
                self.mints += 1
                body = orjson.dumps({"jwt": self.token()} if self.mint_status == 200 else {"error": "unknown api key"})
                writer.write(
                    b"HTTP/1.1 %d X\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%b"
                    % (self.mint_status, len(body), body)
                )
            else:
                await self._serve(Connection(writer, path, form, head))
            await writer.drain()
        writer.close()

    async def _serve(self, connection: Connection) -> None:
        async with self.asked:
            self.connections.append(connection)
            self.times.append(time.monotonic())
            self.asked.notify_all()
        await self.script(connection)

    async def _upgrade(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: str, key: str) -> None:
        if self.upgrade_status != 101:
            status, self.upgrade_status = self.upgrade_status, 101
            self.times.append(time.monotonic())
            writer.write(f"HTTP/1.1 {status} X\r\n{self.upgrade_headers}Content-Length: 0\r\n\r\n".encode())
            await writer.drain()
            return
        magic = f"{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11".encode()
        accept = base64.b64encode(hashlib.sha1(magic).digest()).decode()
        writer.write(
            f"HTTP/1.1 101 X\r\nUpgrade: websocket\r\nConnection: upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\r\n".encode()
        )
        connection = WebSocketConnection(reader, writer, head.split()[1], {}, head)
        connection.form = orjson.loads(await connection.receive())
        await self._serve(connection)

    async def connected(self, count: int) -> None:
        """Wait until this many stream connections were asked for."""
        async with self.asked:
            await self.asked.wait_for(lambda: len(self.connections) >= count)


class Report:
    """Remembers what the source reports."""

    def __init__(self) -> None:
        self.states: list[tuple[str, str, str]] = []
        self.errors: list[str] = []
        self.gaps: list[tuple[float, float, str]] = []
        """Those that are over."""
        self.open_gap: tuple[float, str] | None = None
        self.heard_until = 0.0
        self.dropped = 0
        self.counts: dict[str, int] = {}
        self.changed = asyncio.Condition()

    def _notify(self) -> None:
        async def notify() -> None:
            async with self.changed:
                self.changed.notify_all()

        self._task = asyncio.ensure_future(notify())

    def state(self, state: str, text: str = "", code: str = "") -> None:
        self.states.append((state, text, code))
        self._notify()

    def error(self, code: str, count: int = 1) -> None:
        self.errors.extend([code] * count)

    def gap(self, start: float, end: float, reason: str, *, org: str = "", records: int = 0) -> None:
        assert org == "acme"
        assert records > 0
        self.gaps.append((start, end, reason))
        self._notify()

    def gap_opened(self, start: float, reason: str, *, org: str = "") -> None:
        assert org == "acme"
        self.open_gap = self.open_gap or (start, reason)
        self._notify()

    def gap_closed(self, *, org: str = "") -> None:
        assert org == "acme"
        if self.open_gap is not None:
            start, reason = self.open_gap
            self.open_gap = None
            self.gaps.append((start, time.time(), reason))
            self._notify()

    def heard(self, when: float, *, org: str = "") -> None:
        assert org == "acme"
        self.heard_until = when
        self._notify()

    def upstream_dropped(self, count: int, *, org: str = "") -> None:
        assert org == "acme"
        self.dropped += count
        self._notify()

    def count(self, name: str, amount: int = 1) -> None:
        self.counts[name] = self.counts.get(name, 0) + amount

    async def until(self, condition: Callable[[], bool]) -> None:
        async with self.changed:
            await self.changed.wait_for(condition)


class Outlet:
    """Takes records; `full` makes it wait as a full spool does."""

    def __init__(self) -> None:
        self.records: list[bytes] = []
        self.refused: list[tuple[bytes, str]] = []
        self.room = asyncio.Event()
        self.room.set()
        self.waiting = False
        self.changed = asyncio.Condition()

    async def send(self, raws: list[bytes], stream: str | None = None, org: str | None = None) -> Receipt:
        assert stream is org is None
        self.waiting = not self.room.is_set()
        try:
            await self.room.wait()
        except asyncio.CancelledError:
            # As the engine's outlet does with what it could not append.
            self.refused += [(raw, "shutdown") for raw in raws]
            raise
        async with self.changed:
            self.records.extend(raws)
            self.changed.notify_all()
        return Receipt(len(raws))

    def refuse(self, raw: bytes, reason: str, org: str | None = None) -> None:
        assert org is None
        self.refused.append((raw, reason))

    async def until(self, count: int) -> None:
        async with self.changed:
            await self.changed.wait_for(lambda: len(self.records) >= count)


class Bench:
    """A spout that runs against the cloud."""

    def __init__(self, cloud: Cloud, transport: str = "https", **section: object) -> None:
        self.cloud = cloud
        self.transport = transport
        self.report = Report()
        self.outlet = Outlet()
        self.stopping = asyncio.Event()
        self.account = LimaCharlie(LimaCharlieConfig(oid=OID, api_key=KEY, url=cloud.url, **section), environ={})

    def spout(self, **config: object) -> Spout:
        waits = {"base": 0.02, "cap": 0.2, "refused_base": 0.2, "refused_cap": 0.5}
        settings = SpoutConfig.model_validate({
            "type": "spout", "stream": "detect", "transport": self.transport, "reconnect": waits, **config,
        })  # fmt: skip
        context = Context(
            id="detections",
            log=log.get(component="detections"),
            clock=SystemClock(),
            report=self.report,
            stopping=self.stopping,
            orgs=(Org("acme", OID, self.account),),
        )
        return Spout(settings, context)

    @asynccontextmanager
    async def running(self, **config: object) -> AsyncIterator[Spout]:
        spout = self.spout(**config)
        await spout.open()
        task = asyncio.ensure_future(spout.run(self.outlet))
        try:
            yield spout
        finally:
            self.stopping.set()
            await asyncio.wait_for(task, 5)


@asynccontextmanager
async def serving(certificate: trustme.LeafCert | None = None) -> AsyncIterator[Cloud]:
    """A cloud on a port of its own, over TLS where it has a certificate."""
    cloud = Cloud()
    tasks: set[asyncio.Task[None]] = set()
    context = None
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        certificate.configure_cert(context)

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        with suppress(asyncio.CancelledError):
            await cloud.handle(reader, writer)
        writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0, ssl=context)
    cloud.url = f"{'https' if context else 'http'}://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    yield cloud
    server.close()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await server.wait_closed()


@pytest.fixture
async def cloud() -> AsyncIterator[Cloud]:
    async with serving() as cloud:
        yield cloud


@pytest.fixture
def transport(request: pytest.FixtureRequest) -> str:
    """How the spout of a bench travels; a test that is for both forms says so by ``parametrize(..., indirect=True)``."""
    return str(getattr(request, "param", "https"))


@pytest.fixture
async def bench(cloud: Cloud, transport: str) -> AsyncIterator[Bench]:
    bench = Bench(cloud, transport)
    yield bench
    await bench.account.close()


@pytest.fixture
async def secure_bench(tmp_path: Path, transport: str) -> AsyncIterator[Bench]:
    """A bench whose cloud speaks TLS, with a certificate authority of its own."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    async with serving(authority.issue_cert("127.0.0.1")) as cloud:
        bench = Bench(cloud, transport, tls={"ca": tmp_path / "ca.pem"})
        yield bench
        await bench.account.close()
