"""Topics of a real Kafka as tests see them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import asynccontextmanager
from uuid import uuid4

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType


class Topics:
    """Makes topics, lists them and reads them whole."""

    def __init__(self, bootstrap: str) -> None:
        self.bootstrap = bootstrap
        self._made: list[str] = []

    def name(self, stem: str = "t") -> str:
        """A name that no topic has; a topic of this name is removed at the end, if there is one then."""
        name = f"{stem}-{uuid4().hex[:12]}"
        self._made.append(name)
        return name

    async def make(
        self, name: str | None = None, *, partitions: int = 1, configs: Mapping[str, str] | None = None
    ) -> str:
        """Create a topic and return its name."""
        name = name or self.name()
        if name not in self._made:
            self._made.append(name)
        topic = NewTopic(name, partitions, 1, topic_configs=dict(configs or {}))
        async with self._admin() as admin:
            answer = await admin.create_topics([topic])
            assert [code for _, code, *_ in answer.topic_errors] == [0], answer
            while len(await self._partitions(admin, name)) < partitions:
                await asyncio.sleep(0.02)
        return name

    async def limit(self, name: str, size: int) -> None:
        """Let a topic refuse batches that are larger than so many bytes."""
        change = ConfigResource(ConfigResourceType.TOPIC, name, {"max.message.bytes": str(size)})
        async with self._admin() as admin:
            await admin.alter_configs([change])

    async def names(self) -> set[str]:
        async with self._admin() as admin:
            return set(await admin.list_topics())

    async def read(self, topic: str) -> list:
        """All records of a topic, partition by partition, in their order (aiokafka's ``ConsumerRecord``)."""
        consumer = AIOKafkaConsumer(bootstrap_servers=self.bootstrap, auto_offset_reset="earliest")
        await consumer.start()
        try:
            async with self._admin() as admin:
                places = [TopicPartition(topic, number) for number in await self._partitions(admin, topic)]
            consumer.assign(places)
            ends = await consumer.end_offsets(places)
            records = []
            while any([await consumer.position(place) < ends[place] for place in places]):
                for batch in (await consumer.getmany(timeout_ms=500)).values():
                    records += batch
            return sorted(records, key=lambda record: (record.partition, record.offset))
        finally:
            await consumer.stop()

    async def clear(self) -> None:
        there = set(self._made) & await self.names()
        if there:
            async with self._admin() as admin:
                await admin.delete_topics(sorted(there))

    @asynccontextmanager
    async def _admin(self):
        admin = AIOKafkaAdminClient(bootstrap_servers=self.bootstrap, request_timeout_ms=5000)
        await admin.start()
        try:
            yield admin
        finally:
            await admin.close()

    @staticmethod
    async def _partitions(admin: AIOKafkaAdminClient, topic: str) -> list[int]:
        (described,) = await admin.describe_topics([topic])
        return sorted(part["partition"] for part in described["partitions"])
