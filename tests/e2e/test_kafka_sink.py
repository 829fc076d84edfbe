"""The sink `kafka` against a real broker."""

from __future__ import annotations

import asyncio
import json
from collections import Counter

import pytest
from kafka_sinks import MakeSink, part, records

from pipeline.core.batch import LogId
from pipeline.core.errors import NotFoundError, Partial, Rejected, RetryLater
from pipeline.core.items import Items, Part
from pipeline.kit.clock import SystemClock
from pipeline.kit.murmur2 import partition
from pipeline.sinks import kafka as module


async def test_stores_parts_of_several_streams_and_organizations(kafka_topics, make_kafka_sink: MakeSink) -> None:
    """Items of several parts go, in their order and byte for byte, to the topic of their stream and organization."""
    prefix = kafka_topics.name("lc")
    names = [await kafka_topics.make(f"{prefix}.{end}") for end in ("event.acme", "event.globex", "detect.acme")]
    sink = make_kafka_sink(topic=f"{prefix}.{{stream}}.{{org}}", headers=["org", "source", "origin", "received_at"])
    await sink.open({})
    await sink.write(
        Items(
            [
                part(records(3), org="acme"),
                part(records(2, 10), org="globex"),
                part(records(1, 20), "detect", "acme"),
                part(records(2, 30), org="acme"),
            ]
        )
    )
    found = [await kafka_topics.read(name) for name in names]
    assert [records(3) + records(2, 30), records(2, 10), records(1, 20)] == [[r.value for r in rs] for rs in found]
    assert {1_700_000_000_123} == {r.timestamp for rs in found for r in rs}
    assert tuple(found[0][0].headers) == (
        ("stream", b"event"),
        ("org", b"acme"),
        ("source", b"src"),
        ("origin", b"live"),
        ("received_at", b"1700000000123"),
    )


async def test_key_chooses_the_partition_as_java_does(kafka_topics, kafka_broker, make_kafka_sink: MakeSink) -> None:
    """A keyed record lands in the partition in which Kafka's own Java producer puts its key."""
    ours, theirs = [await kafka_topics.make(partitions=7) for _ in range(2)]
    keys = [f"{n:08x}-5c1e-4b0a-9d3f-{n * 7919:012x}" for n in range(60)] + ["", "ä", "x" * 200]
    kafka_broker.tool(
        *("org.apache.kafka.tools.ConsoleProducer", "--bootstrap-server", kafka_topics.bootstrap, "--topic", theirs),
        *("--property", "parse.key=true", "--property", "key.separator=|"),
        stdin="".join(f"{key}|v\n" for key in keys),
    )
    sink = make_kafka_sink(topic=ours, key="routing/sid")
    await sink.open({})
    await sink.write(Items([part([b"v"] * len(keys), values=[{"routing/sid": key} for key in keys])]))
    placed = {r.key: r.partition for r in await kafka_topics.read(ours)}
    assert {r.key: r.partition for r in await kafka_topics.read(theirs)} == placed
    assert {key.encode() for key in keys} == set(placed)


async def test_record_without_key_changes_partition_with_each_write(kafka_topics, make_kafka_sink: MakeSink) -> None:
    """Records without the key stay together within a write and visit every partition over several writes."""
    topic = await kafka_topics.make(partitions=4)
    sink = make_kafka_sink(topic=topic, key="routing/sid")
    await sink.open({})
    for n in range(8):
        await sink.write(Items([part(records(5, n * 5), values=[{}] * 5), part([b"k"], values=[{"routing/sid": "s"}])]))
    found = await kafka_topics.read(topic)
    unkeyed = [r for r in found if r.key is None]
    assert dict.fromkeys(range(4), 10) == Counter(r.partition for r in unkeyed)
    assert {partition(b"s", 4)} == {r.partition for r in found if r.key == b"s"}


async def test_oversize_record_is_rejected_alone(kafka_topics, make_kafka_sink: MakeSink) -> None:
    """A record that the topic refuses is named with `too_large`; all others are stored, in their order."""
    topic = await kafka_topics.make(configs={"max.message.bytes": "20000"})
    sink = make_kafka_sink(topic=topic, compression="none")
    payloads = records(300, size=300)
    payloads[0] = payloads[123] = b"x" * 20_000
    with pytest.raises(Partial) as caught:
        await sink.write(Items([part(payloads[:100]), part(payloads[100:])]))
    assert {0, 123} == set(caught.value.failures)
    assert {"too_large"} == {v.reason for v in caught.value.failures.values() if isinstance(v, Rejected)}
    assert [p for p in payloads if len(p) < 20_000] == [r.value for r in await kafka_topics.read(topic)]
    await sink.write(Items([part(records(3))]))


async def test_large_record_that_compresses_is_stored(kafka_topics, make_kafka_sink: MakeSink) -> None:
    """The broker judges what is too large, after compression: a compressible record over its limit is stored."""
    topic = await kafka_topics.make()
    sink = make_kafka_sink(topic=topic)
    payloads = [b"a" * 5_000_000, *records(3)]
    await sink.write(Items([part(payloads)]))
    assert payloads == [r.value for r in await kafka_topics.read(topic)]


async def test_write_larger_than_a_batch_keeps_order(kafka_topics, make_kafka_sink: MakeSink) -> None:
    """A write of several batches per partition keeps the order within each partition."""
    topic = await kafka_topics.make(partitions=3)
    sink = make_kafka_sink(topic=topic, key="routing/sid")
    payloads = records(6000, size=900)
    values = [{"routing/sid": str(n % 17)} for n in range(6000)]
    await sink.write(Items([part(payloads, values=values)]))
    found = await kafka_topics.read(topic)
    for number in range(3):
        numbers = [json.loads(r.value)["n"] for r in found if r.partition == number]
        assert sorted(numbers) == numbers
    assert sorted(payloads) == sorted(r.value for r in found)


async def test_futures_are_counted_by_batch_not_by_record(
    kafka_topics, make_kafka_sink: MakeSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A write of ten times as many records over the same partitions needs no more futures, and sends to all partitions at once."""
    topic = await kafka_topics.make(partitions=6)
    sink = make_kafka_sink(topic=topic, key="routing/sid")
    await sink.open({})
    loop, futures, under_way = asyncio.get_running_loop(), 0, []
    make_future, confirmation = loop.create_future, sink._confirmation

    def counted() -> asyncio.Future[object]:
        nonlocal futures
        futures += 1
        return make_future()

    async def waited(producer, sent, deadline):
        under_way.append(len(sent))
        return await confirmation(producer, sent, deadline)

    monkeypatch.setattr(loop, "create_future", counted)
    monkeypatch.setattr(sink, "_confirmation", waited)
    needed = []
    for count in (200, 200, 2000):  # the first learns the topic
        before = futures
        values = [{"routing/sid": str(n % 50)} for n in range(count)]
        await sink.write(Items([part(records(count), values=values)]))
        needed.append(futures - before)
    assert [6, 6, 6] == under_way
    assert needed[2] < needed[1] + 100
    assert 2400 == len(await kafka_topics.read(topic))


async def test_topic_is_never_created_but_waited_for(kafka_topics, make_kafka_sink: MakeSink) -> None:
    """A missing topic postpones its own records only, names the command that creates it, and is not created by us."""
    prefix = kafka_topics.name("lc")
    known = await kafka_topics.make(f"{prefix}.event")
    sink = make_kafka_sink(topic=f"{prefix}.{{stream}}")
    await sink.open({})
    items = Items([part(records(2)), part(records(2, 10), "detect"), part(records(2, 20))])
    with pytest.raises(Partial) as caught:
        await sink.write(items)
    assert {2, 3} == set(caught.value.failures)
    told = str(caught.value.failures[2])
    assert f"kafka-topics.sh --bootstrap-server {kafka_topics.bootstrap} --create --topic {prefix}.detect" in told
    assert isinstance(caught.value.failures[2], RetryLater)
    with pytest.raises(RetryLater, match="has no topic"):
        await sink.write(Items([part(records(1), "detect")]))
    await sink._producer._inner.client.force_metadata_update()
    assert f"{prefix}.detect" not in await kafka_topics.names()
    created = await kafka_topics.make(f"{prefix}.detect")
    await sink.write(Items([part(records(2, 10), "detect")]))
    assert records(2, 10) == [r.value for r in await kafka_topics.read(created)]
    assert records(2) + records(2, 20) == [r.value for r in await kafka_topics.read(known)]


async def test_deleted_topic_is_told_and_not_created_again(
    kafka_topics, make_kafka_sink: MakeSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A topic that is deleted under a running sink ends the write with the sentence about it, and stays deleted."""
    monkeypatch.setattr(module, "_PATIENCE", 0.5)
    topic = await kafka_topics.make()
    sink = make_kafka_sink(topic=topic)
    await sink.write(Items([part(records(1))]))
    await kafka_topics.clear()
    with pytest.raises(RetryLater, match="has no topic"):
        await sink.write(Items([part(records(1))]))
    assert topic not in await kafka_topics.names()


async def test_timestamp_out_of_the_topics_range_is_rejected(kafka_topics, make_kafka_sink: MakeSink) -> None:
    """A record older than the topic allows is the record's fault: it is rejected, its neighbours are stored."""
    topic = await kafka_topics.make(configs={"message.timestamp.before.max.ms": "86400000"})
    sink = make_kafka_sink(topic=topic)
    fresh = Part(records(2), "event", LogId("src"), SystemClock().now())
    with pytest.raises(Partial) as caught:
        await sink.write(Items([fresh, part(records(1, 5))]))
    assert {n: getattr(v, "reason", None) for n, v in caught.value.failures.items()} == {2: "timestamp"}
    assert records(2) == [r.value for r in await kafka_topics.read(topic)]


async def test_compacted_topic_rejects_what_has_no_key(kafka_topics, make_kafka_sink: MakeSink) -> None:
    """A record without key on a compacted topic is rejected and does not hold up those that have one."""
    topic = await kafka_topics.make(configs={"cleanup.policy": "compact"})
    sink = make_kafka_sink(topic=topic, key="routing/sid")
    values = [{"routing/sid": "a"}, {}, {"routing/sid": "b"}]
    with pytest.raises(Partial) as caught:
        await sink.write(Items([part(records(3), values=values)]))
    assert {n: getattr(v, "reason", None) for n, v in caught.value.failures.items()} == {1: "no_key"}
    assert [r.key for r in await kafka_topics.read(topic)] == [b"a", b"b"]


async def test_hostile_topic_values_and_keys_reject_only_themselves(kafka_topics, make_kafka_sink: MakeSink) -> None:
    """Values that make a topic's name or a key too long reject their own records; path tricks become plain characters."""
    prefix = kafka_topics.name("lc")
    tame = await kafka_topics.make(f"{prefix}.a.b")
    odd = await kafka_topics.make(f"{prefix}...__x_.b")
    sink = make_kafka_sink(topic=f"{prefix}.{{event/x}}.{{event/y}}", key="event/k")
    values = [
        {"event/x": "a", "event/y": "b", "event/k": "k"},
        {"event/x": "x" * 200, "event/y": "y" * 200},
        {"event/x": "../\u202ex\0", "event/y": "b"},
        {"event/x": "a", "event/y": "b", "event/k": "k" * 70_000},
    ]
    with pytest.raises(Partial) as caught:
        await sink.write(Items([part(records(4), values=values)]))
    assert {n: getattr(v, "reason", v) for n, v in caught.value.failures.items()} == {1: "topic_name", 3: "too_large"}
    assert records(1) == [r.value for r in await kafka_topics.read(tame)]
    assert records(1, 2) == [r.value for r in await kafka_topics.read(odd)]


@pytest.mark.parametrize("compression", ["none", "gzip", "snappy", "lz4", "zstd"])
async def test_every_compression_is_read_back(kafka_topics, make_kafka_sink: MakeSink, compression: str) -> None:
    """What is written with a compression is read back by another client."""
    topic = await kafka_topics.make()
    sink = make_kafka_sink(topic=topic, compression=compression)
    await sink.write(Items([part(records(100, size=100))]))
    assert records(100, size=100) == [r.value for r in await kafka_topics.read(topic)]


async def test_several_writes_in_flight_are_all_stored(kafka_topics, make_kafka_sink: MakeSink) -> None:
    """Writes may run at the same time, also the first ones, which connect."""
    topic = await kafka_topics.make(partitions=2)
    sink = make_kafka_sink(topic=topic, in_flight=8)
    await asyncio.gather(*(sink.write(Items([part(records(50, n * 50))])) for n in range(8)))
    assert sorted(records(400)) == sorted(r.value for r in await kafka_topics.read(topic))


async def test_check_finds_the_topic_missing(kafka_topics, make_kafka_sink: MakeSink) -> None:
    """`check` succeeds where the topic exists and tells how to create it where it does not."""
    await make_kafka_sink(topic=await kafka_topics.make()).check()
    await make_kafka_sink(topic="lc.{stream}").check()
    missing = kafka_topics.name()
    with pytest.raises(NotFoundError) as caught:
        await make_kafka_sink(topic=missing).check()
    assert f"--create --topic {missing}" in caught.value.fix
    assert missing not in await kafka_topics.names()
