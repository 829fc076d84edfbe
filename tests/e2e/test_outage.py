"""Kafka goes away, comes back, or is not there yet."""

import time

import pytest


def config(cloud, kafka, topic, tmp_path):
    ready = cloud.ready
    return {
        "limacharlie": {"url": ready["url"], "oid": ready["oid"], "api_key": ready["api_key"]},
        "sources": {"telemetry": {"type": "spout", "stream": "event"}},
        "sinks": {
            "lake": {"type": "kafka", "bootstrap_servers": kafka, "topic": topic, "key": "routing/sid", "retry": {"cap": "2s"}},
            "archive": {"type": "file", "path": f"{tmp_path}/data/{{stream}}.jsonl", "batch": {"max_wait": "100ms"}},
        },
        "routes": {"all": {"from": "telemetry", "to": ["lake", "archive"]}},
    }  # fmt: skip


@pytest.mark.timeout(180)
async def test_outage_of_thirty_seconds(emulator, pipeline, tmp_path, kafka_broker, kafka_topics, until):
    """A Kafka outage of 30 s loses nothing, and the file goes on meanwhile."""
    topic = await kafka_topics.make(partitions=2)
    cloud = emulator("--rate", "100")
    process = pipeline(config(cloud, kafka_broker.bootstrap, topic, tmp_path))
    process.wait_metric("pipeline_sink_sent_records_total", 100, sink="lake", timeout=30)
    kafka_broker.stop()
    down = time.monotonic()
    before = process.metric("pipeline_sink_sent_records_total", sink="archive")
    process.wait_log("did not take a write", timeout=90)
    process.wait_metric("pipeline_sink_sent_records_total", before + 1000, sink="archive", timeout=40)
    assert process.get("readyz")[0] == 200
    until(lambda: time.monotonic() - down > 30, "30 s of outage", 31)
    kafka_broker.start()
    behind = process.metric("pipeline_source_received_records_total")
    process.wait_metric("pipeline_sink_sent_records_total", behind, sink="lake", timeout=60)
    assert process.metric("pipeline_conservation_error_records") == 0
    assert process.stop() == 0
    stored = [record.value for record in await kafka_topics.read(topic)]
    archived = (tmp_path / "data" / "event.jsonl").read_bytes().splitlines()
    assert len(archived) >= 1000
    assert set(archived) == set(stored)
    assert archived == cloud.sent("spout", "event")[: len(archived)]


@pytest.mark.timeout(120)
async def test_start_while_kafka_is_down(emulator, pipeline, tmp_path, kafka_broker, kafka_topics):
    """A start while Kafka is down works: the file is written at once, and Kafka gets everything when it comes."""
    topic = await kafka_topics.make()
    kafka_broker.stop()
    cloud = emulator("--rate", "0", "--events", "1000")
    process = pipeline(config(cloud, kafka_broker.bootstrap, topic, tmp_path))
    process.wait_metric("pipeline_sink_sent_records_total", 1000, sink="archive", timeout=30)
    assert process.metric("pipeline_lane_waiting_records", sink="lake") == 1000
    assert process.get("readyz")[0] == 200
    kafka_broker.start()
    process.wait_metric("pipeline_sink_sent_records_total", 1000, sink="lake", timeout=60)
    assert process.stop() == 0
    assert sorted(record.value for record in await kafka_topics.read(topic)) == sorted(cloud.sent("spout", "event"))
