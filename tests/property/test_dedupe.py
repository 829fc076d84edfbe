"""Dedupe against a plain model, through any sequence of steps, commits and crashes; and what makes two records one."""

import json

from hypothesis import HealthCheck, given, settings, strategies
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from pipeline.core.batch import Batch, LogId
from pipeline.engine.dedupe import TABLE, Dedupe
from pipeline.engine.identity import keys
from pipeline.engine.route import Route
from pipeline.kit import log as logs
from pipeline.limacharlie import records
from pipeline.testing import FakeClock

LOGS = [LogId("spout"), LogId("hose")]
LANES = ["all/a", "all/b"]
a_log = strategies.sampled_from(LOGS)
a_lane = strategies.sampled_from(LANES)
some_ids = strategies.lists(strategies.integers(0, 12), min_size=1, max_size=6)


def event(number: int) -> bytes:
    return b'{"routing":{"event_id":"id%d"},"event":{}}' % number


class DedupeMachine(RuleBasedStateMachine):
    """Two lanes over two logs. The sinks cut back to what is committed, as the file sink does."""

    @initialize()
    def start(self) -> None:
        self.clock = FakeClock()
        self.logs: dict[LogId, list[Batch]] = {log: [] for log in LOGS}
        self.rows: dict[object, bytes] = {}
        self.committed = {(lane, log): 0 for lane in LANES for log in LOGS}
        self.delivered: dict[str, list[tuple[int, LogId, int]]] = {lane: [] for lane in LANES}
        """Lane -> (id, log, place) of what it delivered."""
        self.positions = dict(self.committed)
        self.restart()

    def restart(self) -> None:
        self.dedupe = Dedupe("all", window=3600, entries=100_000, clock=self.clock, durable=True)
        self.dedupe.restore(self.rows, self.committed)
        self.route = Route("all", [], [], logs.get(), lambda *_: None, lanes=2, dedupe=self.dedupe.apply)

    def end(self, log: LogId) -> int:
        return self.logs[log][-1].end if self.logs[log] else 0

    @rule(log=a_log, ids=some_ids)
    def append(self, log: LogId, ids: list[int]) -> None:
        batch = Batch([event(one) for one in ids], log, "event", 0.0)
        batch.first = self.end(log)
        self.logs[log].append(batch)

    @rule(lane=a_lane, log=a_log, part=strategies.integers(0, 6))
    def step(self, lane: str, log: LogId, part: int) -> None:
        """A lane takes its next batch, and is past it or, a write that held a part of it, only past some records, or none yet."""
        position = self.positions[lane, log]
        batch = next((one for one in self.logs[log] if one.end > position), None)
        if batch is None:
            return
        step = self.route.step(batch, position)
        assert step.filtered + len(step.payloads) == batch.end - max(position, batch.first)
        end = min(batch.end, position + part)
        for index, payload in enumerate(step.payloads):
            place = batch.first + step.offset(index)
            assert payload == batch.records[step.offset(index)]
            if place < end:
                number = int(json.loads(payload)["routing"]["event_id"][2:])
                self.delivered[lane].append((number, log, place))
        self.positions[lane, log] = end

    @rule()
    def commit(self) -> None:
        for key, row in self.dedupe.take().items():
            if row is None:
                self.rows.pop(key, None)
            else:
                self.rows[key] = row
        self.committed = dict(self.positions)

    @rule()
    def fail_to_commit(self) -> None:
        self.dedupe.give_back(self.dedupe.take())

    @rule(torn=strategies.integers(0, 3), ids=some_ids)
    def crash(self, torn: int, ids: list[int]) -> None:
        """What is not committed is undone; a torn tail's places get other records."""
        self.positions = dict(self.committed)
        for lane in LANES:
            self.delivered[lane] = [one for one in self.delivered[lane] if one[2] < self.committed[lane, one[1]]]
        for log in LOGS:
            furthest = max(self.committed[lane, log] for lane in LANES)
            for _ in range(torn):
                if self.logs[log] and self.logs[log][-1].first >= furthest:
                    self.logs[log].pop()
        self.restart()
        self.append(LOGS[0], ids)

    @invariant()
    def nothing_twice_and_nothing_lost(self) -> None:
        """Each lane delivers each id at most once; and once it is past everything, each id that is there once."""
        for lane, got in self.delivered.items():
            names = [one[0] for one in got]
            assert len(set(names)) == len(names)
            if all(self.positions[lane, log] == self.end(log) for log in LOGS):
                there = {record for log in LOGS for batch in self.logs[log] for record in batch.records}
                assert {event(name) for name in names} >= there

    def teardown(self) -> None:
        """Let all lanes come to the end."""
        if not hasattr(self, "logs"):
            return
        for lane in LANES:
            for log in LOGS:
                while self.positions[lane, log] < self.end(log):
                    self.step(lane, log, 6)
        self.nothing_twice_and_nothing_lost()


def test_each_lane_gets_each_id_once_whatever_crashes() -> None:
    """Through any order of lanes, commits and crashes, a lane delivers each id exactly once."""
    run_state_machine_as_test(
        DedupeMachine,
        settings=settings(
            max_examples=150, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )


text = strategies.text(max_size=4) | strategies.sampled_from(["id-1", "id-2"])
leaf = text | strategies.integers() | strategies.floats(allow_nan=False, allow_infinity=False) | strategies.none()
names = strategies.sampled_from(
    ["routing", "event_id", "detect_id", "detect", "cat", "record", "record_id", "event", "x"]
)
a_record = strategies.dictionaries(
    names | text,
    strategies.recursive(
        leaf,
        lambda inner: strategies.lists(inner, max_size=2) | strategies.dictionaries(names | text, inner, max_size=4),
        max_leaves=8,
    ),
    max_size=6,
)


def key(raw: bytes, stream: str = "event", log: LogId = LOGS[0]) -> bytes:
    return keys(Batch([raw], log, stream, 0.0), [raw])[0]


@settings(max_examples=500)
@given(a_record, a_record)
def test_the_id_is_the_one_that_the_decoded_record_has(one: dict, other: dict) -> None:
    """What is taken from the bytes is `unique_id` of the decoded record; without one, the content decides."""
    raws = [json.dumps(doc).encode() for doc in (one, other)]
    ids = [records.unique_id(json.loads(raw)) for raw in raws]
    same = key(raws[0]) == key(raws[1])
    if None in ids:
        assert same == (ids[0] == ids[1] and exact(raws[0]) == exact(raws[1]))
    else:
        assert same == (ids[0] == ids[1])


def exact(raw: bytes) -> object:
    """The record with its numbers as they are written."""
    return json.loads(raw, parse_int=lambda number: ("n", number), parse_float=lambda number: ("n", number))


@given(a_record.filter(lambda doc: records.unique_id(doc) is None), strategies.randoms(use_true_random=False))
def test_a_record_without_an_id_is_the_same_in_any_spelling(doc: dict, random) -> None:
    """Spaces and the order of keys are not content."""
    keys_in_another_order = list(doc)
    random.shuffle(keys_in_another_order)
    other = {name: doc[name] for name in keys_in_another_order}
    assert key(json.dumps(doc).encode()) == key(json.dumps(other, indent=1).encode())


@given(strategies.binary(max_size=60))
def test_what_is_no_json_is_named_by_its_bytes(raw: bytes) -> None:
    """A record that nobody can decode has a key, too, and shares it with no other."""
    assert key(raw) == key(bytes(raw))
    assert key(raw) != key(raw + b"x")


def test_what_differs_only_beyond_a_doubles_precision_differs() -> None:
    """Numbers count as they are written; a key that comes twice is not folded; streams and organizations are apart."""
    assert key(b'{"n":12345678901234567890123}') != key(b'{"n":12345678901234567890124}')
    assert key(b'{"n":1e-400}') != key(b'{"n":1e-401}')
    assert key(b'{"n":1,"n":2}') != key(b'{"n":2}')
    assert key(event(1), "event") != key(event(1), "deployment")
    assert key(event(1), log=LogId("spout", "a")) != key(event(1), log=LogId("spout", "b"))
    assert key(event(1), log=LOGS[0]) == key(event(1), log=LOGS[1])


def test_detections_of_one_event_are_not_copies() -> None:
    """A detection is named by its own id, never by that of the event it is about."""
    detection = b'{"cat":"c","detect":{"a":1},"detect_id":"%b","routing":{"event_id":"e"}}'
    assert key(detection % b"d1") != key(detection % b"d2")
    nameless = b'{"cat":"c","detect":{"a":%d},"routing":{"event_id":"e"}}'
    assert key(nameless % 1) != key(nameless % 2)


def test_rows_hold_what_is_remembered_and_no_more() -> None:
    """What is forgotten, by number or by age, is forgotten in the table; another life remembers what the first did."""
    clock = FakeClock()
    first = Dedupe("all", window=640, entries=1000, clock=clock, durable=True)
    rows: dict[object, bytes] = {}

    def go(dedupe: Dedupe, start: int, count: int) -> int:
        batch = Batch([event(number) for number in range(start, start + count)], LOGS[0], "event", 0.0)
        batch.first = start
        step = Route("all", [], [], logs.get(), lambda *_: None, dedupe=dedupe.apply).step(batch, start)
        for name, row in dedupe.take().items():
            if row is None:
                del rows[name]
            else:
                rows[name] = row
        return len(step.payloads)

    for start in range(0, 3000, 100):
        assert go(first, start, 100) == 100
    assert 900 <= len(first) <= 1000
    assert sum(len(row) - 8 for row in rows.values()) // 20 == len(first)
    second = Dedupe("all", window=640, entries=1000, clock=clock, durable=True)
    second.restore(rows, {("all/a", LOGS[0]): 3000})
    assert len(second) == len(first)
    clock.advance(660)
    go(second, 3000, 1)
    assert len(second) == len(rows) == 1


def test_replay_passes_by_and_claims_nothing() -> None:
    """A replayed record is not dropped, and does not stand in the way of others."""
    dedupe = Dedupe("all", window=60, entries=1000, clock=FakeClock(), durable=True)
    route = Route("all", [], [], logs.get(), lambda *_: None, dedupe=dedupe.apply)
    for first in (0, 1):
        batch = Batch([event(1)], LOGS[0], "event", 0.0, "replay")
        batch.first = first
        assert len(route.step(batch, first).payloads) == 1
    assert len(dedupe) == 0
    assert TABLE == "dedupe"
