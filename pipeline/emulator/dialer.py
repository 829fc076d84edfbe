"""The push side: it connects to the destination of every syslog output, as the cloud does to a Firehose."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pipeline.emulator.connections import Connection
from pipeline.emulator.front import confirmed, reset
from pipeline.emulator.hub import Hub
from pipeline.emulator.selection import Selection, flag
from pipeline.emulator.shape import Framer
from pipeline.emulator.state import Org, Output
from pipeline.kit.backoff import Backoff
from pipeline.kit.log import get

CONNECT_TIMEOUT = 10.0
CLOSE_TIMEOUT = 10.0
STEADY = 5.0
"""Seconds after which a connection counts as a success, so that the failures before it are forgotten."""

log = get(component="dialer")


@dataclass
class Manners:
    """How the dialer takes failures; durations in seconds."""

    failures: int = 5
    """In a row, until an output is disabled."""
    disable_for: float = 60.0
    backoff_base: float = 0.2
    backoff_cap: float = 5.0


class DialWire:
    """A TCP or TLS connection that we opened; the peer only reads, so what it sends is thrown away."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, tls: bool) -> None:
        self._reader = reader
        self._writer = writer
        self._tls = tls
        self._ending = False
        self._orderly = False
        self._notified = not tls
        """Whether the peer has said that it closes; over plain TCP its FIN says so."""
        self._closed = asyncio.Event()
        if tls:
            self._watch_unwrap(writer.get_extra_info("ssl_object"))

    def _watch_unwrap(self, tls: ssl.SSLObject) -> None:
        """See the peer's close_notify, of which asyncio does not tell: the FIN of a process that was killed looks like it."""
        unwrap = tls.unwrap

        def unwrap_and_tell() -> None:
            unwrap()
            self._notified = True

        tls.unwrap = unwrap_and_tell  # type: ignore[method-assign]  # asyncio calls the object's own

    async def watch(self, left: Callable[[], None]) -> None:
        """Read until the peer closes."""
        try:
            while await self._reader.read(65536):
                pass
            self._orderly = self._ending and self._notified
        except OSError:
            # a reset is a way to close as well; it leaves the connection unclean
            self._orderly = False
        finally:
            self._closed.set()
            left()

    async def write(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def end(self, settle: Callable[[bool], None]) -> None:
        await confirmed(self._writer.transport, self._closed.is_set)
        self._ending = True
        if self._tls:
            # sends close_notify and waits for the peer's
            self._writer.close()
        else:
            self._writer.write_eof()
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_TIMEOUT):
                await self._closed.wait()
        settle(self._orderly)

    def cut(self) -> None:
        self._writer.close()

    def abort(self) -> None:
        reset(self._writer.transport)

    async def close(self) -> None:
        """Be rid of it, whatever state it is in."""
        self._writer.close()
        try:
            with suppress(OSError):
                async with asyncio.timeout(CLOSE_TIMEOUT):
                    await self._writer.wait_closed()
        finally:
            self._writer.transport.abort()


class Line:
    """One output's connection, made again for as long as the output exists and is enabled."""

    def __init__(self, dialer: Dialer, org: Org, name: str) -> None:
        self._dialer = dialer
        self._hub = dialer.hub
        self._org = org
        self._name = name
        self._changed = asyncio.Event()
        self._connection: Connection | None = None
        self._failures = 0
        self._backoff = Backoff(dialer.manners.backoff_base, dialer.manners.backoff_cap)

    def refresh(self) -> None:
        """The output changed: end the connection and look again."""
        self._failures = 0
        self._backoff.reset()
        self._changed.set()
        if self._connection is not None:
            self._connection.close("clean")
            # a destination that does not read must not hold the change up
            asyncio.get_running_loop().call_later(CLOSE_TIMEOUT, self._give_up, self._connection)

    def _give_up(self, connection: Connection) -> None:
        if connection is self._connection:
            connection.close("abort")

    async def run(self) -> None:
        while not self._hub.stopping.is_set():
            self._changed.clear()
            output = self._org.outputs.get(self._name)
            if output is None or output.module != "syslog":
                return
            rest = output.disabled_until - time.time()
            if rest > 0:
                await self._wait(rest)
                continue
            began = time.monotonic()
            failure = await self._attempt(output)
            if self._changed.is_set():
                continue
            if time.monotonic() - began > STEADY:
                self._failures = 0
                self._backoff.reset()
            if failure is not None:
                self._failed(output, failure)
            if not self._changed.is_set():
                await self._wait(self._backoff.next())

    async def _wait(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._changed.wait()

    async def _attempt(self, output: Output) -> str | None:
        """Connect and serve; gives the reason for the end, if the destination is to blame."""
        try:
            host, port = _address(output.fields.get("dest_host", ""))
            context = self._dialer.tls_context(output)
            async with asyncio.timeout(CONNECT_TIMEOUT):
                reader, writer = await asyncio.open_connection(
                    host, port, ssl=context, ssl_shutdown_timeout=None if context is None else CLOSE_TIMEOUT
                )
        except (OSError, ValueError) as error:
            return f"failed to connect: {error or type(error).__name__}"
        wire = DialWire(reader, writer, tls=context is not None)
        try:
            # it may have changed while we were connecting
            asked = self._changed.is_set() or await self._serve(output, wire)
        finally:
            await wire.close()
        return None if asked else "connection closed by the destination"

    async def _serve(self, output: Output, wire: DialWire) -> bool:
        """Hand records over; says whether the end was asked for."""
        feed = self._hub.live.subscribe(self._org, output.stream, Selection(output.fields))
        fields = output.fields
        connection = self._connection = Connection(
            via="firehose",
            oid=self._org.oid,
            stream=output.stream,
            name=self._name,
            feed=feed,
            entry=self._hub.ledger.connection("firehose", output.stream),
            framer=Framer(
                header=not flag(fields.get("is_no_header", "")), structured_data=fields.get("structured_data", "")
            ),
            shapes=self._hub.shapes,
            wire=wire,
            keepalive=None,
        )
        try:
            async with asyncio.TaskGroup() as group:
                watch = group.create_task(wire.watch(connection.leave))
                with self._hub.open(connection):
                    await connection.serve()
                watch.cancel()
        finally:
            self._connection = None
            self._hub.live.unsubscribe(self._org, output.stream, feed)
        return connection.closing

    def _failed(self, output: Output, reason: str) -> None:
        self._failures += 1
        self._org.report(f"outputs/{self._name}", reason)
        log.warning("An output failed.", org=self._org.name, output=self._name, reason=reason)
        if flag(output.fields.get("is_delete_on_failure", "")):
            self._org.outputs.pop(self._name, None)
            self._changed.set()
        elif self._failures >= self._dialer.manners.failures:
            self._failures = 0
            self._backoff.reset()
            until = time.time() + self._dialer.manners.disable_for
            self._dialer.disable(self._org, output, until, f"after too many failures: {reason}")
            self._changed.set()


class Dialer:
    """One `Line` per syslog output, of all organizations."""

    def __init__(self, hub: Hub) -> None:
        self.hub = hub
        self.manners = Manners()
        self._authorities: list[Path] = []
        self._lines: dict[tuple[str, str], Line] = {}
        self._group: asyncio.TaskGroup | None = None

    async def run(self) -> None:
        """Dial until the stop; end what is open in order."""
        async with asyncio.TaskGroup() as self._group:
            await self.hub.stopping.wait()
            for line in self._lines.values():
                line.refresh()

    def update(self, org: Org, name: str) -> None:
        """Look at an output that was set, deleted, enabled or disabled."""
        key = (org.oid, name)
        if key in self._lines:
            self._lines[key].refresh()
        elif self._group is not None and name in org.outputs and not self.hub.stopping.is_set():
            self._lines[key] = Line(self, org, name)
            self._group.create_task(self._run(key))

    def disable(self, org: Org, output: Output, until: float, reason: str) -> None:
        """Let an output rest until this Unix time."""
        output.disabled_until = until
        org.report(f"outputs/{output.name}", f"output temporarily disabled {reason}")

    def trust(self, authority: Path) -> None:
        """Accept certificates of this authority (PEM file) where an output is strict; raises `OSError`."""
        ssl.create_default_context(cafile=str(authority))
        self._authorities.append(authority)

    def tls_context(self, output: Output) -> ssl.SSLContext | None:
        if not flag(output.fields.get("is_tls", "")):
            return None
        context = ssl.create_default_context()
        for authority in self._authorities:
            context.load_verify_locations(authority)
        if not flag(output.fields.get("is_strict_tls", "")):
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context

    async def _run(self, key: tuple[str, str]) -> None:
        try:
            await self._lines[key].run()
        finally:
            del self._lines[key]


def _address(text: str) -> tuple[str, int]:
    """``host:port`` or ``[address]:port``; raises `ValueError`."""
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ValueError(f"dest_host is not host:port: {text[:100]}")
    return host.removeprefix("[").removesuffix("]"), int(port)
