"""What LimaCharlie keeps: events, detections, audit."""

import time

import pytest

from pipeline.core.errors import UnavailableError, UsageError

OID = "8cbe27f4-bfa1-4afb-ba19-138cd51389cd"
SID = "9cbed57a-6d6a-4af0-b881-803a99b177d9"


async def test_events_are_walked_through_pages(account, service):
    """In seconds, from one cursor to the next."""
    service.reply({"events": service.packed([{"n": 1}]), "next_cursor": "c1"}, {"events": service.packed([{"n": 2}])})
    walk = account.history.events(SID, 1_700_000_000_000, 1_700_003_600, event_type="NEW_PROCESS", forward=False)
    assert [event async for event in walk] == [{"n": 1}, {"n": 2}]
    expected = {
        "start": "1700000000",
        "end": "1700003600",
        "is_compressed": "true",
        "is_forward": "false",
        "event_type": "NEW_PROCESS",
    }
    assert [asked.query for asked in service.asked] == [expected | {"cursor": c} for c in ("-", "c1")]
    assert service.asked[0].route == f"GET /v1/insight/{OID}/{SID}"


async def test_relative_times_are_computed_when_the_walk_begins(account, service):
    """Never before, and both ends from the same moment."""
    service.reply({"detects": ""})
    assert [d async for d in account.history.detections("last 24 hours", category="c", limit=5)] == []
    query = service.asked[0].query
    assert abs(time.time() - float(query["end"])) < 5
    assert 86_400 <= int(query["end"]) - int(query["start"]) <= 86_402
    assert (query["cat"], query["limit"]) == ("c", "5")


async def test_a_wrong_range_is_an_error_of_the_call(account, service):
    """Not of the first step of the walk."""
    with pytest.raises(UsageError, match="not before"):
        account.history.detections("1h", "2h")
    with pytest.raises(UsageError):
        account.history.events("../x")
    assert service.asked == []


async def test_the_audit_trail(account, service):
    """By type and sensor."""
    service.reply({"events": service.packed([{"etype": "x"}])})
    assert [e async for e in account.history.audit("1h", event_type="x", sid=SID)] == [{"etype": "x"}]
    assert service.asked[0].route == f"GET /v1/insight/{OID}/audit"
    assert (service.asked[0].query["event_type"], service.asked[0].query["sid"]) == ("x", SID)


async def test_one_detection(account, service):
    """By its id."""
    service.reply({"detect_id": "d1"})
    assert await account.history.detection("d1") == {"detect_id": "d1"}
    assert service.asked[0].path == f"/v1/insight/{OID}/detections/d1"


async def test_a_page_lost_on_the_way_is_asked_for_again(account, service, no_pauses):
    """A walk goes on after a temporary failure, and fails after a lasting one; it never skips."""
    service.reply({"events": [{"n": 1}], "next_cursor": "c1"}, {"events": [{"n": 2}]})
    service.answers.insert(1, service.refusal(503))
    assert [e["n"] async for e in account.history.audit("1h")] == [1, 2]
    service.answers = [service.refusal(503)]
    with pytest.raises(UnavailableError):
        [e async for e in account.history.audit("1h")]
