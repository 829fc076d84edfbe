"""What sinks do with payloads before they leave."""

from __future__ import annotations

from collections.abc import Callable

from aiokafka.producer.message_accumulator import BatchBuilder

from benchmarks.micro.reading import Cases
from pipeline.kit.codec import Encoder
from pipeline.kit.kafka_batch import Batch
from pipeline.kit.murmur2 import murmur2, partition

BLOCK = 1 << 20


def _blocks(records: list[bytes]) -> list[list[bytes]]:
    """Records in blocks of about 1 MiB, as a sink gets them."""
    blocks: list[list[bytes]] = [[]]
    size = 0
    for record in records:
        if size > BLOCK:
            blocks.append([])
            size = 0
        blocks[-1].append(record)
        size += len(record)
    return blocks


def encode(records: list[bytes]) -> Cases:
    blocks = _blocks(records)

    def frames(encoder: Encoder) -> Callable[[], None]:
        def work() -> None:
            for block in blocks:
                encoder.frame(b"\n".join([*block, b""]))

        return work

    return {
        "plain": frames(Encoder("none")),
        "gzip": frames(Encoder("gzip")),
        "zstd": frames(Encoder("zstd")),
    }


def kafka(records: list[bytes]) -> Cases:
    blocks = _blocks(records)
    keys = [b"%036d" % (number % 500) for number in range(len(records))]
    headers = [("stream", b"event")]

    rows = [[(0, record, None, 1_700_000_000_000, headers) for record in block] for block in blocks]

    def batch(compression: str) -> Callable[[], None]:
        def work() -> None:
            for block in rows:
                built = Batch(2 << 20, compression)
                built.fill(block)
                built._build()

        return work

    def aiokafka() -> None:
        for block in blocks:
            builder = BatchBuilder(2 << 20, 0)
            for record in block:
                builder.append(timestamp=1_700_000_000_000, key=None, value=record, headers=headers)
            builder._build()

    def partitions() -> None:
        for key in keys:
            partition(key, 6)

    def hashes() -> None:
        for key in keys:
            murmur2(key)

    return {
        "batch of 1 MiB": batch("none"),
        "batch of 1 MiB, zstd": batch("zstd"),
        "batch of 1 MiB, aiokafka's builder": aiokafka,
        "partition of a known key": partitions,
        "partition of a new key": hashes,
    }
