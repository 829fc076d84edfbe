"""CPU of the sink `kafka` per million records, beside a bare `create_batch` / `send_batch` loop in the same run.

Needs a broker: that of KAFKA_BOOTSTRAP, or one that is started here (Java 17 and Maven). The broker's CPU is not counted.

    python benchmarks/micro/kafka_sink.py [--records 100000] [--rounds 5] [--compression zstd]
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import os
import random
import statistics
import sys
import tempfile
import time
import uuid
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from pathlib import Path

import orjson
import structlog
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from pipeline.core.batch import LogId
from pipeline.core.component import Context
from pipeline.core.items import Items, Part
from pipeline.kit.clock import SystemClock
from pipeline.sinks.kafka import KafkaSink, KafkaSinkConfig

PARTITIONS = 6
WRITE = 600
"""Records of one write: just under 1 MB."""
BATCH = 256
"""Records of one part, as sources make them."""


class Quiet:
    """A `Report` that keeps nothing."""

    def __getattr__(self, _name: str) -> Callable[..., None]:
        return lambda *_arguments, **_named: None


def corpus(count: int) -> tuple[list[bytes], list[dict[str, str]]]:
    """JSON records of about 1.5 KB and the sensor ids that are their keys."""
    rng = random.Random(7)
    sensors = [str(uuid.UUID(int=rng.getrandbits(128))) for _ in range(500)]
    words = ["".join(rng.choices("abcdefghijklmnopqrstuvwxyz\\\\ .-", k=rng.randint(3, 20))) for _ in range(3000)]
    payloads, values = [], []
    for n in range(count):
        sid = rng.choice(sensors)
        event = {rng.choice(words): " ".join(rng.choices(words, k=8)) for _ in range(12)}
        routing = {
            "sid": sid,
            "event_id": str(uuid.UUID(int=rng.getrandbits(128))),
            "event_time": 1_700_000_000_000 + n,
        }
        payloads.append(orjson.dumps({"routing": routing, "event": event}))
        values.append({"routing/sid": sid})
    return payloads, values


def writes(payloads: list[bytes], values: list[dict[str, str]] | None) -> list[Items]:
    found = []
    for start in range(0, len(payloads), WRITE):
        parts = []
        for at in range(start, min(start + WRITE, len(payloads)), BATCH):
            span = slice(at, min(at + BATCH, start + WRITE))
            parts.append(
                Part(payloads[span], "event", LogId("bench"), 1_700_000_000.0, values=values[span] if values else None)
            )
        found.append(Items(parts))
    return found


async def measure(bootstrap: str, arguments: argparse.Namespace) -> None:
    payloads, values = corpus(arguments.records)
    topic = f"bench-{uuid.uuid4().hex[:8]}"
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    await admin.create_topics([NewTopic(topic, PARTITIONS, 1, topic_configs={"retention.bytes": str(64 << 20)})])
    await asyncio.sleep(1)
    codec = None if arguments.compression == "none" else arguments.compression
    producer = AIOKafkaProducer(
        bootstrap_servers=bootstrap, enable_idempotence=True, compression_type=codec, max_batch_size=2 << 20
    )
    await producer.start()

    async def bare(headers: list[tuple[str, bytes]]) -> None:
        for start in range(0, len(payloads), WRITE):
            batch = producer.create_batch()
            for payload in payloads[start : start + WRITE]:
                batch.append(timestamp=1_700_000_000_000, key=None, value=payload, headers=headers)
            await (await producer.send_batch(batch, topic, partition=start // WRITE % PARTITIONS))

    async def through(sink: KafkaSink, given: list[Items]) -> None:
        for items in given:
            await sink.write(items)

    sinks = []
    for key in (None, "routing/sid"):
        config = KafkaSinkConfig(bootstrap_servers=bootstrap, topic=topic, key=key, compression=arguments.compression)
        context = Context("bench", structlog.get_logger(), SystemClock(), Quiet(), asyncio.Event())
        sinks.append(KafkaSink(config, context))
        await sinks[-1].open({})
    unkeyed, keyed = writes(payloads, None), writes(payloads, values)
    cases: dict[str, Callable[[], Awaitable[None]]] = {
        "bare loop": lambda: bare([]),
        "bare loop, header": lambda: bare([("stream", b"event")]),
        "sink, no key": lambda: through(sinks[0], unkeyed),
        "sink, key": lambda: through(sinks[1], keyed),
    }
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in cases}
    for number in range(arguments.rounds + 1):
        for name, run in cases.items():
            wall, cpu = time.perf_counter(), time.process_time()
            await run()
            if number:  # the first round warms up
                found[name].append((time.process_time() - cpu, time.perf_counter() - wall))
    size = sum(map(len, payloads)) / len(payloads)
    print(f"{len(payloads)} records of {size:.0f} bytes, {arguments.compression}, median of {arguments.rounds} rounds")
    base = statistics.median(cpu for cpu, _ in found["bare loop"])
    for name, times in found.items():
        cpu = statistics.median(cpu for cpu, _ in times)
        wall = statistics.median(wall for _, wall in times)
        print(
            f"{name:20} {cpu / len(payloads) * 1e6:6.2f} CPU s per million   {cpu / base:5.2f} of bare"
            f"   {len(payloads) / wall:9.0f} records/s"
        )
    for sink in sinks:
        await sink.close()
    await producer.stop()
    await admin.delete_topics([topic])
    await admin.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--compression", default="zstd", choices=["none", "gzip", "snappy", "lz4", "zstd"])
    arguments = parser.parse_args()
    with ExitStack() as stack:
        bootstrap = os.environ.get("KAFKA_BOOTSTRAP")
        if bootstrap is None:
            path = Path(__file__).parents[2] / "tests" / "kafka_broker.py"
            spec = importlib.util.spec_from_file_location("kafka_broker", path)
            assert spec is not None
            assert spec.loader is not None
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="kafka-")))
            try:
                broker = module.Broker(folder)
            except module.BrokerUnavailable as error:
                sys.exit(f"No Kafka: {error}")
            stack.callback(broker.kill)
            broker.start()
            bootstrap = broker.bootstrap
        asyncio.run(measure(bootstrap, arguments))


if __name__ == "__main__":
    main()
