from __future__ import annotations

import json
import uuid
from collections import Counter
from typing import Any

import orjson
import pytest

from pipeline.emulator.fleet import Fleet
from pipeline.emulator.generator import Generator, Record

OID = "8cbe27f4-bfa1-4afb-ba19-138cd51389cd"
START = 1_700_000_000_000
ADAPTERS = {"okta", "office365"}

# Which operating systems have which event, as LimaCharlie's reference says: Mac, Windows, Linux, Chrome.
VALID = {
    "AUTORUN_CHANGE": "W",
    "CLOUD_NOTIFICATION": "MWLC",
    "CODE_IDENTITY": "MWL",
    "CONNECTED": "MWLC",
    "DATA_DROPPED": "MWL",
    "DIR_LIST_REP": "MWL",
    "DNS_REQUEST": "MWLC",
    "DRIVER_CHANGE": "W",
    "EXEC_OOB": "ML",
    "EXISTING_PROCESS": "MWL",
    "FILE_CREATE": "MWL",
    "FILE_DELETE": "MWL",
    "FILE_GET_REP": "MWL",
    "FILE_MODIFIED": "MWL",
    "FILE_TYPE_ACCESSED": "MW",
    "FIM_HIT": "MWL",
    "HTTP_REQUEST": "C",
    "HTTP_REQUEST_HEADERS": "C",
    "HTTP_RESPONSE_HEADERS": "C",
    "MEM_MAP_REP": "MWL",
    "MODULE_LOAD": "WL",
    "NETSTAT_REP": "MWL",
    "NETWORK_CONNECTIONS": "MWL",
    "NETWORK_SUMMARY": "MWL",
    "NEW_DOCUMENT": "MW",
    "NEW_NAMED_PIPE": "W",
    "NEW_PROCESS": "MWL",
    "NEW_REMOTE_THREAD": "W",
    "NEW_TCP4_CONNECTION": "MWL",
    "NEW_TCP6_CONNECTION": "MWL",
    "NEW_UDP4_CONNECTION": "MWL",
    "NEW_UDP6_CONNECTION": "MWL",
    "OPEN_NAMED_PIPE": "W",
    "OS_PROCESSES_REP": "MWL",
    "OS_VERSION_REP": "MWL",
    "PROCESS_ENVIRONMENT": "WL",
    "RECEIPT": "MWLC",
    "REGISTRY_CREATE": "W",
    "REGISTRY_DELETE": "W",
    "REGISTRY_WRITE": "W",
    "REMOTE_PROCESS_HANDLE": "W",
    "SENSITIVE_PROCESS_ACCESS": "W",
    "SERVICE_CHANGE": "MWL",
    "SHUTTING_DOWN": "MWL",
    "SSH_LOGIN": "M",
    "SSH_LOGOUT": "M",
    "STARTING_UP": "MWL",
    "TERMINATE_PROCESS": "MWL",
    "TERMINATE_TCP4_CONNECTION": "MWL",
    "THREAD_INJECTION": "W",
    "USER_OBSERVED": "MWL",
    "VOLUME_MOUNT": "MW",
    "VOLUME_UNMOUNT": "MW",
    "WEL": "W",
    "YARA_DETECTION": "MWL",
}


@pytest.fixture(scope="module")
def fleet() -> Fleet:
    return Fleet(OID, 7)


@pytest.fixture(scope="module")
def records(fleet: Fleet) -> list[Record]:
    return Generator(fleet, "event", 7, START, 1000.0).take(20_000)


@pytest.fixture(scope="module")
def docs(records: list[Record]) -> list[dict[str, Any]]:
    return [orjson.loads(record.raw) for record in records]


def test_a_record_is_one_compact_line(records: list[Record], docs: list[dict[str, Any]]) -> None:
    """A record is compact JSON without a line break, so one line of the wire."""
    for record, doc in zip(records, docs, strict=True):
        assert b"\n" not in record.raw
        assert b"\r" not in record.raw
        assert len(record.raw.replace(b"\\u003c", b"<").replace(b"\\u003e", b">").replace(b"\\u0026", b"&")) == len(
            json.dumps(doc, ensure_ascii=False, separators=(",", ":")).encode()
        )


def test_a_record_says_what_is_in_it(records: list[Record], docs: list[dict[str, Any]]) -> None:
    """What output filters look at is what the record's routing says."""
    for record, doc in zip(records, docs, strict=True):
        routing = doc["routing"]
        assert (record.stream, record.cat) == ("event", "")
        assert record.event_type == routing["event_type"]
        assert (record.sid, list(record.tags)) == (routing["sid"], routing["tags"])
        assert (record.id, record.time_ms) == (routing["event_id"], routing["event_time"])
        assert record.inv_id == routing.get("investigation_id", "")


def test_routing_is_complete(docs: list[dict[str, Any]], fleet: Fleet) -> None:
    """Each record's routing has all that its sensor says of itself."""
    sensors = {sensor.sid: sensor for sensor in fleet.sensors}
    for doc in docs:
        routing = doc["routing"]
        sensor = sensors[routing["sid"]]
        for name in ("iid", "did", "hostname", "plat", "arch", "int_ip", "ext_ip"):
            assert getattr(sensor, name) == routing[name]
        assert routing["oid"] == OID
        assert {"moduleid", "this"} <= routing.keys()
        for atom in ("this", "parent", "target"):
            assert len(bytes.fromhex(routing.get(atom, "00" * 16))) == 16
        assert {"event", "routing", "ts"} == doc.keys()


def test_the_text_time_is_the_event_time(docs: list[dict[str, Any]]) -> None:
    """The top level time is the event time in seconds of UTC."""
    assert docs[0]["ts"] == "2023-11-14 22:13:20"
    assert docs[-1]["routing"]["event_time"] == START + 19_999
    assert docs[-1]["ts"] == "2023-11-14 22:13:39"


def test_the_clock_advances_by_the_rate(fleet: Fleet) -> None:
    """At 3 a second, records are a third of a second apart without drift."""
    times = [record.time_ms for record in Generator(fleet, "event", 7, START, 3).take(7)]
    assert [START + t for t in (0, 333, 666, 1000, 1333, 1666, 2000)] == times


def test_ids_are_unique(records: list[Record]) -> None:
    """No two records share an event id, and each is a UUID."""
    assert len(records) == len({uuid.UUID(record.id) for record in records})


def test_events_fit_their_platform(records: list[Record], fleet: Fleet) -> None:
    """An endpoint sends only what its operating system has, and of the known events most occur."""
    platforms = {sensor.sid: sensor.platform for sensor in fleet.sensors}
    seen = set()
    for record in records:
        platform = platforms[record.sid]
        if platform not in ADAPTERS:
            assert platform[0].upper() in VALID[record.event_type], record.event_type
            seen.add(record.event_type)
    assert len(seen) >= 45


def test_sensors_that_are_never_online_are_silent(records: list[Record], fleet: Fleet) -> None:
    """Every sensor but those that are never online sends."""
    assert {sensor.sid for sensor in fleet.sensors if sensor.presence != "never"} == {record.sid for record in records}


def test_processes_hang_together(docs: list[dict[str, Any]]) -> None:
    """Atoms name processes that were reported, an end ends a live process once, and a connection belongs to a live one."""
    live: dict[str, int] = {}
    known: set[str] = set()
    ended = 0
    for doc in docs:
        routing, event = doc["routing"], doc["event"]
        kind, this, parent = routing["event_type"], routing["this"], routing.get("parent")
        if parent is not None:
            assert parent in known
        if kind in {"NEW_PROCESS", "EXISTING_PROCESS"}:
            assert this not in known
            known.add(this)
            live[this] = event["PROCESS_ID"]
            if "PARENT" in event:
                assert parent == event["PARENT"]["THIS_ATOM"]
                assert event["PARENT_PROCESS_ID"] == event["PARENT"]["PROCESS_ID"]
        elif kind == "TERMINATE_PROCESS":
            assert live.pop(this) == event["PROCESS_ID"]
            ended += 1
        elif kind in {
            "NETWORK_CONNECTIONS",
            "NEW_TCP4_CONNECTION",
            "NEW_UDP4_CONNECTION",
            "TERMINATE_TCP4_CONNECTION",
        } or (kind == "DNS_REQUEST" and "PROCESS_ID" in event):
            assert live[this] == event["PROCESS_ID"]
        if "target" in routing:
            assert routing["target"] in live
    assert ended > 1000


def test_the_usual_events_dominate(records: list[Record]) -> None:
    """Processes, connections, names, code and files are four fifths of the stream."""
    counts = Counter(record.event_type for record in records)
    usual = sum(
        count
        for kind, count in counts.items()
        if kind.endswith("_PROCESS")
        or kind.startswith("FILE_")
        or kind in {"NETWORK_CONNECTIONS", "DNS_REQUEST", "CODE_IDENTITY"}
    )
    assert 0.75 < usual / len(records) < 0.95


def test_sizes_are_realistic(records: list[Record]) -> None:
    """A record has 1.2 to 1.6 KB in the mean, nearly all have 0.4 to 3 KB, and a few have far more."""
    sizes = sorted(len(record.raw) for record in records)
    assert 1200 <= sum(sizes) / len(sizes) <= 1600
    assert sum(400 <= size <= 3072 for size in sizes) > 0.95 * len(sizes)
    assert 30_000 < sizes[-1] < 150_000


def test_text_is_not_only_ascii(records: list[Record]) -> None:
    """Names and paths have characters of two, three and four bytes, and escapes."""
    text = b"\n".join(record.raw for record in records).decode()
    for sample in ("é", "佐藤", "🚀", "\\u003c", '\\"', "\\\\"):
        assert sample in text


def test_a_task_is_confirmed_and_then_answered(docs: list[dict[str, Any]]) -> None:
    """The confirmation and the reply of a task carry one investigation, in this order."""
    open_tasks: set[str] = set()
    answered = 0
    for doc in docs:
        investigation = doc["routing"].get("investigation_id")
        if doc["routing"]["event_type"] == "CLOUD_NOTIFICATION":
            assert doc["event"]["NOTIFICATION"]["INVESTIGATION_ID"] == investigation
            open_tasks.add(investigation)
        elif investigation is not None:
            open_tasks.remove(investigation)
            answered += 1
    assert answered > 50
