"""Answers to tasks are picked by their investigation and name the request that they answer."""

import orjson
import pytest

from pipeline.core.event import Event
from pipeline.filters.responses import Responses, ResponsesConfig


def answer(kind, investigation, **more):
    return {
        "event": {"ERROR": 0},
        "routing": {"event_type": kind, "investigation_id": investigation, "sid": "s"},
        **more,
    }


def run(surroundings, events, records, **keys):
    config = ResponsesConfig.model_validate({"type": "responses", "context": "triage", **keys})
    made = events(records)
    return made, Responses(config, surroundings).apply(made)


@pytest.mark.parametrize(
    ("kind", "investigation", "keys", "request_"),
    [
        ("RECEIPT", "triage/d-1", {}, {"context": "triage", "id": "d-1"}),
        ("OS_PROCESSES_REP", "triage/d-1", {}, {"context": "triage", "id": "d-1"}),
        ("OS_PROCESSES_REP", "triage", {}, {"context": "triage"}),
        ("OS_PROCESSES_REP", "hunt/x/y", {"context": ["triage", "hunt"]}, {"context": "hunt", "id": "x/y"}),
        ("YARA_DETECTION", "triage/d", {"also": ["YARA_DETECTION"]}, {"context": "triage", "id": "d"}),
    ],
)
def test_an_answer_names_its_request(context, events, kind, investigation, keys, request_):
    """A receipt or a reply of a context goes on with the id of the record that the task was for."""
    record = answer(kind, investigation)
    [event] = run(context, events, [record], **keys)[1]
    assert record | {"request": request_} == orjson.loads(event.payload())


@pytest.mark.parametrize(
    "record",
    [
        answer("OS_PROCESSES_REP", "triage2/d-1"),
        answer("OS_PROCESSES_REP", "other"),
        answer("CLOUD_NOTIFICATION", "triage/d-1"),
        answer("NEW_PROCESS", "triage/d-1"),
        {"event": {"text": "triage/d-1"}, "routing": {"event_type": "OS_PROCESSES_REP"}},
        {"event": {"text": "triage"}, "routing": ["triage"]},
        {"event": {"text": "triage"}, "routing": {"event_type": 7, "investigation_id": ["triage"]}},
    ],
)
def test_what_is_no_answer_is_dropped(context, events, record):
    """Another investigation, another type of event, or a context that only stands somewhere in the record is no answer."""
    assert [] == list(run(context, events, [record])[1])


def test_escapes_hide_no_answer(context):
    """A context that the record spells with escapes is found as well."""
    raw = orjson.dumps(answer("RECEIPT", "triage/d")).replace(b"triage", b"tri\\u0061ge")
    config = ResponsesConfig.model_validate({"type": "responses", "context": "triage"})
    assert 1 == len(Responses(config, context).apply([Event(raw, "event")]))


def test_without_a_join_the_bytes_stay(context, events):
    """`join: null` only picks."""
    raw = orjson.dumps(answer("RECEIPT", "triage/d"), option=orjson.OPT_INDENT_2)
    [event] = run(context, events, [raw], join=None)[1]
    assert raw == event.payload()


def test_a_key_of_the_record_is_never_replaced(context, events):
    """A record that has the key already is refused."""
    [event], _ = run(context, events, [answer("RECEIPT", "triage/d", request="mine")])
    assert "key_taken" == event.rejection


def test_what_cannot_be_decoded_is_refused_alone(context, events):
    """A damaged record does not take the others of its batch with it."""
    made, kept = run(context, events, [b'{"triage', answer("RECEIPT", "triage/d")])
    assert ["invalid_json", ""] == [event.rejection for event in made]
    assert 1 == len(kept)
