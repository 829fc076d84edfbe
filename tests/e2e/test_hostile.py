"""Records made to hurt."""

import pytest


@pytest.mark.timeout(120)
def test_hostile_records_choose_no_path_and_crash_nothing(emulator, pipeline, tmp_path, until):
    """Path values with ../, NUL and bidi characters, 10,000 distinct names, 16 MiB strings and deep nesting stay in the prefix."""
    cloud = emulator("--rate", "1")
    cloud.turn("buffer", records=50_000, size=512 << 20)
    ready = cloud.ready
    folder = tmp_path / "prefix"
    process = pipeline({
        "limacharlie": {"url": ready["url"], "oid": ready["oid"], "api_key": ready["api_key"]},
        "sources": {"telemetry": {"type": "spout", "stream": "event", "max_record": "16MiB"}},
        "sinks": {
            "by_host": {"type": "file", "path": f"{folder}/hosts/{{routing/hostname}}/x.jsonl", "batch": {"max_wait": "100ms"}},
            "console": {"type": "stdout", "format": "pretty"},
        },
        "routes": {"all": {
            "from": "telemetry",
            "filters": [{"type": "match", "op": "exists", "path": "*/oid"}],
            "to": ["by_host", "console"],
        }},
    })  # fmt: skip
    process.wait_metric("pipeline_source_received_records_total", 1)
    cloud.turn("hostile", distinct=10_000, string_bytes=15 << 20, depth=500)
    process.wait_metric("pipeline_source_received_records_total", 10_000, timeout=60)
    until(lambda: process.metric("pipeline_lane_waiting_records") == 0, "all is written", 60)
    assert process.metric("pipeline_conservation_error_records") == 0
    assert process.stop() == 0
    outside = [path for path in tmp_path.rglob("x.jsonl") if folder not in path.parents]
    assert outside == []
    names = [path.name for path in (folder / "hosts").iterdir()]
    assert "_overflow" in names
    assert len(names) <= 1001
    assert all(set(name) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-") for name in names)
    shown = (process.folder / "stdout").read_text()
    assert not set(shown) & {"\x00", "\x1b", "\x07", "\u202e", "\u2066", "\u200f"}


def test_a_record_over_the_limit_goes_to_the_source_dead_letter(emulator, pipeline, tmp_path, until):
    """A record over max_record is refused into the source's dead letter with its beginning; the next one is fine."""
    cloud = emulator("--rate", "1")
    ready = cloud.ready
    process = pipeline({
        "limacharlie": {"url": ready["url"], "oid": ready["oid"], "api_key": ready["api_key"]},
        "sources": {"telemetry": {"type": "spout", "stream": "event", "max_record": "1MiB"}},
        "sinks": {"archive": {"type": "file", "path": f"{tmp_path}/data/x.jsonl", "batch": {"max_wait": "100ms"}}},
        "routes": {"all": {"from": "telemetry", "to": "archive"}},
    })  # fmt: skip
    process.wait_metric("pipeline_source_received_records_total", 1)
    cloud.turn("emit", stream="event", records=['{"big":"' + "x" * (2 << 20) + '"}', '{"small":1}'])
    process.wait_metric("pipeline_source_rejected_records_total", 1, reason="oversize")
    until(
        lambda: b'{"small":1}' in b"".join(p.read_bytes() for p in tmp_path.rglob("x.jsonl")),
        "the next record is stored",
    )
    assert process.stop() == 0
    (letter,) = (process.folder / "letters" / "sources" / "telemetry").glob("*.jsonl")
    assert b'"reason":"oversize"' in letter.read_bytes()
