"""Which way of deciding a route gets, and what it does not look at."""

import pytest

from pipeline.core.lines import Lines
from pipeline.core.types import RecordPath
from pipeline.engine.decide import Stage
from pipeline.engine.lot import Lot
from pipeline.engine.plan import DecodePlan
from pipeline.engine.projection import MAX_PLACES, Unfit, projection
from pipeline.engine.trial import PAUSE, WINDOW
from pipeline.filters.events import Events, EventsConfig
from pipeline.filters.match import Match, MatchConfig
from pipeline.filters.sample import Sample, SampleConfig
from pipeline.testing import context


def match(path, value="NEW_PROCESS", op="is", **more):
    return Match(MatchConfig.model_validate({"op": op, "path": path, "value": value, **more}), context(f"match {path}"))


def types(*names):
    return Events(EventsConfig(include=list(names)), context("types"))


def run(plan, *records):
    """Indices of what goes on, its values, and the indices of what could not be decoded."""
    lot, values, undecided = plan.run(Lines.of(records), 0)
    assert [records[row] for row in lot.rows] == lot.records() == list(lot.joined())
    return list(lot.rows), values, [one.row for one in undecided]


def ways(filters, *paths):
    return [phase.way for phase in DecodePlan("all", filters, [RecordPath(path) for path in paths]).phases]


SAMPLE = Sample(SampleConfig(rate=2), context("sample"))
BY_KEY = Sample(SampleConfig(rate=2, key=RecordPath("routing/sid")), context("sample"))
WILD = match("routing/*", 1)
SEVEN = [chr(ord("A") + number) for number in range(7)]


@pytest.mark.parametrize(
    ("filters", "paths", "expected"),
    [
        ([], [], []),
        ([], ["routing/sid"], ["projection"]),
        ([SAMPLE], [], ["place"]),
        ([SAMPLE], ["routing/sid"], ["place", "projection"]),
        ([BY_KEY, types("A"), match("cat")], ["routing/sid"], ["byte test", "projection"]),
        ([BY_KEY, match("cat", 1)], ["routing/sid"], ["projection"]),
        ([types("A"), WILD], ["routing/sid"], ["byte test", "projection", "full decode"]),
        ([SAMPLE, WILD, types("A")], [], ["byte test", "place", "full decode"]),
        ([match("routing", 1), match("routing/a", 1)], [], ["full decode"]),
        ([match("/", 1)], [], ["full decode"]),
        ([types(*SEVEN[:2])], [], ["byte test", "projection"]),
        ([types(*SEVEN[:3])], [], ["projection"]),
        ([WILD, types(*SEVEN[:6])], [], ["byte test", "full decode"]),
        ([WILD, types(*SEVEN)], [], ["full decode"]),
    ],
)
def test_ways(filters, paths, expected):
    """Filters that follow each other are decided together in the cheapest way that sees all they need."""
    assert expected == ways(filters, *paths)


def test_filters_that_do_not_say_what_they_need_get_events(stage):
    """What comes before such a filter is decided without events; it and all after it are not."""
    assert ["byte test", "projection", "events"] == ways(
        [types("A"), stage(lambda events: events), types("A")], "routing/sid"
    )


def test_nothing_but_the_needed_fields_is_looked_at():
    """A record that is damaged where nobody looks is decided as if it were whole."""
    plan = DecodePlan("all", [types("A")], [RecordPath("routing/sid")])
    damaged = b'{"routing":{"event_type":"A","sid":"s"},"event":{"x":1e999}}'
    assert ([0], [{"routing/sid": "s"}], []) == run(plan, damaged)


@pytest.mark.parametrize("filters", [[WILD], [types("A")], [match("routing/a", 1)]])
def test_what_is_no_object_is_refused(filters):
    """A list is no record, even where paths would lead through it."""
    assert ([], None, [0]) == run(DecodePlan("all", filters, []), b'[{"routing":{"a":1,"event_type":"A"}}]')


def test_the_byte_test_spares_the_decode():
    """A record without the bytes that one to be kept must have is dropped before all else, whatever it is."""
    plan = DecodePlan("all", [match("event/*/FILE_PATH", "evil.exe")], ())
    assert plan.phases[0].marks == ('"evil.exe"',)
    rows, _, undecided = run(plan, b'{"broken"', b'{"event":{"a":{"FILE_PATH":"evil.exe"}}}', b'{"evil.exe"', b'{"c"')
    assert ([1], [2]) == (rows, undecided)


def test_any_filter_may_name_the_bytes():
    """Those are looked for that say most: fewest alternatives, values before keys, the longest, of whichever filter."""
    marks = (
        DecodePlan("all", [types("A", "B"), match("a", "bc"), match("b", "def"), match("c", "gh")], ()).phases[0].marks
    )
    assert marks == ('"def"',)
    keys = match("event/FILE_PATH", "a", op="contains", **{"case sensitive": False})
    assert DecodePlan("all", [keys, match("a", "b")], ()).phases[0].marks == ('"b"',)


def test_a_record_too_large_for_the_byte_test_is_decoded():
    """Of a large record it cannot be said that no filter would refuse it as too much work."""
    plan = DecodePlan("all", [match("event/*/FILE_PATH", "evil.exe")], ())
    assert run(plan, b"{", b'{"broken"' + b" " * (1 << 20), b"{")[2] == [1]


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
    assert marks("and", {"op": "exists", "path": "a/*/FILE_PATH"}, one) == ('"x.exe"',)
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
    odd, undecided = Lot.of(Lines.of([b'{"a":{}}'] * 256)), []

    def used():
        before = len(asked)
        stage.run(odd, 0, undecided)
        return len(asked) > before

    _rests(used, 256)
    assert undecided == []


def test_a_byte_test_that_most_records_pass_rests():
    """Where it drops too few it is given up for a while, and then tried again."""
    plan = DecodePlan("all", [match("a", "x")], ())
    records = [*[b'{"b":"x"}'] * 199, *[b"{"] * 57]

    def used():
        return len(run(plan, *records)[2]) == 0  # what it drops is not found to be broken

    _rests(used, len(records))


def _rests(used, count):
    windows = WINDOW // count
    uses = [used() for _ in range(windows * (PAUSE + 3))]
    assert all(uses[:windows])
    assert not any(uses[windows : windows * (PAUSE + 1)])
    assert all(uses[windows * (PAUSE + 1) + 1 : windows * (PAUSE + 2)])
