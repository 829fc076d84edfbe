"""The sink `kafka` while its broker is away, hangs, or comes back."""

from __future__ import annotations

import asyncio
import gc
import time

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.client import AIOKafkaClient
from aiokafka.producer.message_accumulator import BatchBuilder
from kafka_sinks import MakeSink, part, records

from pipeline.core.errors import RetryLater
from pipeline.core.items import Items
from pipeline.sinks import kafka as module


async def _stored(topics, topic: str) -> list[bytes]:
    return [record.value for record in await topics.read(topic)]


async def _until_stored(sink: module.KafkaSink, payloads: list[bytes]) -> None:
    """Write as the engine does: again after `RetryLater`."""
    while True:
        try:
            return await sink.write(Items([part(payloads)]))
        except RetryLater:
            await asyncio.sleep(0.1)


async def test_write_outlasts_a_restart_of_the_broker(kafka_broker, kafka_topics, make_kafka_sink: MakeSink) -> None:
    """A write that meets a killed broker waits, and is stored once when the broker is back."""
    topic = await kafka_topics.make()
    sink = make_kafka_sink(bootstrap_servers=kafka_broker.bootstrap, topic=topic)
    await sink.write(Items([part(records(10))]))
    await asyncio.to_thread(kafka_broker.kill)
    write = asyncio.create_task(sink.write(Items([part(records(10, 10))])))
    await asyncio.to_thread(kafka_broker.start)
    await write
    assert records(20) == await _stored(kafka_topics, topic)


async def test_start_while_the_broker_is_away(kafka_broker, kafka_topics, make_kafka_sink: MakeSink) -> None:
    """`open` says that the broker cannot be reached and where, and succeeds when it is tried again later."""
    topic = await kafka_topics.make()
    await asyncio.to_thread(kafka_broker.stop)
    sink = make_kafka_sink(bootstrap_servers=kafka_broker.bootstrap, topic=topic)
    for _ in range(2):
        with pytest.raises(RetryLater, match=f"Kafka at {kafka_broker.bootstrap} cannot be reached"):
            await sink.open({})
    await asyncio.to_thread(kafka_broker.start)
    await sink.open({})
    await sink.write(Items([part(records(3))]))
    assert records(3) == await _stored(kafka_topics, topic)


async def test_silent_broker_ends_the_write_in_time(
    kafka_broker, kafka_topics, make_kafka_sink: MakeSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A broker that hangs is reported, and ends the write before the engine's own timeout; a resend goes through."""
    monkeypatch.setattr(module, "_PATIENCE", 0.3)
    topic = await kafka_topics.make()
    sink = make_kafka_sink(bootstrap_servers=kafka_broker.bootstrap, topic=topic, timeout="4s")
    await sink.write(Items([part(records(1))]))
    kafka_broker.pause()
    started = time.monotonic()
    with pytest.raises(RetryLater, match=r"no confirmation|cannot be reached"):
        await sink.write(Items([part(records(1, 1))]))
    assert time.monotonic() - started < 4.0
    assert ("degraded", "unavailable") in sink.report.states
    kafka_broker.resume()
    await _until_stored(sink, records(1, 1))
    stored = await _stored(kafka_topics, topic)
    assert (records(2)[0], records(2)[1]) == (stored[0], stored[-1])


async def test_close_is_bounded_while_the_broker_hangs(kafka_broker, kafka_topics, make_kafka_sink: MakeSink) -> None:
    """Closing ends within seconds, and without tasks left, though a write was cut off and the broker says nothing."""
    topic = await kafka_topics.make(partitions=4)
    sink = make_kafka_sink(bootstrap_servers=kafka_broker.bootstrap, topic=topic, key="k", compression="none")
    await sink.write(Items([part(records(1), values=[{}])]))
    kafka_broker.pause()
    values = [{"k": str(n)} for n in range(4000)]
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.3):
            await sink.write(Items([part(records(4000, size=1000), values=values)]))
    started = time.monotonic()
    await sink.close()
    assert time.monotonic() - started < 2.5
    await asyncio.sleep(0.01)
    assert {asyncio.current_task()} == asyncio.all_tasks()
    kafka_broker.resume()


async def test_long_outage_leaks_nothing(kafka_broker, kafka_topics, make_kafka_sink: MakeSink) -> None:
    """Write after write against a broker that is away leaves neither tasks nor batches behind."""
    topic = await kafka_topics.make()
    sink = make_kafka_sink(bootstrap_servers=kafka_broker.bootstrap, topic=topic, timeout="200ms")
    await asyncio.to_thread(kafka_broker.kill)

    def held() -> int:
        gc.collect()
        return sum(isinstance(one, AIOKafkaProducer | AIOKafkaClient | BatchBuilder) for one in gc.get_objects())

    counts = []
    for _ in range(30):
        with pytest.raises(RetryLater):
            await sink.write(Items([part(records(100))]))
        await asyncio.sleep(0)
        counts.append((len(asyncio.all_tasks()), held()))
    assert counts[5] == counts[-1]
    await asyncio.to_thread(kafka_broker.start)
    await _until_stored(sink, records(3))


async def test_failed_write_frees_the_others_in_flight(kafka_broker, kafka_topics, make_kafka_sink: MakeSink) -> None:
    """When one of several writes is cut off, the others end too instead of waiting for a producer that was given up."""
    topic = await kafka_topics.make()
    sink = make_kafka_sink(bootstrap_servers=kafka_broker.bootstrap, topic=topic, in_flight=3)
    await sink.open({})
    kafka_broker.pause()
    writes = [asyncio.create_task(sink.write(Items([part(records(1, n))]))) for n in range(3)]
    await asyncio.sleep(0.1)
    writes[0].cancel()
    kafka_broker.resume()
    ends = await asyncio.gather(*writes, return_exceptions=True)
    assert isinstance(ends[0], asyncio.CancelledError)
    assert all(end is None or isinstance(end, RetryLater) for end in ends[1:])
