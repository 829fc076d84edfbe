from __future__ import annotations

import hashlib
import uuid
from datetime import UTC, datetime
from typing import Literal

import orjson
import pytest

from pipeline.emulator.fleet import Fleet
from pipeline.emulator.generator import STREAMS, Generator

OID = "8cbe27f4-bfa1-4afb-ba19-138cd51389cd"
START = 1_700_000_000_000


@pytest.fixture(scope="module")
def fleet() -> Fleet:
    return Fleet(OID, 7)


@pytest.mark.parametrize("shape", ["real", "documented"])
def test_a_detection_holds_an_event_of_the_event_stream(fleet: Fleet, shape: Literal["real", "documented"]) -> None:
    """The n-th detection is about one of the first n events that the event generator with the same seed makes."""
    events = {record.id: (n, record) for n, record in enumerate(Generator(fleet, "event", 7, START, 50).take(3000))}
    for n, record in enumerate(Generator(fleet, "detect", 7, START, 50, detect_shape=shape).take(3000)):
        detection = orjson.loads(record.raw)
        number, event = events[detection["routing"]["event_id"]]
        original = orjson.loads(event.raw)
        assert number <= n
        assert (event.event_type, event.sid, event.tags) == (record.event_type, record.sid, record.tags)
        latency = detection["routing"].pop("latency", None)
        assert original["routing"] == detection["routing"]
        if shape == "real":
            assert original == detection["detect"]
            assert record.time_ms - event.time_ms == latency
            assert detection["source"].startswith(f"{OID}.{original['routing']['iid']}.{record.sid}.")
        else:
            assert original["event"] == detection["detect"]
            assert latency is None
            assert detection["source"] in {"dr-general", "dr-managed"}


def test_a_detection_says_what_is_in_it(fleet: Fleet) -> None:
    """A detection has its own id, category, priority and time, and rules of many kinds fire."""
    records = Generator(fleet, "detect", 7, START, 50).take(5000)
    assert len(records) == len({uuid.UUID(record.id) for record in records})
    for record in records:
        detection = orjson.loads(record.raw)
        assert (record.id, record.cat, record.time_ms) == (
            detection["detect_id"],
            detection["cat"],
            detection["gen_time"],
        )
        assert 0 <= detection["priority"] <= 10
        assert {"author", "link", "mtd", "namespace", "rule_tags", "source_rule"} <= detection.keys()
    assert len({record.cat for record in records}) >= 15


def test_a_detection_fires_for_a_reason(fleet: Fleet) -> None:
    """A rule about encoded PowerShell fires on processes that have it."""
    records = Generator(fleet, "detect", 7, START, 50).take(10_000)
    encoded = [orjson.loads(r.raw) for r in records if r.cat == "Encoded PowerShell Command"]
    assert encoded
    for detection in encoded:
        assert "-EncodedCommand" in detection["detect"]["event"]["COMMAND_LINE"]


def test_audit_comes_in_both_shapes(fleet: Fleet) -> None:
    """Audit is mostly as it is in use (verbs, milliseconds), sometimes as it is documented (kinds, seconds, ISO 8601)."""
    records = Generator(fleet, "audit", 7, START, 50).take(2000)
    documented = 0
    for record in records:
        entry = orjson.loads(record.raw)
        second = datetime.fromtimestamp(record.time_ms // 1000, UTC)
        assert {"oid", "ts", "etype", "msg", "origin", "time", "ident", "entity", "mtd"} <= entry.keys()
        assert ("", "audit", entry["etype"]) == (record.id, record.stream, record.event_type)
        if entry["etype"] in {"config_change", "api_call", "user_action", "error"}:
            documented += 1
            assert (f"{second:%Y-%m-%dT%H:%M:%SZ}", record.time_ms // 1000) == (entry["ts"], entry["time"])
        else:
            assert (f"{second:%Y-%m-%d %H:%M:%S}", record.time_ms) == (entry["ts"], entry["time"])
    assert 0.05 < documented / len(records) < 0.3


def test_deployment_has_the_names_of_the_platform_events(fleet: Fleet) -> None:
    """Deployment records have all of the lower case names, and an id where they are about a sensor."""
    records = Generator(fleet, "deployment", 7, START, 50).take(2000)
    sids = {sensor.sid for sensor in fleet.sensors}
    for record in records:
        routing = orjson.loads(record.raw)["routing"]
        assert (routing["event_type"], routing["event_time"], OID) == (
            record.event_type,
            record.time_ms,
            routing["oid"],
        )
        assert (routing.get("event_id", ""), routing.get("sid", "")) == (record.id, record.sid)
        assert (record.sid in sids) is (record.event_type not in {"quota_changed", "cloud_adapter_disabled"})
    assert {
        "enrollment",
        "sensor_clone",
        "sensor_over_quota",
        "deleted_sensor",
        "disconnected",
        "sensor_crash",
        "quota_changed",
        "cloud_adapter_disabled",
    } == {record.event_type for record in records}


def test_billing_has_one_record_object(fleet: Fleet) -> None:
    """A billing record is an object under ``record``, with an id of its own and without routing."""
    records = Generator(fleet, "billing", 7, START, 50).take(1000)
    assert len(records) == len({record.id for record in records})
    for record in records:
        doc = orjson.loads(record.raw)
        assert list(doc) == ["record"]
        assert {"cat", "k", "oid", "record_id", "ts", "v"} == doc["record"].keys()
        assert (record.id, "billing_record") == (doc["record"]["record_id"], record.event_type)


@pytest.mark.parametrize("stream", STREAMS)
def test_no_two_records_are_equal(fleet: Fleet, stream: str) -> None:
    """Even many records in one millisecond differ, so that a receiver that dedupes by content loses none."""
    raws = [record.raw for record in Generator(fleet, stream, 7, START, 1e6).take(5000)]
    assert len(raws) == len(set(raws))


def test_records_are_the_same_on_every_machine() -> None:
    """The first records of all streams have the bytes they had when this was written; a change of content changes the figure."""
    fleet = Fleet(OID, 7)
    digest = hashlib.sha256()
    for stream in STREAMS:
        for record in Generator(fleet, stream, 7, START, 10).take(2000):
            digest.update(record.raw)
    assert digest.hexdigest() == "ae53bceb8e4afba37a1edbc47a26fc8348a2fc33b090095c095676093800422f"


def test_a_seed_a_start_and_an_organization_change_all_ids(fleet: Fleet) -> None:
    """Runs that differ in seed, start or organization share no event id."""
    runs = [
        Generator(fleet, "event", 7, START, 10),
        Generator(fleet, "event", 8, START, 10),
        Generator(fleet, "event", 7, START + 1, 10),
        Generator(Fleet(str(uuid.UUID(int=5)), 7), "event", 7, START, 10),
    ]
    ids = [record.id for run in runs for record in run.take(500)]
    assert len(ids) == len(set(ids))


def test_an_unknown_stream_is_refused(fleet: Fleet) -> None:
    """The refusal names the streams that there are."""
    with pytest.raises(ValueError, match=r"'artifacts'.*event, detect"):
        Generator(fleet, "artifacts", 7, START, 10)


@pytest.mark.parametrize("rate", [0, -1.0])
def test_a_rate_that_stands_still_is_refused(fleet: Fleet, rate: float) -> None:
    """The clock must move."""
    with pytest.raises(ValueError, match="above 0"):
        Generator(fleet, "event", 7, START, rate)


def test_a_fleet_has_what_the_scenarios_need() -> None:
    """For Windows and Linux a sensor that is always and one that is never online; one of each other kind."""
    for seed in range(20):
        for size in (7, 14, 40):
            sensors = Fleet(OID, seed, size).sensors
            assert size == len(sensors) == len({sensor.sid for sensor in sensors})
            kinds = {(sensor.platform, sensor.presence) for sensor in sensors}
            assert {
                (platform, presence) for platform in ("windows", "linux") for presence in ("always", "never")
            } <= kinds
            assert {("macos", "always"), ("chrome", "always")} <= kinds
            assert any(sensor.arch == 9 for sensor in sensors)


def test_a_fleet_that_is_too_small_is_refused() -> None:
    """Six sensors cannot be of all kinds."""
    with pytest.raises(ValueError, match="at least 7"):
        Fleet(OID, 1, 6)
