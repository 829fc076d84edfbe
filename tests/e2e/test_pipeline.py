"""The main job with real processes: emulator → sources → routes → files, stdout and Kafka."""

import json
import signal

import pytest


def account(emulator):
    ready = emulator.ready
    return {"url": ready["url"], "oid": ready["oid"], "api_key": ready["api_key"]}


def archive(folder, **more):
    return {"type": "file", "path": f"{folder}/{{stream}}/all.jsonl", "batch": {"max_wait": "100ms"}, **more}


def firehose(port, stream="event", **more):
    address = f"127.0.0.1:{port}"
    return {
        "type": "firehose",
        "stream": stream,
        "listen": address,
        "output": {"name": f"e2e-{stream}", "address": address},
        **more,
    }


FORMS = [("asyncio", "https"), ("uvloop", "https"), ("uvloop", "websocket")]
VIA = {"https": "spout", "websocket": "ws"}


def conserved(process):
    assert process.metric("pipeline_conservation_error_records") == 0


@pytest.mark.timeout(60)
@pytest.mark.parametrize(("loop", "transport"), FORMS)
def test_spout_and_firehose_to_files_are_byte_for_byte_what_was_sent(
    emulator, pipeline, tmp_path, free_port, lines, loop, transport
):
    """What the emulator's ledger says it sent is, byte for byte and in order, what the files hold, on either event loop."""
    cloud = emulator("--rate", "0", "--events", "20000")
    process = pipeline({
        "event_loop": loop,
        "limacharlie": account(cloud),
        "sources": {
            "telemetry": firehose(free_port()),
            "detections": {"type": "spout", "stream": "detect", "transport": transport},
        },
        "sinks": {"archive": archive(tmp_path / "data")},
        "routes": {"all": {"from": ["telemetry", "detections"], "to": "archive"}},
    })  # fmt: skip
    process.wait_metric("pipeline_lane_records_total", 40000, timeout=45, outcome="delivered")
    conserved(process)
    assert process.stop() == 0
    assert cloud.sent("firehose", "event") == lines(tmp_path / "data" / "event")
    assert cloud.sent(VIA[transport], "detect") == lines(tmp_path / "data" / "detect")
    assert len(lines(tmp_path / "data" / "event")) == 20000


@pytest.mark.timeout(60)
@pytest.mark.parametrize(("loop", "transport"), FORMS)
def test_stop_in_mid_stream_delivers_all_that_was_received(
    emulator, pipeline, tmp_path, free_port, lines, loop, transport
):
    """SIGTERM in mid-stream loses nothing that was received: the files hold a gapless beginning of what was sent."""
    cloud = emulator("--rate", "0")
    process = pipeline({
        "event_loop": loop,
        "limacharlie": account(cloud),
        "sources": {
            "telemetry": firehose(free_port()),
            "detections": {"type": "spout", "stream": "detect", "transport": transport},
        },
        "sinks": {"archive": archive(tmp_path / "data")},
        "routes": {"all": {"from": ["telemetry", "detections"], "to": "archive"}},
    })  # fmt: skip
    process.wait_metric("pipeline_source_received_records_total", 5000, source="telemetry")
    process.wait_metric("pipeline_source_received_records_total", 500, source="detections")
    assert process.stop() == 0
    for via, stream, least in (("firehose", "event", 5000), (VIA[transport], "detect", 500)):
        got, sent = lines(tmp_path / "data" / stream), cloud.sent(via, stream)
        assert len(got) >= least
        assert got == sent[: len(got)]


@pytest.mark.timeout(60)
def test_a_filter_and_stdout(emulator, pipeline, tmp_path):
    """A route's filter lets through exactly the records for which it holds, unchanged, onto stdout as JSON lines."""
    cloud = emulator("--rate", "0", "--events", "3000")
    process = pipeline({
        "limacharlie": account(cloud),
        "sources": {"detections": {"type": "spout", "stream": "detect"}},
        "sinks": {"console": {"type": "stdout", "format": "json"}},
        "routes": {"alerts": {
            "from": "detections",
            "filters": [{"type": "match", "op": "is greater than", "path": "priority", "value": 4}],
            "to": "console",
        }},
    })  # fmt: skip
    process.wait_metric("pipeline_source_received_records_total", 3000)
    assert process.stop() == 0
    sent = cloud.sent("spout", "detect")
    expected = [line for line in sent if json.loads(line).get("priority", 0) > 4]
    assert 0 < len(expected) < len(sent)
    assert (process.folder / "stdout").read_bytes().splitlines() == expected


@pytest.mark.timeout(120)
async def test_kafka_gets_every_record_with_its_key(emulator, pipeline, tmp_path, free_port, kafka, kafka_topics):
    """Kafka holds exactly the ledger's records, each with its sensor as key and its stream as header; per key in order."""
    topic = await kafka_topics.make(partitions=4)
    cloud = emulator("--rate", "0", "--events", "5000")
    process = pipeline({
        "limacharlie": account(cloud),
        "sources": {"telemetry": firehose(free_port())},
        "sinks": {"lake": {"type": "kafka", "bootstrap_servers": kafka, "topic": topic, "key": "routing/sid"}},
        "routes": {"all": {"from": "telemetry", "to": "lake"}},
    })  # fmt: skip
    process.wait_metric("pipeline_lane_records_total", 5000, timeout=60, outcome="delivered")
    assert process.stop() == 0
    stored = await kafka_topics.read(topic)
    sent = cloud.sent("firehose", "event")
    assert sorted(record.value for record in stored) == sorted(sent)
    per_sensor: dict[str, list[bytes]] = {}
    for line in sent:
        per_sensor.setdefault(json.loads(line)["routing"].get("sid", ""), []).append(line)
    for sid, expected in per_sensor.items():
        if sid:
            mine = [record for record in stored if record.key == sid.encode()]
            assert [record.value for record in mine] == expected
            assert len({record.partition for record in mine}) == 1
    assert {header for record in stored for header in record.headers} == {("stream", b"event")}


@pytest.mark.timeout(60)
def test_second_signal_stops_at_once(emulator, pipeline, free_port, tmp_path):
    """With a sink that cannot work, the first signal waits for the stop timeout, and a second one ends the process with 1."""
    cloud = emulator("--rate", "50")
    process = pipeline({
        "limacharlie": account(cloud),
        "sources": {"detections": {"type": "spout", "stream": "detect"}},
        "sinks": {"lake": {"type": "kafka", "bootstrap_servers": f"127.0.0.1:{free_port()}", "topic": "t"}},
        "routes": {"all": {"from": "detections", "to": "lake"}},
        "stop_timeout": "60s",
    })  # fmt: skip
    process.wait_metric("pipeline_source_received_records_total", 10)
    process.process.send_signal(signal.SIGTERM)
    process.wait_log("Stopping")
    assert process.get("readyz")[0] == 503
    assert process.stop(signal.SIGINT) == 1
    assert process.wait_log("given up")["records"] >= 10
