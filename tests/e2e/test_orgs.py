"""Several organizations through one firehose port and one spout."""

import json

import pytest


@pytest.mark.timeout(90)
def test_three_organizations_one_revoked(emulator, pipeline, tmp_path, free_port, lines, until):
    """With one of three keys revoked the other two flow; files and metrics are apart, and add up per organization."""
    cloud = emulator("--rate", "0", "--events", "2000", "--orgs", "3")
    orgs = dict(zip(("acme", "globex", "initech"), cloud.ready["orgs"], strict=True))
    cloud.turn("revoke", api_key=orgs["initech"]["api_key"])
    port = free_port()
    process = pipeline({
        "limacharlie": {"url": cloud.ready["url"]},
        "orgs": {name: {"oid": org["oid"], "api_key": org["api_key"]} for name, org in orgs.items()},
        "sources": {
            "telemetry": {
                "type": "firehose", "stream": "event", "listen": f"127.0.0.1:{port}", "verify_oid": True,
                "output": {"name": "fleet", "address": f"127.0.0.1:{port}"},
            },
            "detections": {"type": "spout", "stream": "detect"},
        },
        "sinks": {"archive": {"type": "file", "path": f"{tmp_path}/data/{{org}}/{{stream}}.jsonl", "batch": {"max_wait": "100ms"}}},
        "routes": {"all": {"from": ["telemetry", "detections"], "to": "archive"}},
    })  # fmt: skip
    process.wait_metric("pipeline_lane_records_total", 8000, timeout=40, outcome="delivered")
    for name in ("acme", "globex"):
        for source in ("telemetry", "detections"):
            labels = {"source": source, "org": name}
            assert process.metric("pipeline_source_received_records_total", **labels) == 2000
            assert process.metric("pipeline_lane_records_total", **labels, outcome="delivered") == 2000
    assert process.metric("pipeline_source_received_records_total", org="initech") == 0
    assert process.metric("pipeline_conservation_error_records") == 0
    status, body = process.get("readyz")
    assert status == 200
    failed = [c for c in json.loads(body)["components"] if c["org"] == "initech" and c["kind"] == "source"]
    assert [c["state"] for c in failed] == ["failed"]
    assert process.stop() == 0
    for name in ("acme", "globex"):
        for stream in ("event", "detect"):
            stored = (tmp_path / "data" / name / f"{stream}.jsonl").read_bytes().splitlines()
            assert len(stored) == 2000
            assert {json.loads(line)["routing"]["oid"] for line in stored if b'"routing"' in line} == {
                orgs[name]["oid"]
            }
    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == ["acme", "globex"]
