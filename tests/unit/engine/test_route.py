"""A route's step: what filters do to records, and how it is counted."""

import json

import pytest

from pipeline.core.batch import Batch, LogId
from pipeline.core.config import FilterConfig
from pipeline.core.filter import Filter
from pipeline.core.types import RecordPath
from pipeline.engine.route import TOGETHER, Route
from pipeline.kit import log as logs

BROKEN = b'{"broken"}'


@pytest.fixture
def route():
    """Makes a route of filters; its ``errors`` are what it told of failures."""

    def make(*filters, paths=(), lanes=1):
        errors = []
        made = Route(
            "all", filters, paths, logs.get(component="all"), lambda *told: errors.append(told), lanes=lanes
        )  # fmt: skip
        made.errors = errors
        return made

    return make


def batch(*records, first=0):
    made = Batch(records, LogId("tap", "acme"), "event", 5.0)
    made.first = first
    return made


def numbered(count):
    return [b'{"n":%d}' % number for number in range(count)]


def run(route, made, position=0):
    """The step, with its books checked."""
    step = route.step(made, position)
    taken = len(made.records) - step.start
    assert taken + step.derived == len(step.payloads) + len(step.refusals) + step.filtered
    assert step.filtered >= 0
    assert step.size == sum(map(len, step.payloads))
    assert step.values is None or len(step.values) == len(step.payloads)
    return step


def test_nothing_to_do(route):
    """Without filters and values the records pass as they are, and nothing is decoded."""
    step = run(route(), batch(BROKEN, b"{}"))
    assert list(step.payloads) == [BROKEN, b"{}"]
    assert (step.values, step.changed, step.derived) == (None, frozenset(), 0)


def test_drop(route, stage):
    """What a filter leaves out counts as filtered, and the rest keeps its bytes and place."""
    step = run(route(stage(lambda events: [e for e in events if e.doc["n"] % 2])), batch(*numbered(5)))
    assert (step.payloads, step.filtered, [step.offset(i) for i in (0, 1)]) == (numbered(5)[1::2], 2 + 1, [1, 3])


def test_replace(route, stage):
    """A changed record is encoded again and marked; others pass as they are."""
    change = stage(lambda events: [e.replace({"new": 1}) if e.index == 1 else e for e in events])
    step = run(route(change), batch(b'{ "a":1}', b"{}"))
    assert (step.payloads, step.changed) == ([b'{ "a":1}', b'{"new":1}'], {1})


def test_many_records(route, stage):
    """Filters get the events of a batch in groups; what they do to each counts at its place in the batch."""
    sizes = []

    def work(events):
        sizes.append(len(events))
        out = []
        for each in reversed(events):
            number = each.doc["n"]
            if number % 7 == 3:
                each.reject("seven")
            if number % 3 == 1:
                each.replace({"new": number})
            if number % 3:
                out.append(each)
            if number % 5 == 0:
                out.append(each.derive({"of": number}))
        return out

    count = 2 * TOGETHER + 3
    step = run(route(stage(work), paths=[RecordPath("n")]), batch(*numbered(count), first=9), 10)
    expected = []
    for number in range(1, count):
        if number % 3 and number % 7 != 3:
            changed = number % 3 == 1
            expected.append((number, b'{"%b":%d}' % (b"new" if changed else b"n", number), changed))
        if number % 5 == 0:
            expected.append((number, b'{"of":%d}' % number, True))
    found = [(step.offset(at), raw, at in step.changed) for at, raw in enumerate(step.payloads)]
    assert found == expected
    assert [values.get("n") for values in step.values] == [None if made else str(at) for at, _, made in expected]
    assert [one.offset for one in step.refusals] == [number for number in range(1, count) if number % 7 == 3]
    assert sizes == [TOGETHER, TOGETHER, 2]


def test_derive(route, stage):
    """A derived record goes with its parent, is counted, and takes part in the filters after it."""
    seen = []
    double = stage(lambda events: [made for e in events for made in (e, e.derive({"of": e.doc["n"]}))])
    look = stage(lambda events: [seen.append(len(events)), *events][1:])
    step = run(route(double, look), batch(*numbered(2)))
    assert step.payloads == [b'{"n":0}', b'{"of":0}', b'{"n":1}', b'{"of":1}']
    assert (step.derived, [step.offset(i) for i in range(4)], seen) == (2, [0, 0, 1, 1], [4])


def test_the_order_is_that_of_the_records(route, stage):
    """Filters cannot reorder: a position must mean a prefix."""
    step = run(route(stage(lambda events: events[::-1])), batch(*numbered(4)))
    assert step.payloads == numbered(4)


def test_values_and_changes_follow_the_order(route, stage):
    """When the order is put right, values and changes go with their payloads."""
    shuffle = stage(lambda events: [events[2].replace({"n": 9}), events[0], events[1]])
    step = run(route(shuffle, paths=[RecordPath("n")]), batch(*numbered(3)))
    assert [value["n"] for value in step.values] == ["0", "1", "9"]
    assert step.changed == {2}


@pytest.mark.parametrize("left_in", [True, False])
def test_reject(route, stage, left_in):
    """A refused record goes to the dead letter once, whether the filter leaves it in or out."""

    def refuse(events):
        events[1].reject("size", "too large")
        return list(events) if left_in else [events[0], events[2]]

    step = run(route(stage(refuse, "all.0"), stage(lambda events: events)), batch(*numbered(3)))
    assert step.payloads == [numbered(3)[0], numbered(3)[2]]
    (refusal,) = step.refusals
    told = (refusal.payload, refusal.reason, refusal.detail, refusal.component)
    assert told == (b'{"n":1}', "size", "too large", "all.0")


def test_undecodable(route, stage):
    """A record that nothing can decode is refused alone; the others go on."""
    step = run(route(stage(lambda events: [e for e in events if e.doc])), batch(b'{"a":1}', BROKEN, b'{"b":1}'))
    assert (step.payloads, [one.reason for one in step.refusals]) == ([b'{"a":1}', b'{"b":1}'], ["invalid_json"])


def test_undecodable_where_only_values_are_asked_for(route):
    """A record that cannot give its values is refused."""
    step = run(route(paths=[RecordPath("a")]), batch(b'{"a":1}', BROKEN, b"{}"))
    assert (step.payloads, step.values) == ([b'{"a":1}', b"{}"], [{"a": "1"}, {}])


def test_a_broken_neighbour_changes_nothing_twice(route, stage):
    """A filter that changes records and then meets a broken one does not change the others twice."""

    def once(events):
        return [event.replace({"n": event.doc["n"] + 1}) for event in events]

    alone = run(route(stage(once), stage(once)), batch(*numbered(3)))
    step = run(route(stage(once), stage(once)), batch(*numbered(3), BROKEN))
    assert step.payloads == alone.payloads == [b'{"n":%d}' % (number + 2) for number in range(3)]

    late = route(stage(lambda events: [e.replace({"n": 5}) if e.index < 2 else e for e in events]), stage(once))
    assert run(late, batch(*numbered(2), BROKEN)).payloads == [b'{"n":6}', b'{"n":6}']


def _raise(_events):
    raise ZeroDivisionError("bug")


def _endless(events):
    yield events[0]
    raise ZeroDivisionError("late")


@pytest.mark.parametrize(
    "work",
    [
        _raise,
        _endless,
        lambda _events: None,
        lambda events: [events[0], events[0]],
        lambda events: [*events, *_foreign(events[0])],
        lambda _events: ["no event"],
    ],
)
def test_a_filter_that_fails(route, stage, work):
    """Whatever a filter does wrong, its batch goes to the dead letter, the failure is told, and the books are right."""
    made = route(stage(work, "all.0"))
    step = run(made, batch(*numbered(3)))
    assert (step.payloads, [one.reason for one in step.refusals]) == ([], ["filter_failed"] * 3)
    assert [one.payload for one in step.refusals] == numbered(3)
    assert made.errors == [("all.0", "filter_failed")]


def _foreign(event):
    """An event that was in no batch."""
    return [type(event)(b"{}", "event")]


def test_what_cannot_be_encoded(route, stage):
    """A record that a filter made unencodable is refused with its raw bytes."""
    change = stage(lambda events: [e.replace({"x": object()}) if e.index == 1 else e for e in events])
    step = run(route(change, paths=[RecordPath("n")]), batch(*numbered(3)))
    assert (step.payloads, [(one.reason, one.payload) for one in step.refusals]) == (
        [numbered(3)[0], numbered(3)[2]],
        [("unencodable", b'{"n":1}')],
    )
    assert [value["n"] for value in step.values] == ["0", "2"]


def test_from_the_middle(route, stage):
    """A step from a position covers the records from there on, with the same sequence numbers and offsets."""
    seen = []
    look = stage(lambda events: [seen.extend((e.sequence, e.index) for e in events), *events][1:])
    step = run(route(look), batch(*numbered(4), first=100), 102)
    assert (step.payloads, seen, [step.offset(i) for i in (0, 1)]) == (numbered(4)[2:], [(102, 2), (103, 3)], [2, 3])
    assert list(run(route(), batch(*numbered(4), first=100), 103).payloads) == numbered(4)[3:]


def test_lanes_share_a_step(route, stage):
    """Lanes at the same batch share the step; one that comes much later runs it again, with the same result."""
    runs = []
    made = route(stage(lambda events: [runs.append(1), *events][1:]), lanes=2)
    batches = [batch(b"{}", first=number) for number in range(10)]
    assert made.step(batches[0], 0) is made.step(batches[0], 0)
    for number, one in enumerate(batches):
        made.step(one, number)
    before = len(runs)
    assert made.step(batches[0], 0).payloads == [b"{}"]
    assert (before, len(runs)) == (10, 11)


def test_facts(route, stage):
    """A filter sees the record's stream, organization and receive time."""
    facts = []
    run(
        route(stage(lambda events: [facts.append((e.stream, e.org, e.received_at)) for e in events] and events)),
        batch(b"{}"),
    )
    assert facts == [("event", "acme", 5.0)]


def test_filters_of_outsiders_need_not_return_a_list(route):
    """A filter may give its events one by one."""

    class Lazy(Filter[FilterConfig]):
        def apply(self, events):
            return (event for event in events if event.doc["n"])

    from pipeline.testing import context

    step = run(route(Lazy(FilterConfig(type="lazy"), context())), batch(*numbered(2)))
    assert [json.loads(payload) for payload in step.payloads] == [{"n": 1}]
