from __future__ import annotations

import pytest
from pydantic import ValidationError

from pipeline.filters.events import Events, EventsConfig

NEW = {"routing": {"event_type": "NEW_PROCESS"}, "event": {}}
DNS = {"routing": {"event_type": "DNS_REQUEST"}, "event": {}}
DETECTION = {"cat": "suspicious", "routing": {"event_type": "NEW_PROCESS"}, "detect": {}}
AUDIT = {"oid": "o", "etype": "hive_set", "msg": "m"}
BILLING = {"record": {"cat": "sensors", "k": "k", "v": 1}}
UNTYPED = {"hello": 1}
ALL = [NEW, DNS, DETECTION, AUDIT, BILLING, UNTYPED]


def test_include(kept):
    """Only the listed types go on."""
    assert kept(Events, EventsConfig(include=["DNS_REQUEST"]), ALL) == [1]


def test_exclude(kept):
    """All but the listed types go on, also records without a type."""
    assert kept(Events, EventsConfig(exclude=["DNS_REQUEST"]), ALL) == [0, 2, 3, 4, 5]


def test_detection_has_the_type_of_its_event(kept):
    """A detection is chosen by the type of the event that caused it."""
    assert kept(Events, EventsConfig(include=["NEW_PROCESS"]), ALL) == [0, 2]


@pytest.mark.parametrize(("name", "number"), [("hive_set", 3), ("billing_record", 4)])
def test_records_without_routing(kept, name, number):
    """Audit records are known by etype, billing records by their form."""
    assert kept(Events, EventsConfig(include=[name]), ALL) == [number]


def test_names_are_exact(kept):
    """A type in another case or a part of one is another type."""
    assert kept(Events, EventsConfig(include=["dns_request", "DNS"]), ALL) == []


@pytest.mark.parametrize(
    "record",
    [{"routing": {"event_type": ["DNS_REQUEST"]}}, {"routing": {}}, {"routing": "DNS_REQUEST"}, {"etype": {"a": 1}}],
)
def test_type_of_a_strange_form_is_none(kept, record):
    """A type that is not a text is in no list and harms nothing."""
    assert kept(Events, EventsConfig(include=["DNS_REQUEST"]), [record]) == []
    assert kept(Events, EventsConfig(exclude=["DNS_REQUEST"]), [record]) == [0]


@pytest.mark.parametrize(
    "keys", [{}, {"include": ["A"], "exclude": ["B"]}, {"include": []}, {"include": [""]}, {"includes": ["A"]}]
)
def test_config_mistakes(keys):
    """Exactly one list, with names in it, is asked for."""
    with pytest.raises(ValidationError):
        EventsConfig.model_validate({"type": "events", **keys})


def test_undecodable_record_is_rejected_alone(context, events):
    """A record that is not JSON is refused with a reason, and the others of its batch go on."""
    batch = events([NEW, b'{"routing": nope}', NEW])
    assert [event.sequence for event in Events(EventsConfig(include=["NEW_PROCESS"]), context).apply(batch)] == [0, 2]
    assert [event.rejection for event in batch] == ["", "invalid_json", ""]
