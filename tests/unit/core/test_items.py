"""What a sink's `write` gets."""

import pytest

from pipeline.core.batch import LogId
from pipeline.core.items import Items, Part
from pipeline.core.lines import Lines
from pipeline.testing import make_items


@pytest.fixture(params=[list, Lines.of])
def items(request):
    return Items([
        Part(request.param([b"a", b"b"]), "event", LogId("tap", "acme"), 5.0, values=[{"x/y": "1"}, {}]),
        Part([], "event", LogId("tap"), 6.0),
        Part([b"c"], "detect", LogId("tap"), 7.0, "replay"),
    ])  # fmt: skip


def test_a_sequence(items):
    """Items are a sequence in the order of their parts."""
    assert [item.payload for item in items] == [b"a", b"b", b"c"]
    assert len(items) == 3
    assert [items[index].payload for index in (0, 1, 2, -1, -3)] == [b"a", b"b", b"c", b"c", b"a"]
    assert [item.payload for item in items[1:]] == [b"b", b"c"]


def test_a_block_of_lines(items):
    """A part gives its payloads as lines, the same whether they came in one block or singly."""
    assert [part.block() for part in items.parts] == [b"a\nb\n", b"", b"c\n"]


def test_facts(items):
    """Each item has the facts of its part and its own values."""
    assert (items[0].stream, items[0].org, items[0].values, items[0].received_at) == (
        "event",
        "acme",
        {"x/y": "1"},
        5.0,
    )
    assert (items[2].stream, items[2].org, items[2].values, items[2].origin) == ("detect", "", {}, "replay")
    assert list(items) == [items[index] for index in range(3)]


@pytest.mark.parametrize("index", [3, -4])
def test_outside(items, index):
    """An index outside is an IndexError, as for a list."""
    with pytest.raises(IndexError):
        items[index]


def test_values_must_fit():
    """Values that are not one per payload are our bug and do not pass unseen."""
    with pytest.raises(ValueError, match="shorter"):
        list(Items([Part([b"a", b"b"], "event", LogId("tap"), 0.0, values=[{}])]))


def test_empty():
    """No items are items too."""
    assert list(make_items([])) == list(Items([])) == []
