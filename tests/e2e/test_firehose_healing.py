"""LimaCharlie disables the Output of a firehose; the pipeline enables it again."""

import pytest


@pytest.mark.timeout(60)
def test_a_disabled_output_heals_again_and_again(emulator, pipeline, tmp_path, free_port):
    """Each time that LimaCharlie disables the Output with an error, an update enables it, records flow, and both are counted.

    The second time it is disabled for good.
    """
    cloud = emulator("--rate", "50")
    ready, port = cloud.ready, free_port()
    process = pipeline({
        "limacharlie": {"url": ready["url"], "oid": ready["oid"], "api_key": ready["api_key"]},
        "sources": {"telemetry": {
            "type": "firehose", "listen": f"127.0.0.1:{port}",
            "output": {"name": "hose", "address": f"127.0.0.1:{port}", "recheck": "300ms"},
        }},
        "sinks": {"archive": {"type": "file", "path": f"{tmp_path}/data/x.jsonl", "batch": {"max_wait": "100ms"}}},
        "routes": {"all": {"from": "telemetry", "to": "archive"}},
    })  # fmt: skip
    process.wait_metric("pipeline_sink_sent_records_total", 10)
    enabled = {"component": "telemetry", "what": "output_enabled"}
    for cycle, seconds in enumerate((3600, None), 1):
        cloud.turn("output", name="hose", enabled=False, seconds=seconds)
        process.wait_metric("pipeline_component_total", cycle, **enabled)
        before = process.metric("pipeline_sink_sent_records_total")
        process.wait_metric("pipeline_sink_sent_records_total", before + 20)
    assert "disabled" in process.wait_log("enabled again")["error"]
    assert process.metric("pipeline_gap_seconds_total") > 0
    assert process.metric("pipeline_conservation_error_records") == 0
    assert process.stop() == 0
