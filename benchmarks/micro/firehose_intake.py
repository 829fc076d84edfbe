"""CPU of the firehose listener, with an outlet that drops everything, beside a bare loop on the same bytes.

    python benchmarks/micro/firehose_intake.py [--events 200000] [--rounds 3] [--connections 3]

Prints CPU seconds per million events (user + system of the receiving process) and their ratio; rounds are interleaved, medians count.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import multiprocessing
import os
import random
import selectors
import socket
import ssl
import statistics
import time

import structlog

from pipeline.core.batch import Receipt
from pipeline.core.component import Context, Org
from pipeline.kit.certificates import self_signed_context
from pipeline.kit.clock import SystemClock
from pipeline.sources.firehose import Firehose, FirehoseConfig

OID = "8cbe27f4-bfa1-4afb-ba19-138cd51389cd"
MEAN = 1571


def corpus(count: int) -> list[bytes]:
    """Lines of the size that telemetry has."""
    dice = random.Random(7)
    head = b'{"routing":{"oid":"%s","event_type":"NEW_PROCESS","event_id":"%032x"},"event":{"COMMAND_LINE":"%s"}}\n'
    return [head % (OID.encode(), n, b"x" * dice.randint(MEAN - 900, MEAN + 600)) for n in range(count)]


def send(port: int, count: int, connections: int, *, single: bool, header: bool) -> None:
    """Send from a process of its own: 16 KiB TLS records, or one for each event."""
    lines = [(b"<38> " if header else b"") + line for line in corpus(4000)]
    block = b"".join(lines)
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    socks = [context.wrap_socket(socket.create_connection(("127.0.0.1", port))) for _ in range(connections)]
    for _ in range(count // len(lines) // connections):
        for sock in socks:
            if single:
                for line in lines:
                    sock.sendall(line)
            else:
                sock.sendall(block)
    for sock in socks:
        sock.unwrap()
        sock.close()


class Null:
    """Counts and drops."""

    waiting = False

    def __init__(self) -> None:
        self.count = 0

    async def send(self, raws: list[bytes], **_: object) -> Receipt:
        self.count += len(raws)
        return Receipt()

    def refuse(self, _raw: bytes, reason: str, _org: str | None = None) -> None:
        raise AssertionError(reason)


class Silent:
    """A report that nobody reads."""

    def __getattr__(self, name: str):
        return lambda *_, **__: None


async def ours(run) -> tuple[float, int]:
    stopping, outlet = asyncio.Event(), Null()
    log = structlog.wrap_logger(None, processors=[structlog.testing.LogCapture()])
    context = Context(id="hose", log=log, clock=SystemClock(), report=Silent(), stopping=stopping, orgs=(Org(oid=OID),))
    source = Firehose(FirehoseConfig.model_validate({"listen": "127.0.0.1:0"}), context)
    await source.open()
    task = asyncio.create_task(source.run(outlet))
    await asyncio.sleep(0)
    began = time.process_time()
    await asyncio.to_thread(run, source.address.port)
    stopping.set()
    await task
    spent = time.process_time() - began
    return spent, outlet.count


def bare(run) -> tuple[float, int]:
    """Read, decrypt and split; nothing else."""
    context = self_signed_context(["localhost"])
    raw, plain = memoryview(bytearray(1 << 18)), memoryview(bytearray(1 << 19))
    selector = selectors.DefaultSelector()
    count = 0
    with socket.create_server(("127.0.0.1", 0)) as listener:
        selector.register(listener, selectors.EVENT_READ)
        sender = run(listener.getsockname()[1], wait=False)
        began = time.process_time()
        opened = closed = 0
        while not opened or closed < opened:
            for key, _ in selector.select():
                if key.data is None:
                    sock, _ = listener.accept()
                    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
                    tls = context.wrap_bio(incoming, outgoing, server_side=True)
                    selector.register(sock, selectors.EVENT_READ, [sock, incoming, outgoing, tls, b""])
                    opened += 1
                    continue
                sock, incoming, outgoing, tls, tail = key.data
                size = sock.recv_into(raw)
                if not size:
                    selector.unregister(sock)
                    sock.close()
                    closed += 1
                    continue
                incoming.write(raw[:size])
                filled = 0
                try:
                    while more := tls.read(1 << 18, plain[filled:]):
                        filled += more
                    tls.unwrap()
                except ssl.SSLError:
                    # more is to come
                    pass
                if outgoing.pending:
                    sock.sendall(outgoing.read())
                lines = io.BytesIO(tail + bytes(plain[:filled])).readlines()
                key.data[4] = lines.pop() if lines and lines[-1][-1] != 10 else b""
                count += len(lines)
        spent = time.process_time() - began
        sender.join()
    return spent, count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--connections", type=int, default=3)
    options = parser.parse_args()
    spawn = multiprocessing.get_context("spawn")

    def sender(*, single: bool, header: bool):
        def run(port: int, wait: bool = True):
            arguments = (port, options.events, options.connections)
            process = spawn.Process(target=send, args=arguments, kwargs={"single": single, "header": header})
            process.start()
            if wait:
                process.join()
            return process

        return run

    print(
        f"{options.events} events, {options.connections} connections, {os.cpu_count()} cores; CPU s per million events"
    )
    print(f"{'':28}{'listener':>10}{'bare':>10}{'bare/listener':>16}")
    for name, single, header in (
        ("16 KiB TLS records", False, False),
        ("16 KiB TLS records, header", False, True),
        ("one TLS record per event", True, False),
    ):
        run = sender(single=single, header=header)
        pairs = []
        for _ in range(options.rounds):
            mine, count = asyncio.run(ours(run))
            least, other = bare(run)
            if count != other:
                raise SystemExit(f"{count} events came to us, {other} to the bare loop")
            pairs.append((mine / count * 1e6, least / count * 1e6))
        mine, least = (statistics.median(column) for column in zip(*pairs, strict=True))
        print(f"{name:28}{mine:>10.2f}{least:>10.2f}{least / mine:>16.0%}")


if __name__ == "__main__":
    main()
