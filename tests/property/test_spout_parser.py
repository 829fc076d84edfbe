"""Splitting a stream connection's bytes does not depend on where reads end."""

import itertools

import orjson
from hypothesis import given
from hypothesis import strategies as st

from pipeline.limacharlie.stream import SpoutParser

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
RECORDS = st.builds(lambda value, key: orjson.dumps({"x" + key: value}), JSON, st.text(max_size=5))
TRACES = st.sampled_from(
    [b'{"__trace":"keepalive"}', b'{"__trace":"connected"}', b'{"__trace":"dropped","n":3}', b"", b" ", b"\r"]
)
LINES = st.lists(st.tuples(st.booleans(), RECORDS, TRACES, st.sampled_from([b"\n", b"\r\n"])), max_size=30)


def split(data: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({cut % (len(data) + 1) for cut in cuts} | {0, len(data)})
    return [data[start:end] for start, end in itertools.pairwise(places)]


@given(LINES, st.lists(st.integers(0, 10_000), max_size=40))
def test_any_split_yields_the_same_records(lines, cuts):
    """Records, traces, blank lines and CRs in any pieces give the records, and count the drops, exactly once."""
    data = b"".join((record if real else trace) + end for real, record, trace, end in lines)
    parser = SpoutParser(1 << 20)
    received = [record for piece in split(data, cuts) for record in parser.feed(piece)]
    received += parser.finish(orderly=True)
    assert received == [record for real, record, _, _ in lines if real]
    assert parser.dropped == sum(3 for real, _, trace, _ in lines if not real and b"dropped" in trace)
    assert parser.cut == 0
    assert parser.error is None


@given(
    st.lists(RECORDS, min_size=1, max_size=10), st.integers(0, 10_000), st.lists(st.integers(0, 10_000), max_size=20)
)
def test_a_stream_cut_anywhere_yields_a_prefix(records, end, cuts):
    """What was sent whole comes out; the rest is counted; nothing is invented."""
    data = b"".join(record + b"\n" for record in records)
    end %= len(data) + 1
    parser = SpoutParser(1 << 20)
    received = [record for piece in split(data[:end], cuts) for record in parser.feed(piece)]
    received += parser.finish(orderly=False)
    assert received == records[: len(received)]
    whole = data[:end].count(b"\n")
    assert len(received) - whole in (0, 1)
    rest = end - sum(len(record) + 1 for record in received)
    assert parser.cut == (0 if len(received) > whole else rest)


@given(st.binary(max_size=400), st.integers(1, 64), st.lists(st.integers(0, 1000), max_size=20))
def test_no_bytes_can_break_the_parser(data, most, cuts):
    """Whatever comes, nothing raises, no output holds a line end, and what is held stays within the limit."""
    parser = SpoutParser(most)
    for piece in split(data, cuts):
        assert all(b"\n" not in record and record for record in parser.feed(piece))
        assert len(parser._tail) <= most + 1
    parser.finish(orderly=False)
