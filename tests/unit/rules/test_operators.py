from __future__ import annotations

from typing import Any

import pytest

from pipeline.rules.compile import compile_rule
from pipeline.rules.operators import MAX_SEARCH
from pipeline.rules.paths import TooComplex


def holds(op: str, found: Any, value: Any = None, **keys: Any) -> bool:
    """Whether ``op`` holds for a record with ``found`` at its path."""
    rule = {"op": op, "path": "event/x", **{key.replace("_", " "): each for key, each in keys.items()}}
    if value is not None:
        rule["value"] = value
    return compile_rule(rule)({"event": {"x": found}})


@pytest.mark.parametrize(
    ("found", "value"),
    [
        ("a", "a"),
        ("", ""),
        (4625, 4625),
        (4625, "4625"),
        ("4625", 4625),
        ("4625", "4625"),
        (268435456, "0x10000000"),
        (268435456, 0x10000000),
        ("0x10000000", 0x10000000),
        (1, 1.0),
        (1.5, "1.5"),
        (100, "1e2"),
        (-3, "-3"),
        (True, True),
        (True, "true"),
        ("false", False),
        (["a", "b"], "b"),
        ([{"y": 1}, ["b"]], "b"),
        (18446744073709551615, "18446744073709551615"),
    ],
)
def test_is(found, value):
    """Equality is loose between numbers and texts, hexadecimal included, and looks into lists."""
    assert holds("is", found, value)


@pytest.mark.parametrize(
    ("found", "value"),
    [
        ("a", "A"),
        ("a", "ab"),
        ("1.0", "1"),
        (4625, "04625"),
        ("04625", 4625),
        (4625, " 4625"),
        (1, True),
        (True, 1),
        ("True", True),
        (0, ""),
        (None, "null"),
        (None, "None"),
        ({"a": 1}, "a"),
        ([], ""),
        ({}, ""),
        (18446744073709551615, 18446744073709551614),
    ],
)
def test_is_not_equal(found, value):
    """Texts equal only themselves, booleans are no numbers, and null, objects and empty lists equal nothing."""
    assert not holds("is", found, value)


@pytest.mark.parametrize(
    ("op", "value", "expected"),
    [("is", "CMD.exe", True), ("starts with", "CM", True), ("ends with", ".EXE", True), ("contains", "D.E", True)],
)
def test_case_sensitive(op, value, expected):
    """Case matters by default and does not with `case sensitive: false`."""
    assert holds(op, "cmd.Exe", value, case_sensitive=False) is expected
    assert not holds(op, "cmd.Exe", value)
    assert not holds(op, "cmd.Exe", value, case_sensitive=True)


@pytest.mark.parametrize(
    ("op", "value", "found"),
    [
        ("starts with", "C:\\", "C:\\x"),
        ("ends with", ".exe", "x.exe"),
        ("contains", "ab", "xabx"),
        ("contains", 34, [12, 34]),
        ("starts with", 10, 1024),
        ("contains", "ru", True),
    ],
)
def test_parts_of_texts(op, value, found):
    """Parts are sought in the text form of the value, that of a number included."""
    assert holds(op, found, value)
    assert not holds(op, "other", value)
    assert not holds(op, None, value)
    assert not holds(op, {"ab": ".exe"}, value)


def test_contains_count():
    """With `count` the text must occur that often, without overlapping, in one value."""
    assert holds("contains", "ababab", "ab", count=3)
    assert not holds("contains", "ababab", "ab", count=4)
    assert not holds("contains", "aaa", "aa", count=2)
    assert not holds("contains", ["ab", "ab"], "ab", count=2)
    assert holds("contains", "abAB", "aB", count=2, case_sensitive=False)


@pytest.mark.parametrize(
    ("found", "plain", "truthy"),
    [("a", True, True), (0, True, True), (False, True, True), (None, True, False), ("", True, False), ({}, True, True),
     ([], True, False), ([None, ""], True, False), ([None, 1], True, True)],
)  # fmt: skip
def test_exists(found, plain, truthy):
    """Whatever is there exists; with `truthy` null and the empty text do not, and a list counts by its elements."""
    assert holds("exists", found) is plain
    assert holds("exists", found, truthy=True) is truthy


def test_exists_not_there():
    """A path that the record lacks does not exist."""
    assert not compile_rule({"op": "exists", "path": "event/y"})({"event": {"x": 1}})


@pytest.mark.parametrize(
    ("pattern", "found", "expected"),
    [
        (r"system32\\.*\.scr", "C:\\System32\\a.SCR", True),
        (r"^a.c$", "abc", True),
        (r"^b", "abc", False),
        (r"^46\d\d$", 4625, True),
        (r"^true$", True, True),
        (r"é+x", "ÉéX", True),
        (r".", None, False),
        (r"b", ["a", "b"], True),
        (r"(?-i)A", "a", False),
    ],
)
def test_matches(pattern, found, expected):
    """A pattern is found anywhere, in upper or lower case, in the text form of the value."""
    assert holds("matches", found, re=pattern) is expected


def test_matches_case_sensitive():
    """Case matters for a pattern only with `case sensitive: true`."""
    assert holds("matches", "ABC", re="abc", case_sensitive=False)
    assert not holds("matches", "ABC", re="abc", case_sensitive=True)


def test_matches_bounds_its_work():
    """A text too long for the size of the pattern is not decided; the same text is for a small pattern."""
    text = "ab" * (MAX_SEARCH // 2000)
    assert not holds("matches", text, re="c$")
    with pytest.raises(TooComplex):
        holds("matches", text, re="[ab]{990}[bc]{990}$")


@pytest.mark.parametrize(
    ("found", "value", "greater", "lower"),
    [(5, 4, True, False), (4, 4, False, False), (3, 4, False, True), ("5", 4, True, False), (5, "4", True, False),
     (4.5, 4, True, False), ("0x10", 15, True, False), ("many", 4, False, False), (True, 0, False, False),
     (None, 0, False, False), ([1, 9], 5, True, True), ({"a": 1}, 0, False, False)],
)  # fmt: skip
def test_numbers(found, value, greater, lower):
    """Numbers and texts that read as numbers are compared; nothing else is greater or lower than a number."""
    assert holds("is greater than", found, value) is greater
    assert holds("is lower than", found, value) is lower


@pytest.mark.parametrize(
    ("found", "length"), [("abc", 3), ("éß", 2), ("", 0), ([], 0), (["long text", "b"], 2), ({"a": 1, "b": 2}, 2)]
)
def test_length_of(found, length):
    """The length is that of a text in characters, of a list in elements, of an object in keys."""
    assert holds("is greater than", found, length - 1, length_of=True)
    assert holds("is lower than", found, length + 1, length_of=True)
    assert not holds("is greater than", found, length, length_of=True)
    assert not holds("is lower than", found, length, length_of=True)


@pytest.mark.parametrize("found", [1234, None, True])
def test_no_length(found):
    """Numbers, booleans and null have no length."""
    assert not holds("is greater than", found, -1, length_of=True)


def test_not():
    """`not` turns the answer round, so that it also holds for a path that is absent."""
    assert not holds("is", "a", "a", **{"not": True})
    assert holds("is", "b", "a", **{"not": True})
    assert compile_rule({"op": "is", "path": "nothing", "value": "a", "not": True})({})
    assert not holds("is", ["a", "b"], "a", **{"not": True})


def test_and_or():
    """`and` wants all of its rules, `or` one; both take `not`."""
    a, b = {"op": "exists", "path": "a"}, {"op": "exists", "path": "b"}
    both, either = {"op": "and", "rules": [a, b]}, {"op": "or", "rules": [a, b]}
    neither = {**either, "not": True}
    for record, expected in (
        ({"a": 1, "b": 1}, (True, True, False)),
        ({"b": 1}, (False, True, False)),
        ({}, (False, False, True)),
    ):
        assert tuple(compile_rule(rule)(record) for rule in (both, either, neither)) == expected


def test_short_circuit():
    """What no longer matters is not evaluated, be it ever so expensive."""
    record = {"a": 1, "wide": dict.fromkeys(map(str, range(300_000)))}
    a, costly = {"op": "exists", "path": "a"}, {"op": "exists", "path": "wide/*/x"}
    assert compile_rule({"op": "or", "rules": [a, costly]})(record)
    assert not compile_rule({"op": "and", "rules": [{**a, "not": True}, costly]})(record)
    with pytest.raises(TooComplex):
        compile_rule({"op": "and", "rules": [a, costly]})(record)


def test_rule_from_the_documentation():
    """A rule as analysts write them decides as it reads."""
    rule = {
        "op": "and",
        "rules": [
            {"op": "is", "path": "routing/event_type", "value": "WEL"},
            {"op": "is", "path": "event/EVENT/System/EventID", "value": "4625"},
            {"op": "or", "rules": [
                {"op": "ends with", "path": "event/?/FILE_PATH", "value": "\\CMD.exe", "case sensitive": False},
                {"op": "matches", "path": "event/EVENT/*/IpAddress", "re": r"^10\.", "not": True},
            ]},
        ],
    }  # fmt: skip
    record = {
        "routing": {"event_type": "WEL"},
        "event": {"EVENT": {"System": {"EventID": 4625}, "EventData": {"IpAddress": "10.1.1.1"}}},
    }
    test = compile_rule(rule)
    assert not test(record)
    record["event"]["PARENT"] = {"FILE_PATH": "C:\\Windows\\cmd.exe"}
    assert test(record)
