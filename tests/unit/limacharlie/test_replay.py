"""Rules over the past."""

import pytest

from pipeline.core.errors import RequestRefusedError, UsageError
from pipeline.limacharlie.replay import Limits

OID = "8cbe27f4-bfa1-4afb-ba19-138cd51389cd"
SID = "9cbed57a-6d6a-4af0-b881-803a99b177d9"
RULE = {"detect": {"op": "exists", "path": "event"}, "respond": []}


async def test_a_rule_runs_over_history(account, service):
    """By name, over a sensor, within seconds and limits."""
    service.reply({"did_match": True, "results": [{"action": "report", "data": {}}], "stats": {"n_proc": 5}})
    found = await account.replay.history(
        "r", 1_700_000_000, 1_700_003_600, sid=SID, limits=Limits(events=10, evaluations=20), trace=True, dry_run=True
    )
    assert (found.matched, found.results, found.stats) == (True, [{"action": "report", "data": {}}], {"n_proc": 5})
    assert service.asked[0].route == "POST /"
    assert service.asked[0].json == {
        "oid": OID,
        "rule_source": {"rule_name": "r", "namespace": "general"},
        "event_source": {
            "stream": "event",
            "sensor_events": {"start_time": 1_700_000_000, "end_time": 1_700_003_600, "sid": SID},
        },
        "limit_event": 10,
        "limit_eval": 20,
        "trace": True,
        "is_dry_run": True,
    }


async def test_a_rule_runs_over_given_events(account, service):
    """As one writes a test."""
    service.reply({"did_match": False, "results": None, "traces": [["no"]]})
    found = await account.replay.events(RULE, [{"event": {}}], trace=True)
    assert (found.matched, found.results, found.traces) == (False, [], [["no"]])
    assert service.asked[0].json["rule_source"] == {"rule": RULE}
    assert service.asked[0].json["event_source"] == {"stream": "event", "sensor_events": {}, "events": [{"event": {}}]}


async def test_a_wrong_rule_is_refused_though_the_status_is_200(account, service):
    """The error is in the answer."""
    service.reply({"error": "error parsing rule: unknown op"})
    with pytest.raises(RequestRefusedError, match="unknown op"):
        await account.replay.validate(RULE)


async def test_a_sensor_and_a_selector_exclude_each_other(account, service):
    """One of them would be ignored."""
    with pytest.raises(UsageError):
        await account.replay.history("r", sid=SID, selector="*")
    assert service.asked == []
