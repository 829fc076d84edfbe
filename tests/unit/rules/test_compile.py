from __future__ import annotations

from typing import Any

import pytest

from pipeline.core.errors import ConfigError
from pipeline.rules.compile import MAX_CONDITIONS, MAX_DEPTH, compile_rule
from pipeline.rules.condition import RuleError

IS = {"op": "is", "path": "a", "value": 1}


@pytest.mark.parametrize(
    ("rule", "where", "text"),
    [
        ({}, "op", "'op' is missing. There are 'and', 'or'"),
        ({"op": "ends width", "path": "a", "value": "b"}, "op", "Did you mean 'ends with'?"),
        ({"op": 5}, "op", "5 is no operator"),
        ({"op": ["is"]}, "op", "is no operator"),
        ("is", "", "must be an object with `op`, not a text"),
        ({**IS, "vlaue": 1}, "vlaue", "Did you mean 'value'?"),
        ({**IS, "truthy": True}, "truthy", "'truthy' is not known here"),
        ({**IS, 5: 6}, "5", "5 is not known here"),
        ({"op": "is", "path": "a"}, "value", "'value' is missing"),
        ({"op": "is", "value": 1}, "path", "'path' is missing"),
        ({**IS, "value": None}, "value", "'value' is missing"),
        ({**IS, "path": 5}, "path", "must be a text, not a number"),
        ({**IS, "path": ""}, "path", "must not be empty"),
        ({**IS, "path": "a//b"}, "path", "has an empty step"),
        ({**IS, "value": [1, 2]}, "value", "use `op: or`"),
        ({**IS, "value": {"a": 1}}, "value", "not an object"),
        ({**IS, "value": "<<event/x>>"}, "value", "not supported"),
        ({**IS, "value": "[[var]]"}, "value", "not supported"),
        ({**IS, "not": "yes"}, "not", "must be true or false, not a text"),
        ({**IS, "case sensitive": 0}, "case sensitive", "must be true or false"),
        ({"op": "contains", "path": "a", "value": ""}, "value", "must not be empty"),
        ({"op": "contains", "path": "a", "value": "b", "count": 0}, "count", "at least 1"),
        ({"op": "contains", "path": "a", "value": "b", "count": True}, "count", "at least 1"),
        ({"op": "matches", "path": "a", "value": "b"}, "value", "'value' is not known here"),
        ({"op": "matches", "path": "a", "re": "(b"}, "re", "not a regular expression of RE2: missing )"),
        ({"op": "matches", "path": "a", "re": r"(b)\1"}, "re", "invalid escape sequence"),
        ({"op": "matches", "path": "a", "re": "\ud800"}, "re", "not valid Unicode"),
        ({"op": "matches", "path": "a", "re": "[ab]{999}" * 30}, "re", "too large"),
        ({"op": "is greater than", "path": "a", "value": "many"}, "value", "must be a number"),
        ({"op": "is greater than", "path": "a", "value": True}, "value", "must be a number"),
        ({"op": "is lower than", "path": "a", "value": 1, "length of": 1}, "length of", "must be true or false"),
        ({"op": "and", "rules": []}, "rules", "not empty"),
        ({"op": "and", "rules": IS}, "rules", "must be a list of conditions, not an object"),
        ({"op": "or", "rules": [IS], "case sensitive": False}, "case sensitive", "is not known here"),
        ({"op": "or", "rules": [IS, "is"]}, "rules[1]", "must be an object"),
        ({"op": "or", "rules": [IS, {**IS, "value": []}]}, "rules[1].value", "must be a text, a number"),
        ({"op": "or", "rules": [{"op": "and", "rules": [IS, {"op": "iss"}]}]}, "rules[0].rules[1].op", "mean 'is'"),
    ],
)
def test_mistakes(rule: Any, where: str, text: str):
    """Each mistake is told with its place inside the rule and what was expected there."""
    with pytest.raises(RuleError) as caught:
        compile_rule(rule)
    assert caught.value.where == where
    assert text in str(caught.value)


def test_all_mistakes_at_once():
    """Each wrong condition of a rule is named in the one error."""
    with pytest.raises(ConfigError) as caught:
        compile_rule(
            {"op": "or", "rules": [{"op": "iz"}, IS, {"op": "and", "rules": [{"op": "is"}, {"op": "matches"}]}]}
        )
    assert [problem.where for problem in caught.value.problems] == [
        "rules[0].op",
        "rules[2].rules[0].path",
        "rules[2].rules[1].path",
    ]


def test_error_shows_no_value():
    """A value, which may come from a secret, is not repeated in the error."""
    with pytest.raises(RuleError) as caught:
        compile_rule({"op": "is greater than", "path": "a", "value": "hunter2"})
    assert "hunter2" not in str(caught.value)


def nested(levels: int) -> dict[str, Any]:
    rule: dict[str, Any] = IS
    for _ in range(levels):
        rule = {"op": "and", "rules": [rule]}
    return rule


def test_depth_is_limited():
    """Rules nest as deep as allowed and no deeper."""
    assert compile_rule(nested(MAX_DEPTH))({"a": 1})
    with pytest.raises(RuleError, match="nested deeper"):
        compile_rule(nested(MAX_DEPTH + 1))


def test_no_rule_is_too_deep_or_too_long_to_answer():
    """The deepest rule, each level of which has types of its own, and one of very many conditions are right rules."""
    rule: dict[str, Any] = IS
    for _ in range(MAX_DEPTH):
        rule = {"op": "or", "rules": [IS, rule], "event": "A"}
    record = {"routing": {"event_type": "A"}, "a": 1}
    assert compile_rule(rule)(record)
    assert compile_rule({"op": "and", "rules": [IS] * (MAX_CONDITIONS - 1)})(record)


def test_rule_that_holds_itself():
    """A rule that a YAML anchor made endless is an error like one that is too deep."""
    rule: dict[str, Any] = {"op": "and", "rules": []}
    rule["rules"].append(rule)
    with pytest.raises(RuleError, match="nested deeper"):
        compile_rule(rule)


def test_number_of_conditions_is_limited():
    """Anchors cannot multiply a short rule into an endless one."""
    rule: dict[str, Any] = IS
    for _ in range(10):
        rule = {"op": "or", "rules": [rule] * 10}
    with pytest.raises(RuleError, match=f"more than {MAX_CONDITIONS}"):
        compile_rule(rule)


def test_a_compiled_rule_keeps_no_state():
    """What one record spent of the allowed work is not missing for the next."""
    test = compile_rule({"op": "is", "path": "a", "value": 1})
    record = {"a": [0] * 150_000}
    assert [test(record) for _ in range(3)] == [False] * 3
