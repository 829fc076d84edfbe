"""What the cloud may do to a spout, by the emulator's knobs; the number of requests stays bounded."""

import json

import pytest

BOTH = pytest.mark.parametrize("transport", ["https", "websocket"])


@pytest.fixture
def spout(emulator, pipeline, tmp_path):
    """Start an emulator and a pipeline with one spout; returns both."""

    def start(*arguments, source=None, environment=None):
        cloud = emulator("--rate", "20", "--keepalive", "1", *arguments)
        ready = cloud.ready
        process = pipeline({
            "limacharlie": {"url": ready["url"], "oid": ready["oid"], "api_key": ready["api_key"]},
            "sources": {"telemetry": {
                "type": "spout", "stream": "event", **(source or {}),
                "reconnect": {"base": "100ms", "cap": "500ms", "refused_base": "2s"},
            }},
            "sinks": {"archive": {"type": "file", "path": f"{tmp_path}/data/x.jsonl", "batch": {"max_wait": "100ms"}}},
            "routes": {"all": {"from": "telemetry", "to": "archive"}},
        }, environment)  # fmt: skip
        process.wait_metric("pipeline_source_received_records_total", 5)
        return cloud, process

    return start


def total(cloud, route):
    return sum(count for name, statuses in cloud.requests().items() if route in name for count in statuses.values())


@BOTH
@pytest.mark.timeout(60)
def test_an_expired_token_is_renewed_on_reconnect(spout, transport):
    """After its token expired and the connection broke, the spout comes back with a fresh one, and a gap is recorded."""
    cloud, process = spout(source={"transport": transport})
    cloud.turn("expire_tokens")
    cloud.turn("close", how="abort")
    process.wait_metric("pipeline_gaps_total", 1)
    before = process.metric("pipeline_source_received_records_total")
    process.wait_metric("pipeline_source_received_records_total", before + 20)
    assert process.metric("pipeline_gap_seconds_total") > 0
    assert process.stop() == 0


@pytest.mark.timeout(60)
def test_an_instant_close_loop_is_backed_off(spout):
    """200 and an instant end, again and again, makes few requests, and the stream goes on when it is over."""
    cloud, process = spout()
    cloud.turn("clear")
    cloud.turn("instant_close", times=None)
    cloud.turn("close", how="clean")
    process.wait_metric("pipeline_errors_total", 5, component="telemetry", timeout=30)
    assert total(cloud, "stream") < 60
    cloud.turn("clear")
    before = process.metric("pipeline_source_received_records_total")
    process.wait_metric("pipeline_source_received_records_total", before + 5)
    assert process.stop() == 0


@BOTH
@pytest.mark.timeout(60)
def test_a_storm_of_401_is_not_answered_with_one(spout, transport):
    """When every stream request is unauthorized, tokens are minted once per cause, not once per refusal."""
    cloud, process = spout(source={"transport": transport})
    cloud.turn("clear")
    cloud.turn("stream_error", line="error: unauthorized", times=None)
    cloud.turn("close", how="clean")
    process.wait_metric("pipeline_errors_total", 1, component="telemetry", code="permission", timeout=30)
    requests = cloud.requests()
    assert total(cloud, "stream") <= 6, requests
    assert total(cloud, "jwt") <= 4, requests
    assert process.get("readyz")[0] == 200
    process.stop()


@pytest.mark.timeout(60)
def test_429_on_the_token_service_is_waited_out(spout):
    """A 429 with Retry-After is honoured: the stream comes back, with a bounded number of requests."""
    cloud, process = spout()
    cloud.turn("clear")
    cloud.turn("respond", route="jwt", status=429, headers={"Retry-After": "1"}, times=2)
    cloud.turn("expire_tokens")
    cloud.turn("close", how="abort")
    before = process.metric("pipeline_source_received_records_total")
    process.wait_metric("pipeline_source_received_records_total", before + 10, timeout=30)
    assert total(cloud, "jwt") <= 6
    assert process.stop() == 0


@BOTH
@pytest.mark.timeout(60)
def test_dropped_traces_are_counted_as_upstream_loss(spout, transport):
    """What the cloud says it dropped is counted, apart from what we received."""
    cloud, process = spout(source={"transport": transport})
    cloud.turn("drop", n=7)
    process.wait_metric("pipeline_upstream_dropped_records_total", 7)
    assert process.stop() == 0


@BOTH
@pytest.mark.timeout(60)
def test_a_silent_connection_is_given_up(spout, transport):
    """Without a byte for idle_timeout the connection counts as dead; the next one brings records again, and a gap is recorded."""
    cloud, process = spout(source={"transport": transport, "idle_timeout": "2s"})
    cloud.turn("stall")
    process.wait_metric("pipeline_gaps_total", 1, timeout=20)
    before = process.metric("pipeline_source_received_records_total")
    process.wait_metric("pipeline_source_received_records_total", before + 10)
    assert process.stop() == 0


@pytest.mark.timeout(60)
def test_no_source_can_authenticate_ends_with_2(emulator, pipeline, tmp_path):
    """When the only key is wrong, the process says so and ends with exit code 2; the key is in no log line."""
    cloud = emulator("--rate", "1")
    secret = "0f0f0f0f-1111-2222-3333-444444444444"
    process = pipeline({
        "limacharlie": {"url": cloud.ready["url"], "oid": cloud.ready["oid"], "api_key": secret},
        "sources": {"telemetry": {"type": "spout", "stream": "event"}},
        "sinks": {"archive": {"type": "file", "path": f"{tmp_path}/x.jsonl"}},
        "routes": {"all": {"from": "telemetry", "to": "archive"}},
    })  # fmt: skip
    assert process.process.wait(20) == 2
    process.stop()
    assert any("No source can authenticate" in str(entry["event"]) for entry in process.log)
    assert secret not in json.dumps(process.log)
