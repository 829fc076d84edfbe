"""What a decoded record says of itself, in every shape."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.limacharlie import records

ROUTING = {"oid": "o", "hostname": "h", "event_type": "NEW_PROCESS", "event_id": "e1", "event_time": 1_700_000_000_123}
EVENT = {"routing": ROUTING, "event": {"FILE_PATH": "x"}}
REAL = {
    "cat": "c",
    "detect": {"event": {"FILE_PATH": "x"}, "routing": ROUTING, "ts": "t"},
    "detect_id": "d1",
    "priority": 5,
}
REAL_ROUTED = {**REAL, "routing": {**ROUTING, "latency": 5}}
DOCUMENTED = {"cat": "c", "detect": {"FILE_PATH": "x"}, "routing": ROUTING, "detect_id": "d1", "priority": 5}
AUDIT = {"oid": "o", "ts": "2024-06-05T14:23:18Z", "etype": "hive_set", "time": 1_717_597_398, "ident": "me"}
AUDIT_CLI = {"oid": "o", "ts": "2024-06-05 14:23:18", "etype": "hive_set", "time": 1_717_597_398_000, "ident": "me"}
BILLING = {"record": {"cat": "b", "k": "k", "oid": "o", "record_id": "r1", "ts": 1_717_597_398, "v": 1}}
DEPLOYMENT = {"routing": {"oid": "o", "event_type": "enrollment", "event_time": 1_717_597_398_000}, "event": {"a": 1}}


@pytest.mark.parametrize("doc", [EVENT, REAL, REAL_ROUTED, DOCUMENTED])
def test_events_and_both_shapes_of_detections_tell_the_same(doc):
    """Wherever the event is."""
    assert records.payload(doc) == {"FILE_PATH": "x"}
    assert records.event_type(doc) == "NEW_PROCESS"
    assert records.event_id(doc) == "e1"
    assert records.hostname(doc) == "h"
    assert records.oid(doc) == "o"
    assert records.time_ms(doc) == 1_700_000_000_123


@pytest.mark.parametrize("doc", [REAL, REAL_ROUTED, DOCUMENTED])
def test_a_detection_has_its_own_id(doc):
    """Several detections may come from one event: its event's id does not name it."""
    assert records.unique_id(doc) == "d1"
    assert records.category(doc) == "c"
    assert records.priority(doc) == 5
    without = {key: value for key, value in doc.items() if key != "detect_id"}
    assert records.unique_id(without) is None


@pytest.mark.parametrize("doc", [AUDIT, AUDIT_CLI])
def test_both_shapes_of_audit_tell_the_same(doc):
    """Seconds and milliseconds are told apart."""
    assert records.event_type(doc) == "hive_set"
    assert records.time_ms(doc) == 1_717_597_398_000
    assert records.oid(doc) == "o"
    assert records.unique_id(doc) is None
    assert records.payload(doc) is doc
    assert records.time_ms({"ts": doc["ts"]}) == 1_717_597_398_000


def test_billing_and_deployment():
    """A billing record is flat under `record`; a deployment record is an event without an id."""
    assert records.event_type(BILLING) == "billing_record"
    assert (records.unique_id(BILLING), records.oid(BILLING), records.category(BILLING)) == ("r1", "o", "b")
    assert records.time_ms(BILLING) == 1_717_597_398_000
    assert records.event_type(DEPLOYMENT) == "enrollment"
    assert (records.unique_id(DEPLOYMENT), records.payload(DEPLOYMENT)) == (None, {"a": 1})


def test_a_detection_without_an_events_time_has_the_time_of_its_making():
    """`gen_time` is the last resort before texts."""
    assert records.time_ms({"cat": "c", "detect": {}, "gen_time": 1_717_597_398_000}) == 1_717_597_398_000


def test_copies_share_a_dedupe_id_and_others_do_not():
    """By id where there is one, else by content, whatever the order of the keys; never across streams."""
    assert records.dedupe_id(EVENT, "event") == records.dedupe_id({**EVENT, "ts": "later"}, "event")
    assert records.dedupe_id(AUDIT, "audit") == records.dedupe_id(dict(reversed(AUDIT.items())), "audit")
    assert records.dedupe_id(AUDIT, "audit") != records.dedupe_id({**AUDIT, "ident": "you"}, "audit")
    assert records.dedupe_id(REAL, "detect") != records.dedupe_id({**REAL, "detect_id": "d2"}, "detect")
    assert records.dedupe_id(EVENT, "event") != records.dedupe_id(EVENT, "deployment")


def test_a_dedupe_id_cannot_be_forged_into_a_hash():
    """An id that looks like a hash is still an id."""
    forged = {"detect": {}, "cat": "c", "detect_id": records.dedupe_id(AUDIT, "detect")}
    assert records.dedupe_id(forged, "detect") != records.dedupe_id(AUDIT, "detect")


@pytest.mark.parametrize(
    ("value", "milliseconds"),
    [
        (1_700_000_000, 1_700_000_000_000),
        (1_700_000_000_123, 1_700_000_000_123),
        (1_700_000_000.5, 1_700_000_000_500),
        ("2023-11-14T22:13:20+01:00", 1_699_996_400_000),
        ("2023-11-14 22:13:20", 1_700_000_000_000),
        (True, None),
        (-1, None),
        (0, None),
        (float("inf"), None),
        (float("nan"), None),
        (1e300, None),
        (10**400, None),
        ("yesterday....", None),
        ("0001-01-01", None),
        ("0001-01-01T00:00:00+23:00", None),
        (None, None),
        ([], None),
    ],
)
def test_times_of_any_kind(value, milliseconds):
    """What is no time is None."""
    assert records.parse_time(value) == milliseconds


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["routing", "detect", "event", "record", "cat", "ts", "time", "event_time", "oid", "priority"]
            ),
            inner,
        )
    ),
    max_leaves=12,
)


@given(
    st.dictionaries(
        st.sampled_from(["routing", "detect", "event", "record", "cat", "ts", "time", "etype", "detect_id"]), JSON
    )
)
def test_no_record_can_break_it(doc):
    """Records come from strangers: any shape gives answers of the right type."""
    assert isinstance(records.payload(doc), dict)
    for fact in (records.event_type, records.unique_id, records.hostname, records.oid, records.category):
        assert fact(doc) is None or isinstance(fact(doc), str)
    for number in (records.time_ms, records.priority):
        assert number(doc) is None or isinstance(number(doc), int)
    assert records.dedupe_id(doc, "event").startswith("event")
