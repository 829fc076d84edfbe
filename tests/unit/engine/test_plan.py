"""Which way of deciding a route gets, and what it does not look at."""

import pytest

from pipeline.core.types import RecordPath
from pipeline.engine.decide import _PAUSE, _WINDOW, Stage
from pipeline.engine.plan import DecodePlan
from pipeline.engine.projection import MAX_PLACES, Unfit, projection
from pipeline.filters.events import Events, EventsConfig
from pipeline.filters.match import Match, MatchConfig
from pipeline.filters.sample import Sample, SampleConfig
from pipeline.testing import context


def match(path, value="NEW_PROCESS", op="is", **more):
    return Match(MatchConfig.model_validate({"op": op, "path": path, "value": value, **more}), context(f"match {path}"))


def types(*names):
    return Events(EventsConfig(include=list(names)), context("types"))


def ways(filters, *paths):
    return [phase.way for phase in DecodePlan("all", filters, [RecordPath(path) for path in paths]).phases]


SAMPLE = Sample(SampleConfig(rate=2), context("sample"))
BY_KEY = Sample(SampleConfig(rate=2, key=RecordPath("routing/sid")), context("sample"))
WILD = match("event/*/FILE_PATH")


@pytest.mark.parametrize(
    ("filters", "paths", "expected"),
    [
        ([], [], []),
        ([], ["routing/sid"], ["projection"]),
        ([SAMPLE], [], ["place"]),
        ([SAMPLE], ["routing/sid"], ["place", "projection"]),
        ([BY_KEY, types("A"), match("cat")], ["routing/sid"], ["projection"]),
        ([types("A"), WILD], ["routing/sid"], ["projection", "full decode"]),
        ([SAMPLE, WILD, types("A")], [], ["place", "full decode"]),
        ([match("event"), match("event/a")], [], ["full decode"]),
        ([match("/")], [], ["full decode"]),
    ],
)
def test_ways(filters, paths, expected):
    """Filters that follow each other are decided together in the cheapest way that sees all they need."""
    assert expected == ways(filters, *paths)


def test_filters_that_do_not_say_what_they_need_get_events(stage):
    """What comes before such a filter is decided without events; it and all after it are not."""
    assert ["projection", "events"] == ways([types("A"), stage(lambda events: events), types("A")], "routing/sid")


def test_nothing_but_the_needed_fields_is_looked_at():
    """A record that is damaged where nobody looks is decided as if it were whole."""
    plan = DecodePlan("all", [types("A")], [RecordPath("routing/sid")])
    rows, values, undecided = plan.run([b'{"routing":{"event_type":"A","sid":"s"},"event":{"x":1e999}}'], 0)
    assert ([0], [{"routing/sid": "s"}], []) == (list(rows), values, undecided)


def test_the_byte_test_spares_the_decode():
    """Before a full decode a record without the bytes that one to be kept must have is dropped, whatever it is."""
    plan = DecodePlan("all", [match("event/*/FILE_PATH", "evil.exe")], ())
    assert plan.phases[0].marks == ('"evil.exe"',)
    rows, _, undecided = plan.run([b'{"broken"', b'{"event":{"a":{"FILE_PATH":"evil.exe"}}}', b'{"evil.exe"'], 0)
    assert ([1], [2]) == (list(rows), [row for row, _, _ in undecided])


def test_a_record_too_large_for_the_byte_test_is_decoded():
    """Of a large record it cannot be said that no filter would refuse it as too much work."""
    plan = DecodePlan("all", [match("event/*/FILE_PATH", "evil.exe")], ())
    _, _, undecided = plan.run([b'{"broken"' + b" " * (1 << 20)], 0)
    assert [row for row, _, _ in undecided] == [0]


@pytest.mark.parametrize(
    ("rule", "marks"),
    [
        ({"op": "is", "value": "x.exe"}, ('"x.exe"',)),
        ({"op": "starts with", "value": "x.exe"}, ('"x.exe',)),
        ({"op": "ends with", "value": "x.exe"}, ('x.exe"',)),
        ({"op": "contains", "value": "x.exe"}, ("x.exe",)),
        ({"op": "contains", "value": "1e5"}, ('"b"',)),
        ({"op": "is", "value": "4625"}, ('"b"',)),
        ({"op": "is", "value": "é"}, ('"b"',)),
        ({"op": "is", "value": "C:\\x"}, ('"b"',)),
        ({"op": "is", "value": "x.exe", "case sensitive": False}, ('"b"',)),
        ({"op": "is", "value": "x.exe", "not": True}, ()),
    ],
)
def test_marks(rule, marks):
    """The value is looked for where the record must hold it in this form, else the key."""
    assert marks == DecodePlan("all", [match("event/*/b", **rule)], ()).phases[0].marks


def test_marks_of_rules_in_rules():
    """Of `and` any condition will do, of `or` all must have some."""
    one = {"op": "is", "path": "a/*/b", "value": "x.exe"}
    other = {"op": "is", "path": "a/*/c", "value": "y.exe"}
    blind = {**one, "not": True}

    def marks(op, *rules):
        made = Match(MatchConfig.model_validate({"op": op, "rules": list(rules)}), context("match"))
        return DecodePlan("all", [made], ()).phases[0].marks

    assert marks("and", blind, {"op": "or", "rules": [one, other]}, other) == ('"y.exe"',)
    assert marks("or", one, other, one) == ('"x.exe"', '"y.exe"')
    assert marks("or", one, blind) == ()


def test_places_that_cannot_be_projected():
    """A place inside another one, or too many of them, need a full decode."""
    for places in ([("a",), ("a", "b")], [("a", "b", "c"), ("a", "b")], [(str(n),) for n in range(MAX_PLACES + 1)]):
        with pytest.raises(Unfit):
            projection(places, [])


def test_a_projection_that_often_fails_rests():
    """Where records are not as expected, decoding twice is given up for a while, and then tried again."""
    asked = []
    project = projection([("a",)], [])

    def counted(raw):
        asked.append(raw)
        return project(raw)

    stage = Stage([match("a")], (), "all", project=counted)
    odd, undecided = [b'{"a":{}}'] * 256, []

    def used():
        before = len(asked)
        stage.run(odd, range(256), 0, undecided)
        return len(asked) > before

    windows = _WINDOW // len(odd)
    uses = [used() for _ in range(windows * (_PAUSE + 3))]
    assert all(uses[:windows])
    assert not any(uses[windows : windows * (_PAUSE + 1)])
    assert all(uses[windows * (_PAUSE + 1) + 1 : windows * (_PAUSE + 2)])
    assert undecided == []
