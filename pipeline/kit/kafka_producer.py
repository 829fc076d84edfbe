"""An idempotent Kafka producer that never creates a topic, says why it fails, and can be given up at once."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Collection, Iterable
from typing import Any, Self

from pipeline.core.errors import PipelineError
from pipeline.kit.kafka import Ear, KafkaClientConfig, explain, unknown_topics
from pipeline.kit.kafka_batch import Batch

_INVALID_RECORD = 87
"""Kafka's error code INVALID_RECORD, which aiokafka does not know."""
_POLITE = 2.0
"""Seconds that a polite end may take."""


class Producer:
    """Wraps an `AIOKafkaProducer` with `acks=all`; made by `connect`."""

    def __init__(self, config: KafkaClientConfig, ear: Ear, inner: Any, batch: int, compression: str) -> None:
        self._config = config
        self._ear = ear
        self._inner = inner
        self._cluster = inner.client.cluster
        self._batch = (batch, compression)

    @classmethod
    async def connect(
        cls, config: KafkaClientConfig, ear: Ear, *, compression: str, batch: int, timeout: float
    ) -> Self:
        """Connect and log in. ``batch`` is its size in bytes before compression; the attempt takes ``timeout`` s at most.

        Raises the `PipelineError` that fits the reason.
        """
        from aiokafka import AIOKafkaProducer
        from aiokafka.errors import KafkaError

        ear.forget()
        options = await asyncio.to_thread(config.client_options)
        inner = AIOKafkaProducer(
            **options,
            acks="all",
            enable_idempotence=True,
            compression_type=None if compression == "none" else compression,
            max_batch_size=batch,
            request_timeout_ms=max(1, round(min(timeout / 3, 30.0) * 1000)),
        )
        _amend(inner.client)
        producer = cls(config, ear, inner, batch, compression)
        try:
            with ear.listening():
                async with asyncio.timeout(timeout):
                    await inner.start()
        except BaseException as error:
            producer.cut()
            if isinstance(error, KafkaError | OSError | TimeoutError):
                raise explain(config, error, ear) from error
            raise
        return producer

    def batch(self) -> Batch:
        """An empty one."""
        return Batch(*self._batch)

    async def learn(self, topics: Collection[str]) -> dict[str, PipelineError]:
        """Know the partitions of these topics from now on; return an error for each that cannot be written.

        Raises the `PipelineError` that fits the reason when no broker answers.
        """
        from aiokafka.errors import KafkaError, NoError, TopicAuthorizationFailedError, for_code
        from aiokafka.errors import UnknownTopicOrPartitionError as Unknown

        new = {topic for topic in topics if not self.knows(topic)}
        if not new:
            return {}
        try:
            answer = await _ask_metadata(self._inner.client, new | self._cluster.topics(exclude_internal_topics=False))
        except KafkaError as error:
            raise explain(self._config, error, self._ear) from error
        with self._ear.listening():
            self._cluster.update_metadata(answer)
            self._inner.client.set_topics(self._cluster.topics(exclude_internal_topics=False))
        failures = {name: for_code(code) for code, name, *_ in answer.topics if name in new}
        failures = {name: failure for name, failure in failures.items() if failure is not NoError}
        missing = unknown_topics(self._config, (name for name, failure in failures.items() if failure is Unknown))
        errors: dict[str, PipelineError] = {}
        for name, failure in failures.items():
            told = failure(name) if failure is TopicAuthorizationFailedError else failure()
            errors[name] = missing if failure is Unknown else explain(self._config, told, self._ear)
        return errors

    def knows(self, topic: str) -> bool:
        """Whether the topic is there, as far as the brokers told last."""
        return self._cluster.partitions_for_topic(topic) is not None

    def partitions(self, topic: str) -> tuple[int, list[int]]:
        """How many partitions a known topic has, and which of them have a leader now (all, if none has)."""
        count = len(self._cluster.partitions_for_topic(topic))
        return count, sorted(self._cluster.available_partitions_for_topic(topic)) or list(range(count))

    async def send(self, batch: Batch, topic: str, partition: int, *, deadline: float) -> asyncio.Future[Any]:
        """Hand a batch over; the future ends when it is confirmed or refused, with aiokafka's exception in the latter case.

        ``deadline`` (the loop's time) limits the handing over, not the confirmation.
        """
        try:
            async with asyncio.timeout_at(deadline):
                future: asyncio.Future[Any] = await self._inner.send_batch(batch, topic, partition=partition)
        except Exception as error:  # it was not handed over: told in the one way in which all failures are
            future = asyncio.get_running_loop().create_future()
            future.set_exception(error)
        return future

    async def stop(self) -> None:
        """Take leave; bounded in time."""
        try:
            async with asyncio.timeout(_POLITE):
                await self._inner.stop()
        except TimeoutError:
            pass  # the broker is away: there is nobody to take leave of
        finally:
            self.cut()

    def cut(self) -> None:
        """End it at once, whatever it waits for; its batches fail.

        aiokafka's ``stop`` waits for unconfirmed batches, without end while a broker is away, and a sender that is stopped
        before they are done leaves tasks behind.
        """
        from aiokafka.errors import KafkaConnectionError

        inner = self._inner
        parts = (inner._sender, inner._message_accumulator, inner.client)  # noqa: SLF001 - no public way, see above
        for task in asyncio.all_tasks():
            frame = getattr(task.get_coro(), "cr_frame", None)
            if frame is not None and frame.f_locals.get("self") in parts:
                task.cancel()
        inner._message_accumulator.fail_all(KafkaConnectionError("The connection was given up"))  # noqa: SLF001 - same
        for connection in list(inner.client._conns.values()):  # noqa: SLF001 - same
            if connection._writer is not None:  # noqa: SLF001 - same
                connection._writer.transport.abort()  # noqa: SLF001 - close() would wait for a peer that may be gone
            connection.close()
        inner._closed = True  # noqa: SLF001 - else it complains when it is collected


async def _ask_metadata(client: Any, topics: Iterable[str]) -> Any:
    """Return one broker's answer about these topics, which creates none. Raises aiokafka's `KafkaError`."""
    from aiokafka.errors import KafkaConnectionError, KafkaError
    from aiokafka.protocol.metadata import MetadataRequest

    request = MetadataRequest(sorted(topics), allow_auto_topic_creation=False)
    brokers = [broker.nodeId for broker in client.cluster.brokers()]
    failure: KafkaError = KafkaConnectionError("No broker is known")
    for node in random.sample(brokers, len(brokers)):
        try:
            return await client.send(node, request)
        except KafkaError as error:
            failure = error
    raise failure


def _amend(client: Any) -> None:
    """Put two things right in an `AIOKafkaClient` for which aiokafka has no switch.

    It asks for metadata with the flag that lets a broker create the topics asked for, and brokers do so by default
    (`auto.create.topics.enable`). And it does not know the error by which a broker refuses a record's form.
    """
    from aiokafka import errors as kafka

    async def update(cluster: Any, topics: Iterable[str]) -> bool:
        try:
            answer = await _ask_metadata(client, topics)
        except kafka.KafkaError:
            cluster.failed_update(None)
            return False
        cluster.update_metadata(answer)
        return True

    client._metadata_update = update  # noqa: SLF001 - the one door; tests show that no topic appears
    kafka.kafka_errors.setdefault(
        _INVALID_RECORD, type("InvalidRecordError", (kafka.BrokerResponseError,), {"errno": _INVALID_RECORD})
    )
