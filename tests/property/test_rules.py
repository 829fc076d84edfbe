"""Rules against their definition, on any JSON and any rule."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import orjson
from hypothesis import example, given
from hypothesis import strategies as st

from pipeline.core.errors import UsageError
from pipeline.rules.compile import _Reader, _test, compile_rule
from pipeline.rules.condition import RuleError
from pipeline.rules.expression import parse_expression
from pipeline.rules.operators import OPERATORS
from pipeline.rules.paths import compile_path, new_budget
from pipeline.rules.straight import straight

names = st.sampled_from(["a", "b", "c", "0"])
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8)
    | st.sampled_from(["", "a", "ab", "A", "1", "0x1", "true"])
)
documents = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names | st.text(max_size=3), inner, max_size=4),
    max_leaves=25,
)
paths = st.lists(names | st.sampled_from(["?", "*"]), max_size=5).map(lambda steps: "/" + "/".join(steps))
texts = st.sampled_from(["a", "ab", "A", "1", "0x1", "true", "false", "ß", "İ"]) | st.text(min_size=1, max_size=4)


@st.composite
def conditions(draw: st.DrawFn) -> dict[str, Any]:
    """A condition that is right."""
    op = draw(st.sampled_from([op for op, operator in OPERATORS.items() if "path" in operator.required]))
    rule: dict[str, Any] = {"op": op, "path": draw(paths)}
    match op:
        case "matches":
            rule["re"] = draw(st.sampled_from(["a", "^.$", "[ab]+1?", "(a|b)*$", r"\d", r"\pL", "(?s).*x"]))
        case "is":
            rule["value"] = draw((scalars | texts).filter(lambda value: value is not None and "<<" not in str(value)))
        case "is greater than" | "is lower than":
            rule["value"] = draw(st.integers() | st.floats(allow_nan=False) | st.sampled_from(["1", "0x10", "1e3"]))
            rule["length of"] = draw(st.booleans())
        case "exists":
            rule["truthy"] = draw(st.booleans())
        case _:
            rule["value"] = draw(texts | st.integers())
    if op == "contains":
        rule["count"] = draw(st.integers(1, 3))
    if draw(st.booleans()):
        rule["case sensitive"] = draw(st.booleans())
    if draw(st.booleans()):
        rule["not"] = draw(st.booleans())
    return rule


rules = st.recursive(
    conditions(),
    lambda inner: st.builds(
        lambda op, parts: {"op": op, "rules": parts},
        st.sampled_from(["and", "or"]),
        st.lists(inner, min_size=1, max_size=3),
    ),
    max_leaves=6,
)


def places(doc: Any, at: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    """Every place in a document, in order: keys and indexes from its root, and the value."""
    yield at, doc
    inside = doc.items() if isinstance(doc, dict) else enumerate(doc) if isinstance(doc, list) else ()
    for key, value in inside:
        yield from places(value, (*at, key))


def leads_to(steps: list[str], at: tuple[str | int, ...], *, elements: bool) -> bool:
    """Whether the steps of a path lead to a place, by trying every way."""
    if not steps:
        return not at or (elements and all(isinstance(key, int) for key in at))
    step, *later = steps
    if step == "*" and leads_to(later, at, elements=elements):
        return True
    if not at:
        return False
    key, *rest = at
    below = tuple(rest)
    if step == "*":
        return leads_to(steps, below, elements=elements)
    if isinstance(key, int) and leads_to(steps, below, elements=elements):
        return True
    return (step in ("?", key)) and leads_to(later, below, elements=elements)


@given(documents, paths, st.booleans())
@example({"a": [[{"a": 1}], [[]]]}, "/?/?/a", True)
@example({"a": [[1], 2]}, "/a/?", False)
@example([{"a": {"b": [1, {"c": 2}]}}], "/*/b/*", False)
def test_paths_agree_with_their_definition(doc: Any, path: str, elements: bool) -> None:
    """A path gives exactly the values at the places that it leads to, each once, in the document's order."""
    steps = [step for step in path.split("/") if step]
    expected = [
        value
        for at, value in places(doc)
        if leads_to(steps, at, elements=elements) and not (elements and isinstance(value, list))
    ]
    found = list(compile_path(path, elements=elements)(doc, new_budget()))
    assert list(map(id, expected)) == list(map(id, found))


@given(rules, documents)
def test_a_rule_only_answers(rule: dict[str, Any], doc: Any) -> None:
    """Any right rule on any document answers yes or no, and twice the same."""
    test = compile_rule(rule)
    answer = test(doc)
    assert isinstance(answer, bool)
    assert answer is test(doc)


few = st.sampled_from(["routing", "event_type", "a", "b"])
small = st.sampled_from([None, True, False, "", "a", "ab", "A", "AB", "1", 1, 0, 2.5])
likely = st.dictionaries(
    few,
    st.recursive(
        small, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(few, inner, max_size=3), max_leaves=6
    ),
    min_size=2,
)


def _at_a_place(rule: dict[str, Any], steps: list[str], value: Any, types: dict[str, Any]) -> dict[str, Any]:
    given = {"value": value} if rule["op"] in ("is", "contains", "starts with", "ends with") else {}
    return {**rule, "path": "/".join(steps), **given, **types}


types = st.just({}) | st.sampled_from([{"event": "A"}, {"events": ["a", "AB"]}])
straight_rules = st.recursive(
    st.builds(
        _at_a_place, conditions(), st.lists(few, min_size=1, max_size=3), st.sampled_from(["a", "A", "ab", "1"]), types
    ),
    lambda inner: st.fixed_dictionaries(
        {"op": st.sampled_from(["and", "or"]), "rules": st.lists(inner, min_size=1, max_size=3)},
        optional={"not": st.booleans(), "event": st.just("A")},
    ),
    max_leaves=6,
)


IN_LISTS = [
    {"a": [{"b": "x"}, {"b": "A"}]},
    {"a": {"b": [{"b": "x"}, "A"]}},
    {"a": {"b": {"a": ["A"]}}},
    {"a": [[{"b": ["A"]}]]},
    [{"a": {"b": "A"}}],
    {"a": {"b": []}},
    {"a": "A"},
]


@example({"op": "is", "path": "a/b", "value": "A"}, IN_LISTS)
@example({"op": "exists", "path": "a/b"}, IN_LISTS)
@example({"op": "exists", "path": "a/b", "not": True}, IN_LISTS)
@example({"op": "is greater than", "path": "a/b", "value": 1, "length of": True}, IN_LISTS)
@example({"op": "contains", "path": "a/b/a", "value": "a", "case sensitive": False}, IN_LISTS)
@given(straight_rules, st.lists(likely | documents, min_size=5, max_size=15))
def test_one_function_decides_as_its_conditions_do(rule: dict[str, Any], docs: list[Any]) -> None:
    """A rule of plain paths is made into one function, which decides about all records as the conditions that call each other."""
    node = _Reader().condition(rule, ())
    test = _test(node)

    def general(doc: Any, _: int = 0, /) -> bool:
        return test(doc, new_budget())

    single = straight(node, general)
    assert single is not None
    assert [single(doc, 5) for doc in docs] == [general(doc) for doc in docs]


@given(rules, documents)
def test_text_form_does_not_matter(rule: dict[str, Any], doc: Any) -> None:
    """The answer about a document is that about its JSON, and for a rule that was JSON as well."""
    assert compile_rule(rule)(doc) == compile_rule(json.loads(json.dumps(rule)))(orjson.loads(orjson.dumps(doc)))


@given(rules, documents)
def test_not_turns_round(rule: dict[str, Any], doc: Any) -> None:
    """`not` gives the other answer, and twice `not` the first."""
    answer = compile_rule(rule)(doc)
    other = {**rule, "not": not rule.get("not", False)}
    assert compile_rule(other)(doc) is not answer
    assert compile_rule({"op": "and", "rules": [other], "not": True})(doc) is answer


@given(st.lists(rules, min_size=1, max_size=4), documents)
def test_and_or_are_all_and_any(parts: list[dict[str, Any]], doc: Any) -> None:
    """`and` and `or` answer as Python's all and any about their rules."""
    answers = [compile_rule(part)(doc) for part in parts]
    assert compile_rule({"op": "and", "rules": parts})(doc) is all(answers)
    assert compile_rule({"op": "or", "rules": parts})(doc) is any(answers)


strange = st.recursive(
    scalars | st.sampled_from(list(OPERATORS)),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "op",
                    "path",
                    "value",
                    "re",
                    "rules",
                    "not",
                    "case sensitive",
                    "count",
                    "truthy",
                    "length of",
                    "event",
                    "events",
                ]
            ),
            inner,
            max_size=6,
        )
    ),
    max_leaves=12,
)


@given(strange, documents)
def test_anything_as_a_rule(rule: Any, doc: Any) -> None:
    """Whatever is written as a rule is refused as wrong, or answers."""
    try:
        test = compile_rule(rule)
    except RuleError:
        return
    assert isinstance(test(doc), bool)


@given(st.text() | st.text(alphabet="a/?*=!<>~'\"1( "), documents)
def test_anything_as_an_expression(text: str, doc: Any) -> None:
    """Whatever is written as an expression is refused as wrong, or is a rule that answers."""
    try:
        rule = parse_expression(text)
    except UsageError:
        return
    assert isinstance(compile_rule(rule)(doc), bool)
