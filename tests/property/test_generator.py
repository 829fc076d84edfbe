from __future__ import annotations

import orjson
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.emulator.fleet import Fleet
from pipeline.emulator.generator import STREAMS, Generator

OID = "8cbe27f4-bfa1-4afb-ba19-138cd51389cd"
seeds = st.integers(0, 1 << 64)
starts = st.integers(0, 4_000_000_000_000)
rates = st.floats(0.01, 1e6)


@settings(max_examples=40, deadline=None)
@given(
    stream=st.sampled_from(STREAMS),
    seed=seeds,
    start=starts,
    rate=rates,
    sizes=st.lists(st.integers(0, 90), max_size=8),
)
def test_how_records_are_taken_does_not_matter(
    stream: str, seed: int, start: int, rate: float, sizes: list[int]
) -> None:
    """Any split of the taking gives the same records as one go."""
    fleet = Fleet(OID, seed)
    parts = Generator(fleet, stream, seed, start, rate)
    whole = Generator(Fleet(OID, seed), stream, seed, start, rate)
    assert whole.take(sum(sizes)) == [record for size in sizes for record in parts.take(size)]


@settings(max_examples=40, deadline=None)
@given(
    stream=st.sampled_from(STREAMS),
    seed=seeds,
    start=starts,
    rate=rates,
    size=st.integers(7, 60),
    shape=st.sampled_from(["real", "documented"]),
)
def test_records_are_objects_in_order(stream: str, seed: int, start: int, rate: float, size: int, shape: str) -> None:
    """Whatever the arguments, records decode to objects and their times never go back."""
    records = Generator(Fleet(OID, seed, size), stream, seed, start, rate, detect_shape=shape).take(120)  # type: ignore[arg-type]  # drawn
    assert all(orjson.loads(record.raw).__class__ is dict for record in records)
    times = [record.time_ms for record in records]
    assert times == sorted(times)
    assert start == times[0]
