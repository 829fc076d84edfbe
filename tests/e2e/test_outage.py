"""Kafka goes away, comes back, or is not there yet."""

import collections
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


@pytest.mark.timeout(180)
async def test_stop_while_kafka_is_away(emulator, pipeline, tmp_path, kafka_broker, kafka_topics, until):
    """With a disk spool a stop does not wait for Kafka: it ends in seconds with 0, says what stays, and the next start delivers it."""
    topic = await kafka_topics.make(partitions=2)
    cloud = emulator("--rate", "200")
    spool = {"spool": {"type": "disk", "path": f"{tmp_path}/spool", "max_size": "64MiB"}}
    settings = config(cloud, kafka_broker.bootstrap, topic, tmp_path) | spool

    def waiting(process):
        return process.metric("pipeline_lane_waiting_records", sink="lake")

    def stop(process):
        """Stop it, and return how many records it says stay for Kafka."""
        assert process.metric("pipeline_conservation_error_records") == 0
        began = time.monotonic()
        assert process.stop(timeout=60) == 0
        assert time.monotonic() - began < 12  # stop_timeout is 25 s
        said = [line for line in process.log if line["event"] == "Records stay in the spool until the next start."]
        return {line["lane"]: line["records"] for line in said}["all/lake"]

    process = pipeline(settings)
    process.wait_metric("pipeline_sink_sent_records_total", 200, sink="lake", timeout=30)
    kafka_broker.kill()
    until(lambda: waiting(process) > 400, "records wait for Kafka", 30, process.process)
    left = stop(process)
    assert left > 400
    process = pipeline(settings)
    process.wait_log("The sink cannot be opened")
    assert process.metric("pipeline_lane_carried_records", sink="lake") == left
    before = process.metric("pipeline_source_received_records_total")
    until(lambda: waiting(process) > left + 200, "more records wait for Kafka", 30, process.process)
    assert stop(process) >= left + before
    cloud.stop()
    kafka_broker.start()
    process = pipeline(settings)
    process.wait_delivered(60)
    assert process.stop() == 0
    assert not [line for line in process.log if "stay in the spool" in line["event"]]
    stored = collections.Counter([record.value for record in await kafka_topics.read(topic)])
    archived = (tmp_path / "data" / "event.jsonl").read_bytes().splitlines()
    assert len(archived) == len(set(archived))
    assert set(archived) == set(stored)
    assert stored.total() - len(stored) <= 256  # only what was in Kafka's hands when it was killed may have come twice
