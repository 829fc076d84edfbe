from __future__ import annotations

import pytest
from pydantic import BaseModel, ValidationError
from ruamel.yaml import YAML

from pipeline.filters.match import Match, MatchConfig
from pipeline.rules.paths import MAX_NODES

RECORDS = [{"priority": 5, "cat": "A"}, {"priority": 3, "cat": "b"}, {"cat": "B"}]


def config(**keys: object) -> MatchConfig:
    return MatchConfig.model_validate(
        {"type": "match", **{key.replace("_", " "): value for key, value in keys.items()}}
    )


def test_keeps_what_satisfies_the_rule(kept):
    """Records that satisfy the condition go on, in order."""
    assert kept(Match, config(op="is greater than", path="priority", value=4), RECORDS) == [0]
    assert kept(Match, config(op="exists", path="cat"), RECORDS) == [0, 1, 2]


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"op": "is", "path": "cat", "value": "B"}, [2]),
        ({"op": "is", "path": "cat", "value": "B", "case sensitive": False}, [1, 2]),
        ({"op": "is", "path": "cat", "value": "B", "not": True}, [0, 1]),
        ({"op": "matches", "path": "cat", "re": "^b$"}, [1, 2]),
        ({"op": "contains", "path": "cat", "value": "b", "count": 2}, []),
        ({"op": "exists", "path": "priority", "truthy": True}, [0, 1]),
        ({"op": "is lower than", "path": "cat", "value": 2, "length of": True}, [0, 1, 2]),
        (
            {
                "op": "or",
                "rules": [{"op": "is", "path": "cat", "value": "A"}, {"op": "is", "path": "priority", "value": 3}],
            },
            [0, 1],
        ),
    ],
)
def test_every_key_reaches_the_rule(kept, keys, expected):
    """Each key of the rule language has its effect when it is written in the configuration."""
    assert kept(Match, config(**keys), RECORDS) == expected


def test_the_rule_of_the_guide_for_answers_works_as_it_is_written(kept):
    """The detect block by which Reliable Tasking's guide catches answers, pasted into a filter."""
    block = """
op: contains
event: RECEIPT
path: routing/investigation_id
value: version
"""
    rule = YAML(typ="safe", pure=True).load(block)
    answers = [
        {"routing": {"event_type": kind, "investigation_id": context}, "event": {}}
        for kind, context in (("RECEIPT", "version"), ("RECEIPT", "other"), ("OS_VERSION_REP", "version"))
    ]
    answers.append({"routing": {"event_type": "RECEIPT"}, "event": {}})
    assert kept(Match, MatchConfig.model_validate({"type": "match", **rule}), answers) == [0]


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"op": "exists", "path": "event/a", "event": "A"}, [0]),
        ({"op": "exists", "path": "event/a", "event": "A", "not": True}, [1]),
        ({"op": "exists", "path": "event/a", "events": ["A", "B"]}, [0, 2]),
        ({"op": "exists", "path": "event/a", "event": "a", "case sensitive": False}, []),
        ({"op": "exists", "path": "msg", "event": "set_rule"}, [3]),
        ({"op": "and", "event": "A", "rules": [{"op": "exists", "path": "event/a", "not": True}]}, [1]),
        (
            {
                "op": "or",
                "rules": [
                    {"op": "exists", "path": "event", "event": "A"},
                    {"op": "exists", "path": "event/a", "event": "B"},
                ],
            },
            [0, 1, 2],
        ),
    ],
)
def test_a_condition_may_be_for_some_types_of_records(kept, keys, expected):
    """`event` and `events` say for which types any condition is, exactly; other records do not satisfy it, turned around or not."""
    records = [
        {"routing": {"event_type": kind}, "event": event}
        for kind, event in (("A", {"a": 1}), ("A", {}), ("B", {"a": 1}))
    ]
    records.append({"etype": "set_rule", "msg": "x"})
    assert kept(Match, config(**keys), records) == expected


@pytest.mark.parametrize(
    "keys", [{"event": ""}, {"event": 1}, {"events": []}, {"events": [1]}, {"event": "A", "events": ["A"]}]
)
def test_wrong_types_of_records_are_refused(keys):
    """A type is a text, several are a list, and one does not give both."""
    with pytest.raises(ValidationError, match="event"):
        config(op="exists", path="a", **keys)


def test_values_keep_their_type():
    """The rule is the one that was written: no number becomes a text on the way."""
    keys = {"op": "is", "path": "a", "value": 0x10, "case sensitive": False, "not": True}
    assert MatchConfig.model_validate({"type": "match", "name": "n", **keys}).rule() == keys


def test_mistakes_are_reported_at_their_places():
    """Each mistake in a rule is an error of its own, located inside the configuration."""

    class Route(BaseModel):
        filters: list[MatchConfig]

    rules = [
        {"op": "iz", "path": "a"},
        {"op": "is", "path": "a", "value": 1},
        {"op": "matches", "path": "a", "re": "("},
    ]
    with pytest.raises(ValidationError) as caught:
        Route.model_validate({"filters": [{"type": "match", "op": "and", "rules": rules}]})
    assert [error["loc"] for error in caught.value.errors()] == [
        ("filters", 0, "rules", 0, "op"),
        ("filters", 0, "rules", 2, "re"),
    ]
    assert "Did you mean 'is'?" in caught.value.errors()[0]["msg"]


def test_key_with_underscore_is_refused():
    """Only LimaCharlie's own spelling of a key is taken."""
    with pytest.raises(ValidationError, match="Did you mean 'case sensitive'"):
        MatchConfig.model_validate({"type": "match", "op": "is", "path": "a", "value": 1, "case_sensitive": False})


def test_undecidable_records_are_rejected_alone(context, events):
    """A record that is no JSON, or too much work, is refused with its reason, and the others of its batch go on."""
    wide = b'{"a":[' + b",".join([b"0"] * (MAX_NODES + 1)) + b"]}"
    batch = events([{"a": 1}, wide, b"{]}", b"[]", {"a": [0, 1]}])
    kept = Match(config(op="is", path="a", value=1), context).apply(batch)
    assert [event.sequence for event in kept] == [0, 4]
    assert [event.rejection for event in batch] == ["", "too_complex", "invalid_json", "invalid_json", ""]
