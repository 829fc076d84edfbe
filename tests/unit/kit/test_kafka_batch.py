"""Kafka's batches are, byte for byte, those of aiokafka."""

import pytest
from aiokafka.producer.message_accumulator import BatchBuilder
from hypothesis import given
from hypothesis import strategies as st

from pipeline.kit.kafka_batch import CODECS, Batch, varint

HEADERS = [[], [("stream", b"event")], [("stream", b"event"), ("orig\u00fcn", b""), ("org", bytes(200))]]
VALUES = st.one_of(st.binary(max_size=40), st.integers(0, 20_000).map(lambda size: b"x" * size))
ROWS = st.lists(
    st.tuples(
        st.just(0),
        VALUES,
        st.none() | st.binary(max_size=100),
        st.integers(0, 2**45),
        st.sampled_from(HEADERS),
    ),
    min_size=1,
    max_size=200,
)


def theirs(rows, limit, compression, state=None):
    builder = BatchBuilder(limit, CODECS[compression])
    taken = 0
    for _, value, key, timestamp, headers in rows:
        if builder.append(timestamp=timestamp, key=key, value=value, headers=headers) is None:
            break
        taken += 1
    if state:
        builder._set_producer_state(*state)
    return taken, bytes(builder._build())


@given(ROWS, st.integers(100, 30_000), st.sampled_from(sorted(CODECS)))
def test_same_bytes(rows, limit, compression):
    """Whatever the records, as many are taken and the bytes are the same, for an idempotent producer as well."""
    if compression == "gzip":
        compression = "none"  # its header holds the time
    batch = Batch(limit, compression)
    taken = batch.fill(rows)
    batch._set_producer_state(7, 3, 12)
    assert theirs(rows, limit, compression, (7, 3, 12)) == (taken, batch._build())
    assert batch.record_count() == taken
    assert batch.size() == len(batch._build())


def test_first_is_taken():
    """A record that is larger than a batch is taken alone, so that the broker decides about it."""
    rows = [(0, bytes(5000), None, 1, []), (1, b"small", None, 1, [])]
    assert Batch(1000, "none").fill(rows) == 1


@pytest.mark.parametrize("value", [0, 1, -1, 63, 64, -64, -65, 8191, 8192, 2**31 - 1, -(2**40)])
def test_varint(value):
    """Numbers come back from zigzag."""
    folded = sum((byte & 0x7F) << 7 * place for place, byte in enumerate(varint(value)))
    assert (folded >> 1) ^ -(folded & 1) == value
