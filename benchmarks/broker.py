"""A real Kafka for the benchmarks: that of KAFKA_BOOTSTRAP, or one that is started here (Java 17 and Maven)."""

from __future__ import annotations

import asyncio
import importlib.util
import logging
import os
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from benchmarks.corpus import Content

PARTITIONS = 6
logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # a topic that is new has no leader at first, which it minds


class NoKafka(Exception):  # noqa: N818 - states what it is
    """None can be had here; the text says what is missing."""


@contextmanager
def broker() -> Iterator[str]:
    """Its address. Raises `NoKafka`."""
    given = os.environ.get("KAFKA_BOOTSTRAP")
    if given is not None:
        yield given
        return
    path = Path(__file__).parent.parent / "tests" / "kafka_broker.py"
    spec = importlib.util.spec_from_file_location("kafka_broker", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with tempfile.TemporaryDirectory(prefix="kafka-") as folder:
        try:
            started = module.Broker(Path(folder))
        except module.BrokerUnavailable as error:
            raise NoKafka(f"{error}; a broker of your own can be named by KAFKA_BOOTSTRAP") from None
        try:
            started.start()
            yield started.bootstrap
        finally:
            started.kill()


class Topic:
    """A topic that lives as long as its block."""

    def __init__(self, bootstrap: str) -> None:
        self.name = f"bench-{uuid.uuid4().hex[:8]}"
        self._bootstrap = bootstrap
        self._loop = asyncio.new_event_loop()
        self._consumer: AIOKafkaConsumer | None = None
        self._parts = [TopicPartition(self.name, number) for number in range(PARTITIONS)]

    def __enter__(self) -> Self:
        self._loop.run_until_complete(self._open())
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.run_until_complete(self._close())
        self._loop.close()

    async def _open(self) -> None:
        admin = AIOKafkaAdminClient(bootstrap_servers=self._bootstrap)
        await admin.start()
        await admin.create_topics([NewTopic(self.name, PARTITIONS, 1)])
        await admin.close()
        self._consumer = AIOKafkaConsumer(
            bootstrap_servers=self._bootstrap,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            max_partition_fetch_bytes=8 << 20,
        )
        await self._consumer.start()
        for _ in range(50):
            if self._consumer.assign(self._parts) is None and await self._ends() == 0:
                return
            await asyncio.sleep(0.1)
        raise SystemExit("The topic does not come up.")

    async def _close(self) -> None:
        assert self._consumer is not None
        await self._consumer.stop()
        admin = AIOKafkaAdminClient(bootstrap_servers=self._bootstrap)
        await admin.start()
        await admin.delete_topics([self.name])
        await admin.close()

    async def _ends(self) -> int:
        assert self._consumer is not None
        return sum((await self._consumer.end_offsets(self._parts)).values())

    def count(self) -> int:
        """Records in it."""
        return self._loop.run_until_complete(self._ends())

    def content(self, records: int) -> Content:
        """Read so many records; what they are as lines."""
        return self._loop.run_until_complete(self._read(records))

    async def _read(self, records: int) -> Content:
        assert self._consumer is not None
        await self._consumer.seek_to_beginning(*self._parts)
        lines: list[bytes] = []
        while len(lines) < records:
            found = await self._consumer.getmany(timeout_ms=5000, max_records=5000)
            if not found:
                break
            lines += [record.value.rstrip(b"\n") + b"\n" for many in found.values() for record in many]
        return Content.of(lines)
