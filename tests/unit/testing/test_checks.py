"""The checks for plug-in authors: components that keep the contract pass, each broken promise is named."""

import asyncio

import pytest

from pipeline import Filter, FilterConfig, RetryLater, Sink, SinkConfig, Source, SourceConfig
from pipeline.core.filter import Needs
from pipeline.testing import (
    FakeClock,
    RecordingOutlet,
    RecordingReport,
    check_filter,
    check_sink,
    check_source,
    context,
)


class Ticking(Source[SourceConfig]):
    """A source that keeps the contract."""

    records = (b'{"n":1}', b'{"n":2}')

    async def run(self, outlet):
        await outlet.send(self.records)
        await self.stopping.wait()


class ClosesOnce(Ticking):
    def __init__(self, *given):
        super().__init__(*given)
        self.thing = object()

    async def close(self):
        del self.thing


class NeedsOpen(Ticking):
    async def open(self):
        self.thing = object()

    async def close(self):
        _ = self.thing


class Deaf(Ticking):
    async def run(self, outlet):
        await outlet.send(self.records)
        await asyncio.Event().wait()


class Swallowing(Ticking):
    async def run(self, outlet):
        while not self.stopping.is_set():
            try:
                await outlet.send(self.records)
                await self.stopping.wait()
            except asyncio.CancelledError:
                return


class Lined(Ticking):
    records = (b'{"n":1}\n',)


class Silent(Ticking):
    records = ()


class Texts(Ticking):
    records = ("{}",)


def source(kind):
    return lambda surroundings: kind(SourceConfig(type="x"), surroundings)


async def test_a_good_source():
    """A source that keeps the contract passes, with what it sends named or not."""
    await check_source(source(Ticking), within=0.3)
    await check_source(source(Ticking), expect=Ticking.records, within=0.3)


@pytest.mark.parametrize(
    ("kind", "promise"),
    [
        (Deaf, "ends when `stopping` is set"),
        (Swallowing, "lets its cancellation through"),
        (Lined, "no line end"),
        (Silent, "records come within"),
        (Texts, "is bytes"),
    ],
)
async def test_a_bad_source(kind, promise):
    """A source that breaks a promise is told which."""
    with pytest.raises(AssertionError, match=promise):
        await check_source(source(kind), within=0.2)


@pytest.mark.parametrize("kind", [ClosesOnce, NeedsOpen])
async def test_a_source_that_cannot_close(kind):
    """`close` that is not safe twice or without `open` fails the check with its own error."""
    with pytest.raises(AttributeError):
        await check_source(source(kind), within=0.2)


async def test_other_records_than_expected():
    """A source that changes records is caught by what is expected of it."""
    with pytest.raises(AssertionError, match="in their order, unchanged"):
        await check_source(source(Ticking), expect=[b'{"n":2}', b'{"n":1}'], within=0.2)


class Pass(Filter[FilterConfig]):
    """A filter that keeps the contract."""

    def apply(self, events):
        return events


class Reading(Filter[FilterConfig]):
    """Drops, changes, derives and refuses, all by the record alone."""

    def apply(self, events):
        out = []
        for event in events:
            if "cat" in event.doc:
                event.reject("cat")
            elif "etype" in event.doc:
                out.append(event.replace({**event.doc, "seen": True}))
            elif event.doc:
                out += [event, event.derive({"of": event.sequence})]
        return out


class Twice(Filter[FilterConfig]):
    def apply(self, events):
        return [*events, *events[:1]]


class Every2nd(Filter[FilterConfig]):
    """Counts, instead of looking at the place in the log."""

    count = 0

    def apply(self, events):
        out = []
        for event in events:
            self.count += 1
            if self.count % 2:
                out.append(event)
        return out


class ByBatch(Filter[FilterConfig]):
    def apply(self, events):
        return events[:1]


class Keeps(Filter[FilterConfig]):
    def __init__(self, *given):
        super().__init__(*given)
        self.kept = []

    def apply(self, events):
        self.kept += events
        return events


class InPlace(Filter[FilterConfig]):
    def apply(self, events):
        for event in events:
            event.doc["new"] = 1
        return events


class RawChanger(Filter[FilterConfig]):
    def apply(self, events):
        for event in events:
            event.raw = b"{}"
        return events


class Foreign(Filter[FilterConfig]):
    def apply(self, events):
        return [type(event)(event.raw, event.stream) for event in events]


class Asynchronous(Filter[FilterConfig]):
    async def apply(self, events):
        return events


class Brittle(Filter[FilterConfig]):
    def apply(self, events):
        for event in events:
            if not event.raw.endswith(b"}"):
                raise KeyError("odd")
        return events


class Blind(Pass):
    """Says that what it keeps holds bytes that it does not hold."""

    def needs(self):
        return Needs(sequence=False, marks=(b"nowhere",))

    def decider(self):
        return lambda doc, sequence: True


class Counted(Filter[FilterConfig]):
    """Says that the record's number makes no difference."""

    def apply(self, events):
        return [event for event in events if event.sequence % 2]

    def needs(self):
        return Needs(sequence=False)

    def decider(self):
        return lambda doc, sequence: sequence % 2 == 1


def stage(kind):
    return lambda surroundings: kind(FilterConfig(type="x"), surroundings)


@pytest.mark.parametrize("kind", [Pass, Reading])
async def test_a_good_filter(kind):
    """A filter that keeps the contract passes."""
    await check_filter(stage(kind))


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited")
@pytest.mark.parametrize(
    ("kind", "promise"),
    [
        (Twice, "no event twice"),
        (Every2nd, "came out differently|decided differently"),
        (ByBatch, "alone in its batch"),
        (Keeps, "keeps no event"),
        (InPlace, "in place"),
        (RawChanger, "never changes raw"),
        (Foreign, "come from derive"),
        (Brittle, "may raise Undecodable"),
        (Blind, "holds one of them"),
        (Counted, "makes no difference"),
    ],
)
async def test_a_bad_filter(kind, promise):
    """A filter that breaks a promise is told which."""
    with pytest.raises(AssertionError, match=promise):
        await check_filter(stage(kind))


async def test_an_asynchronous_filter():
    """`apply` must not be a coroutine function."""
    with pytest.raises((AssertionError, TypeError)), pytest.warns(RuntimeWarning, match="never awaited"):
        await check_filter(stage(Asynchronous))


class Store(Sink[SinkConfig]):
    """A sink that keeps the contract; all instances store in ``place``."""

    place: list

    def keep(self, payloads):
        self.place.extend(payloads)

    async def write(self, items):
        self.keep([item.payload for item in items])


class Losing(Store):
    def keep(self, payloads):
        self.place.extend(payloads[:-1])


class Doubling(Store):
    def keep(self, payloads):
        self.place.extend([*payloads, *payloads[:1]])


class Latin(Store):
    def keep(self, payloads):
        self.place.extend(payload.decode(errors="replace").encode("ascii", "replace") for payload in payloads)


class Backwards(Store):
    def keep(self, payloads):
        self.place.extend(reversed(payloads))


class Small(Store):
    def keep(self, payloads):
        self.place.extend(payload[:100_000] for payload in payloads)


class WritingCheck(Store):
    async def check(self):
        self.place.append(b"test")


class SecretMarks(Store):
    async def write(self, items):
        await super().write(items)
        return {"length": len(self.place)}


class Slow(Store):
    async def close(self):
        await asyncio.sleep(30)


class Marked(Store):
    """Keeps its place by marks."""

    has_marks = True

    async def open(self, marks):
        del self.place[marks.get("length", 0) :]

    async def write(self, items):
        await super().write(items)
        return {"length": len(self.place)}


class Unmarked(Marked):
    """Says that it has marks, but does not go back to them."""

    async def open(self, marks):
        pass


class Needy(Store):
    async def write(self, items):
        if not len(items):
            raise RetryLater("nothing to do")
        await super().write(items)


def sink(kind, place):
    def make(surroundings):
        made = kind(SinkConfig(type="x"), surroundings)
        made.place = place
        return made

    return make


@pytest.mark.parametrize("kind", [Store, Marked])
async def test_a_good_sink(kind):
    """A sink that keeps the contract passes, whether what it stored is read at once or waited for."""
    place: list = []
    await check_sink(sink(kind, place), lambda: place)

    other: list = []

    async def stored():
        return other

    await check_sink(sink(kind, other), stored)


@pytest.mark.parametrize(
    ("kind", "promise"),
    [
        (Losing, "are missing"),
        (Doubling, "are too many"),
        (Latin, "are missing"),
        (Small, "are missing"),
        (Backwards, "keep their order"),
        (WritingCheck, "stores nothing"),
        (SecretMarks, "says so by `has_marks`"),
        (Slow, "comes to its end"),
        (Unmarked, "are too many"),
    ],
)
async def test_a_bad_sink(kind, promise):
    """A sink that breaks a promise is told which."""
    place: list = []
    with pytest.raises(AssertionError, match=promise):
        await check_sink(sink(kind, place), lambda: place, within=0.5)


async def test_a_sink_that_cannot_write_nothing():
    """An empty batch is stored like any other."""
    with pytest.raises(RetryLater):
        await check_sink(sink(Needy, place := []), lambda: place)


async def test_an_unordered_sink_may_say_so():
    """Where a sink does not keep the order, the check can be told."""
    place: list = []
    await check_sink(sink(Backwards, place), lambda: place, ordered=False)


async def test_the_outlet():
    """The recording outlet remembers, waits like a full spool, and wakes who waits for it."""
    outlet = RecordingOutlet(room=1)
    assert (await outlet.send([b"a"], "detect", "acme")).count == 1
    late = asyncio.ensure_future(outlet.send([b"b", b"c"]))
    await outlet.wait_until_full()
    assert outlet.waiting
    assert (await outlet.send([])).count == 0
    await outlet.make_room(2)
    await asyncio.wait_for(late, 1)
    await outlet.wait_for(3)
    outlet.refuse(b"bad", "odd")
    assert outlet.sent == [(b"a", "detect", "acme"), (b"b", None, None), (b"c", None, None)]
    assert (outlet.records, outlet.refused) == ([b"a", b"b", b"c"], [(b"bad", "odd", None)])


def test_the_clock_and_the_report():
    """The fake clock moves only when told; the report remembers."""
    clock, report = FakeClock(), RecordingReport()
    surroundings = context("mine", clock=clock, report=report)
    before = clock.now()
    clock.advance(5)
    assert (surroundings.clock.now() - before, surroundings.clock.monotonic(), surroundings.id) == (5, 5, "mine")
    surroundings.report.state("degraded", "slow", "unavailable")
    surroundings.report.error("unavailable", 2)
    surroundings.report.gap(1.0, 2.0, "connect", org="acme")
    surroundings.report.upstream_dropped(3)
    surroundings.report.count("rounds")
    assert report.states == [("degraded", "slow", "unavailable")]
    assert (report.errors, report.gaps) == ({"unavailable": 2}, [(1.0, 2.0, "connect", "acme")])
    assert (report.dropped, report.counts) == ({"": 3}, {"rounds": 1})
