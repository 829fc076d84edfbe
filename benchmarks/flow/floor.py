"""The bare loop: TLS on memory BIOs, split, decode, filter, write. No limits, no errors handled, nothing counted.

    python floor.py tls PORT OUTPUT|kafka:BOOTSTRAP/TOPIC CERT KEY [projection] json|bytes|raw

To Kafka it fills batches of 1 MB, for one partition after the other where there is no key, and holds no connection back.

What any asyncio program in CPython pays at least for the job; `python -m benchmarks.flow` says how near to it ours comes.
"""

from __future__ import annotations

import asyncio
import io
import ssl
import sys
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import orjson

if TYPE_CHECKING:
    from aiokafka import AIOKafkaProducer
    from aiokafka.producer.message_accumulator import BatchBuilder

READ = 256 << 10
Choose = Callable[[list[bytes]], list[bytes]]


class Line(asyncio.BufferedProtocol):
    raw = memoryview(bytearray(READ))
    plain = memoryview(bytearray(2 * READ))

    def __init__(self, context: ssl.SSLContext, output: Callable[[list[bytes]], object], choose: Choose) -> None:
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_side=True)
        self.output = output
        self.choose = choose
        self.tail = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def get_buffer(self, sizehint: int) -> memoryview:
        return self.raw

    def buffer_updated(self, size: int) -> None:
        filled = 0
        self.incoming.write(self.raw[:size])
        try:
            while more := self.tls.read(READ, self.plain[filled:]):
                filled += more
        except ssl.SSLError:
            # More is to come, or the peer is at its end.
            pass
        if self.outgoing.pending:
            self.transport.write(self.outgoing.read())
        lines = io.BytesIO(self.tail + bytes(self.plain[:filled])).readlines()
        self.tail = lines.pop() if lines and lines[-1][-1] != 10 else b""
        self.output(self.choose(lines))

    def eof_received(self) -> None:
        self.transport.close()


def decoding(lines: list[bytes]) -> list[bytes]:
    return [line for line in lines if orjson.loads(line)["routing"]["event_type"] == "NEW_PROCESS"]


def looking(lines: list[bytes]) -> list[bytes]:
    return [line for line in lines if b'"event_type":"NEW_PROCESS"' in line]


def projecting() -> Choose:
    import msgspec

    routing = msgspec.defstruct("Routing", [("event_type", msgspec.Raw)], gc=False)
    record = msgspec.defstruct("Record", [("routing", routing)], gc=False)
    decode = msgspec.json.Decoder(record).decode
    wanted = b'"NEW_PROCESS"'
    return lambda lines: [line for line in lines if bytes(decode(line).routing.event_type) == wanted]


class Kafka:
    """Batches for aiokafka, as its documentation shows: no task and no future for a record."""

    def __init__(self, producer: AIOKafkaProducer, topic: str, partitions: int, *, keyed: bool) -> None:
        self.producer, self.topic = producer, topic
        self.keys = Keys(partitions) if keyed else None
        self.partitions = partitions
        self.next = 0
        self.batches = [producer.create_batch() for _ in range(partitions)]
        self.full: asyncio.Queue[tuple[BatchBuilder, int]] = asyncio.Queue()

    def write(self, lines: list[bytes]) -> None:
        for line in lines:
            key = self.keys.of(line) if self.keys else None
            number = self.keys.partition[key] if self.keys else self.next
            if self.batches[number].append(timestamp=None, key=key, value=line[:-1]) is None:
                self.flush(number)
                self.batches[number].append(timestamp=None, key=key, value=line[:-1])

    def flush(self, number: int) -> None:
        self.full.put_nowait((self.batches[number], number))
        self.batches[number] = self.producer.create_batch()
        self.next = (self.next + 1) % self.partitions

    async def send(self) -> None:
        while True:
            try:
                batch, number = await asyncio.wait_for(self.full.get(), 0.05)
            except TimeoutError:
                for number, batch in enumerate(self.batches):
                    if batch.record_count():
                        self.flush(number)
                continue
            await self.producer.send_batch(batch, self.topic, partition=number)


class Keys:
    def __init__(self, partitions: int) -> None:
        from aiokafka.partitioner import murmur2

        class Known(dict[bytes, int]):
            def __missing__(self, key: bytes) -> int:
                return self.setdefault(key, (murmur2(key) & 0x7FFFFFFF) % partitions)

        self.partition = Known()

    def of(self, line: bytes) -> bytes:
        start = line.index(b'"sid":"') + 7
        return line[start : line.index(b'"', start)]


async def main() -> None:
    _, port, path, cert, key, *how = sys.argv[1:]
    ways = {"json": decoding, "bytes": looking, "raw": lambda lines: lines}
    choose = projecting() if "projection" in how else ways[how[-1]]
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    async with AsyncExitStack() as stack:
        if path.startswith("kafka:"):
            from aiokafka import AIOKafkaProducer

            bootstrap, _, topic = path.removeprefix("kafka:").partition("/")
            producer = AIOKafkaProducer(
                bootstrap_servers=bootstrap, acks="all", enable_idempotence=True, max_batch_size=1_000_000
            )
            await producer.start()
            kafka = Kafka(producer, topic, len(await producer.partitions_for(topic)), keyed=how[-1] == "json")
            output = kafka.write
            group = await stack.enter_async_context(asyncio.TaskGroup())
            group.create_task(kafka.send())
        else:
            file = stack.enter_context(io.FileIO(path, "wb"))

            def output(lines: list[bytes]) -> None:
                file.write(b"".join(lines))

        server = await asyncio.get_running_loop().create_server(
            lambda: Line(context, output, choose), "127.0.0.1", int(port)
        )
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
