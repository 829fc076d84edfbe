"""Every way of deciding about records against the plain one: decode it all, ask the filters."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from hypothesis import event, example, given, settings
from hypothesis import strategies as st

from pipeline.core.batch import Batch, LogId
from pipeline.core.event import Event, Undecodable, decode
from pipeline.core.filter import Filter
from pipeline.core.lines import Lines
from pipeline.core.types import RecordPath
from pipeline.engine.plan import DecodePlan
from pipeline.engine.route import Route, Step
from pipeline.filters.events import Events, EventsConfig
from pipeline.filters.match import Match, MatchConfig
from pipeline.filters.sample import Sample, SampleConfig
from pipeline.kit import log as logs
from pipeline.rules.operators import OPERATORS
from pipeline.testing import context

NAMES = ["routing", "event_type", "event", "etype", "record", "a", "b"]
TEXTS = ["NEW_PROCESS", "DNS_REQUEST", "billing_record", "a", "evil.exe", "x/y", "1", "0x1", "true", "é", "<&>", ""]

# --- records, as bytes: JSON allows much that no encoder writes

spaces = st.sampled_from([b"", b" ", b"\t"])
numbers = st.sampled_from(
    ["0", "-0", "-0.0", "1", "1.0", "1e0", "1E+2", "100", "0.1", "1e-400", "5e-324", "1.7976931348623157e308",
     "9223372036854775807", "9223372036854775808", "18446744073709551615", "18446744073709551616", "-9223372036854775809",
     "123456789012345678901234567890", "0.1000000000000000055511151231257827"]
)  # fmt: skip


def _escaped(text: str, which: int) -> bytes:
    """The text as JSON, its characters in turn as they are or as escapes."""
    out = []
    for index, character in enumerate(text):
        plain = json.dumps(character, ensure_ascii=False)[1:-1]
        units = character.encode("utf-16-be", "surrogatepass")
        coded = "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2))
        out.append(coded if which >> (index % 8) & 1 else plain)
    return b'"' + "".join(out).encode() + b'"'


def strings(texts: st.SearchStrategy[str]) -> st.SearchStrategy[bytes]:
    return st.builds(_escaped, texts, st.just(0) | st.integers(0, 255))


texts = st.sampled_from(TEXTS) | st.text(st.characters(exclude_categories=("Cs",)), max_size=6)
lookalikes = st.sampled_from(
    ['"event_type":"NEW_PROCESS"', '{"routing":{"event_type":"NEW_PROCESS"}}', '\\"event_type\\":\\"a', "\\u0061", "}]"]
)
scalars = st.sampled_from([b"null", b"true", b"false"]) | numbers.map(str.encode) | strings(texts | lookalikes)


def _object(pairs: list[tuple[bytes, bytes]], space: bytes) -> bytes:
    return b"{" + space + b",".join(key + space + b":" + space + value for key, value in pairs) + space + b"}"


def objects(inner: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    """Objects whose keys may come twice, be escaped, and be no keys at all but look like some."""
    keys = strings(st.sampled_from(NAMES) | st.text(max_size=3, alphabet='ab"\\\0é') | lookalikes)
    return st.builds(_object, st.lists(st.tuples(keys, inner), max_size=5), spaces)


values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3).map(lambda each: b"[" + b",".join(each) + b"]") | objects(inner),
    max_leaves=6,
)
routing = objects(strings(st.sampled_from(TEXTS)) | values)
typical = st.builds(
    lambda kind, event, rest, space: _object([(b'"routing"', kind), (b'"event"', event), *rest], space),
    routing,
    objects(values),
    st.lists(st.tuples(strings(st.sampled_from(NAMES)), values), max_size=2),
    spaces,
)
deep = st.integers(900, 1100).map(
    lambda depth: b'{"a":' + b"[" * depth + b"]" * depth + b',"routing":{"event_type":"a"}}'
)
large = st.integers(0, 2).map(lambda each: b'{"event":{"a":[%b"a"]}}' % (b"1," * (10_000 * 10**each)))


def _damaged(record: bytes, at: int, piece: bytes, length: int) -> bytes:
    at %= len(record) + 1
    return record[:at] + piece + record[at + length :]


damages = st.sampled_from(
    [b"", b"\xff", b"\xc3", b"\xed\xa0\x80", b"\0", b'"', b"\\", b"\\ud800", b"1e999", b"NaN", b"[", b"}", b",", b"01"]
)
damaged = st.builds(_damaged, typical, st.integers(0, 400), damages, st.integers(0, 3))
records = (typical | objects(values) | damaged | deep | large | st.binary(max_size=20) | values).filter(
    lambda raw: b"\n" not in raw  # a source takes none that holds one
)

# --- routes

paths = st.sampled_from(
    ["routing/event_type", "event/a", "event/b/a", "a", "event", "routing", "etype", "event/é", 'event/"', "/"]
)
wild = st.sampled_from(["event/*/a", "event/?", "*/event_type", "?/a", "event/a/*", "*"])


types = st.just({}) | st.sampled_from([
    {"event": "NEW_PROCESS"}, {"events": ["NEW_PROCESS", "x/y"]}, {"event": "billing_record"}, {"events": ["a", "é"]}
])  # fmt: skip


@st.composite
def conditions(draw: st.DrawFn) -> dict[str, Any]:
    op = draw(st.sampled_from(sorted(OPERATORS.keys() - {"and", "or"})))
    rule: dict[str, Any] = {"op": op, "path": draw(paths | wild)}
    match op:
        case "matches":
            rule["re"] = draw(st.sampled_from(["^NEW_", "exe$", "a", r"^\d"]))
        case "is greater than" | "is lower than":
            rule |= {"value": draw(st.integers(-2, 200)), "length of": draw(st.booleans())}
        case "exists":
            rule["truthy"] = draw(st.booleans())
        case "is":
            rule["value"] = draw(st.sampled_from(TEXTS[:-1]) | st.integers(0, 2) | st.booleans())
        case _:
            rule["value"] = draw(st.sampled_from(TEXTS[:-1]))
    if draw(st.booleans()):
        rule["not"] = draw(st.booleans())
    if op in ("is", "contains", "starts with", "ends with") and draw(st.booleans()):
        rule["case sensitive"] = draw(st.booleans())
    return rule | draw(types)


rules = st.recursive(
    conditions(),
    lambda inner: st.fixed_dictionaries(
        {"op": st.sampled_from(["and", "or"]), "rules": st.lists(inner, min_size=1, max_size=3)},
        optional={"not": st.booleans(), "event": st.sampled_from(TEXTS[:-1])},
    ),
    max_leaves=4,
)
names = st.lists(st.sampled_from(TEXTS[:-1]), min_size=1, max_size=2)
filters = st.lists(
    rules.map(lambda rule: (Match, MatchConfig.model_validate({"type": "match", **rule})))
    | names.map(lambda names: (Events, EventsConfig(include=names)))
    | names.map(lambda names: (Events, EventsConfig(exclude=names)))
    | st.sampled_from([None, RecordPath("routing/event_type"), RecordPath("a")]).map(
        lambda key: (Sample, SampleConfig(rate=2, key=key))
    ),
    min_size=1,
    max_size=3,
)
wanted = st.lists(
    st.sampled_from([RecordPath("routing/event_type"), RecordPath("event/a"), RecordPath("a")]), max_size=2
)


class Plain(Filter[Any]):
    """The same filter as one that does not say what it needs."""

    def __init__(self, inner: Filter[Any]) -> None:
        self.id = inner.id
        self.apply = inner.apply  # type: ignore[method-assign]


class Everything(Filter[Any]):
    """Lets all go on, and says nothing of what it needs: the sinks' values come from a full decode, then."""

    def __init__(self) -> None:
        self.id = "all"

    def apply(self, events: Sequence[Event]) -> Sequence[Event]:
        return events


def _route(stages: list[Filter[Any]], paths: list[RecordPath]) -> Route:
    return Route("all", stages, paths, logs.get(component="all"), lambda *_: None)


def _outcomes(step: Step) -> dict[int, Any]:
    """Place in the batch -> payload and values, or the reason of the refusal; who was filtered is not in it."""
    kept = {
        step.offset(index): (payload, step.values[index] if step.values is not None else None)
        for index, payload in enumerate(step.payloads)
    }
    refused = {one.offset: (one.payload, one.reason, one.component) for one in step.refusals}
    assert not kept.keys() & refused.keys()
    assert len(kept) + len(refused) + step.filtered == len(step.batch.records) - step.start
    assert step.size == sum(map(len, step.payloads))
    return kept | refused


def _decodable(raw: bytes) -> bool:
    try:
        decode(raw)
    except Undecodable:
        return False
    return True


def _match(op: str, path: str, value: Any = None, **more: Any) -> list[Any]:
    given = {} if value is None else {"value": value}
    return [(Match, MatchConfig.model_validate({"op": op, "path": path, **given, **more}))]


TYPE = _match("is", "routing/event_type", "NEW_PROCESS")
ANYWHERE = "event/*/a"
FOLDED = rb'{"routing":{"event_type":"NEW\u005fPROCESS"},"event":{}}'
TWICE = b'{"routing":{"event_type":"NEW_PROCESS"},"event":{"a":"evil.exe"},"routing":{"event_type":"a"},"event":{}}'
LISTS = [b'{"routing":{"event_type":["NEW_PROCESS"]}}', b'{"routing":[{"event_type":"NEW_PROCESS"}]}']
HIDDEN = [
    b'{"event":{"b":{"a":"evil\\u002eexe"}}}',
    b'{"event":{"\\u0061":"evil.exe"}}',
    b'{"event":"evil.exe"}',
    b"{}",
]
NEARLY = [
    rb'{"routing":{"event_type":"\u004eEW_PROCESS"}}',
    rb'{"routing":{"\u0065vent_type":"NEW_PROCESS"}}',
    rb'{"routing":{"event_type":"NEW_PROCES\u0053"},"a":"\\u0053"}',
    rb'{"routing":{"event_type":"\\u004eEW_PROCESS"}}',
    rb'{"routing":{"event_type":"NEW\/PROCESS"}}',
    b'{"routing":{"event_type":"DNS_REQUEST"},"event":{"a":"NEW_PROCESS"}}',
    b'{"routing":{"event_type":"DNS_REQUEST"},"event":{"a":"%b"}}' % (b"x" * 500_000),
]
MIXED = [NEARLY[5], FOLDED, TWICE, FOLDED, FOLDED, NEARLY[5], NEARLY[5], FOLDED, b'{"a":"b"}', FOLDED]
BILLED = [b'{"record":{"a":1},"a":1}', b'{"record":[{}],"a":1}', b'{"etype":"x","record":{},"a":1}', b'{"a":1}']
ENDLESS = b'{"event":{"b":{"a":[%b"a"]}}}' % (b"1," * 250_000)
"""Too much work to decide about: it is refused, though it lacks what a record to be kept must hold."""
WIDE = b'{"event":[%b1]}' % (b"1," * 30_000)
MANY = [(Match, MatchConfig(op="or", rules=[{"op": "is", "path": "event/*", "value": each} for each in range(2, 22)]))]
"""Twenty looks at each node of it are too much, though one, or any filter after these, is not."""
HUGE = b'{"a":123456789012345678901234567890}'
NUMBERS = [
    HUGE,
    b'{"a":18446744073709551616}',
    b'{"a":-0.0}',
    b'{"a":1E+2}',
    b'{"a":[18446744073709551616]}',
    b'{"a":1e-400}',
]


@settings(max_examples=150, deadline=None)
@example([FOLDED, TWICE, *LISTS], TYPE, [], 0)
@example([FOLDED, TWICE, *NEARLY, FOLDED], TYPE, [RecordPath("a")], 3)
@example([FOLDED, TWICE, *NEARLY, FOLDED], [(Events, EventsConfig(include=["NEW_PROCESS", "DNS_REQUEST"]))], [], 1)
@example([TWICE, *HIDDEN], _match("is", ANYWHERE, "evil.exe"), [], 0)
@example([TWICE, *HIDDEN], _match("is", ANYWHERE, "evil.exe", **{"not": True}), [], 1)
@example([b'{"event":{"b":{"a":1}}}', b'{"event":{"b":{"a":"0X1"}}}'], _match("is", ANYWHERE, "0x1"), [], 0)
@example([b'{"event":{"b":{"a":1e2}}}'], _match("contains", ANYWHERE, "00.0"), [], 0)
@example([b'{"event":{"b":{"a":"x\\/y"}}}'], _match("ends with", ANYWHERE, "x/y"), [], 0)
@example([b'{"event":{"b":{"a":"EVIL.exe"}}}'], _match("is", ANYWHERE, "evil.exe", **{"case sensitive": False}), [], 0)
@example(NUMBERS, _match("contains", "a", "e+19"), [], 0)
@example(NUMBERS, [], [RecordPath("a")], 0)
@example(MIXED, [(Sample, SampleConfig(rate=2)), *TYPE], [], 0)
@example(MIXED, [*TYPE, (Sample, SampleConfig(rate=2))], [], 1)
@example(MIXED, [*TYPE, (Sample, SampleConfig(rate=2, key=RecordPath("a")))], [RecordPath("a")], 0)
@example([*MIXED, LISTS[1], *MIXED], [*TYPE, (Sample, SampleConfig(rate=2))], [], 1)
@example([ENDLESS, *HIDDEN], _match("is", ANYWHERE, "evil.exe"), [], 0)
@example([WIDE, *HIDDEN], [*MANY, *TYPE], [], 0)
@example(BILLED, _match("exists", "a", event="billing_record"), [], 0)
@example(BILLED, [(Events, EventsConfig(include=["billing_record"]))], [], 0)
@example(BILLED, [(Events, EventsConfig(exclude=["billing_record"]))], [RecordPath("record/a")], 0)
@given(st.lists(records, min_size=1, max_size=8), filters | st.just([]), wanted, st.integers(0, 3))
def test_all_ways_decide_alike(raws: list[bytes], given: list[Any], paths: list[RecordPath], start: int) -> None:
    """Whatever a full decode takes, the plan keeps, drops and reads as filters with events do; damage harms nothing else."""
    stages = [kind(config, context(f"all.{number}")) for number, (kind, config) in enumerate(given)]
    planned, plain = _route(stages, paths), _route([*map(Plain, stages)] or [Everything()], paths)
    assert planned.plan.decides == bool(stages or paths)
    assert not plain.plan.decides
    event(" + ".join(phase.way for phase in planned.plan.phases))
    batch = Batch(Lines.of(raws), LogId("tap"), "event", 5.0)
    batch.first = 7
    position = batch.first + start % len(raws)
    expected, found = _outcomes(plain.step(batch, position)), _outcomes(planned.step(batch, position))
    for place, raw in enumerate(raws):
        if _decodable(raw):
            assert expected.get(place) == found.get(place)
        elif place in found:
            # passed as it came, or refused for what it is
            assert found[place][0] == raw
            assert len(found[place]) == 2 or found[place][1] == "invalid_json"


@settings(max_examples=60, deadline=None)
@given(st.lists(records, min_size=1, max_size=6), filters)
def test_a_plan_of_single_ways_decides_alike(raws: list[bytes], given: list[Any]) -> None:
    """Each filter in a plan of its own decides as it does by itself, whichever way that is."""
    good = [raw for raw in raws if _decodable(raw)]
    for kind, config in given:
        stage = kind(config, context("all.0"))
        batch = Batch(tuple(good), LogId("tap"), "event", 5.0, first=0)
        assert _outcomes(_route([Plain(stage)], []).step(batch, 0)) == _outcomes(_route([stage], []).step(batch, 0))
        assert DecodePlan("all", [stage], ()).decides
