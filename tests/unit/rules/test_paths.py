from __future__ import annotations

from typing import Any

import pytest

from pipeline.rules.paths import MAX_NODES, TooComplex, compile_path, new_budget

RECORD = {
    "routing": {"sid": "s", "tags": ["a", "b"], "parent": None},
    "event": {
        "FILE_PATH": "x",
        "PARENT": {"FILE_PATH": "y", "HASH": {"VALUE": "h"}},
        "NET": [{"SRC": {"IP": "1"}}, {"SRC": {"IP": "2"}}, "odd"],
        "GRID": [[1, 2], [3]],
        "NONE": [],
        "0": "zero",
    },
}


def values(path: str, record: Any = RECORD, *, elements: bool = True) -> list[Any]:
    return list(compile_path(path, elements=elements)(record, new_budget()))


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("routing/sid", ["s"]),
        ("/routing/sid", ["s"]),
        ("routing/parent", [None]),
        ("routing/nothing", []),
        ("routing/sid/deeper", []),
        ("nothing/at/all", []),
        ("event/0", ["zero"]),
        ("routing", [RECORD["routing"]]),
        ("/", [RECORD]),
    ],
)
def test_names(path, expected):
    """Names go down by keys; what is not there gives nothing."""
    assert values(path) == expected


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("event/NET/SRC/IP", ["1", "2"]),
        ("event/NET/?/SRC/IP", ["1", "2"]),
        ("event/NET/?/?/SRC/IP", []),
        ("event/NET/0/SRC/IP", []),
        ("routing/tags", ["a", "b"]),
        ("routing/tags/?", ["a", "b"]),
        ("event/GRID", [1, 2, 3]),
        ("event/NONE", []),
    ],
)
def test_lists_are_transparent(path, expected):
    """A list is as if each element were in its place, `?` may take the index, and a number is not an index."""
    assert values(path) == expected


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("event/?/FILE_PATH", ["y"]),
        ("?/sid", ["s"]),
        ("event/*/FILE_PATH", ["x", "y"]),
        ("*/VALUE", ["h"]),
        ("event/*/*/IP", ["1", "2"]),
        ("event/PARENT/*", [RECORD["event"]["PARENT"], "y", {"VALUE": "h"}, "h"]),
        ("*/nothing", []),
    ],
)
def test_wildcards(path, expected):
    """`?` is exactly one level and `*` zero or more; each place comes once, in the record's order."""
    assert values(path) == expected


def test_list_itself():
    """Without elements a list at the end of the path is the value, though lists on the way stay transparent."""
    assert values("routing/tags", elements=False) == [["a", "b"]]
    assert values("event/NONE", elements=False) == [[]]
    assert values("a/b", {"a": [{"b": [1]}, {"b": [2]}]}, elements=False) == [[1], [2]]
    assert values("event/GRID/?", elements=False) == [[1, 2], 1, 2, [3], 3]


@pytest.mark.parametrize("record", [None, "text", 5, [], [[]], {}])
def test_any_json_is_taken(record):
    """A record that is no object has nothing at a path, but is itself at the root."""
    assert values("a/b", record) == []
    assert values("/", record, elements=False) == [record]


@pytest.mark.parametrize("text", ["", "//", "a//b", "a/", "/a/", "/".join("a" * 65)])
def test_malformed_path(text):
    """An empty step or too many steps are an error."""
    with pytest.raises(ValueError, match="path"):
        compile_path(text)


def test_deep_nesting():
    """A thousand levels of lists and objects are gone through without recursion."""
    record: Any = "deep"
    for level in range(1000):
        record = {"a": record} if level % 2 else [record]
    assert values("*/a", record)[-1] == "deep"


def test_wide_record_is_too_complex():
    """A record with more nodes than one evaluation may visit is not decided."""
    for record in ({"a": [0] * (MAX_NODES + 1)}, {"a": dict.fromkeys(map(str, range(MAX_NODES + 1)))}):
        with pytest.raises(TooComplex):
            values("a/*/b", record)


def test_wildcards_do_not_multiply():
    """Many wildcards in one path visit each node once, so that a small record cannot make much work."""
    record: Any = {}
    for _ in range(60):
        record = {"a": record, "b": 0}
    budget = new_budget()
    assert list(compile_path("/".join(["*", "?"] * 20) + "/c")(record, budget)) == []
    assert MAX_NODES - budget[0] == 120


def test_evaluations_share_what_one_may_spend():
    """A budget that one path has spent is spent for the next."""
    record = {"a": [0] * (MAX_NODES // 2 + 1)}
    budget = new_budget()
    resolve = compile_path("a")
    assert len(list(resolve(record, budget))) == MAX_NODES // 2 + 1
    with pytest.raises(TooComplex):
        list(resolve(record, budget))
