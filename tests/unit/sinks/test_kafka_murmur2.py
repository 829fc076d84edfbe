"""The hash by which keys choose their partition."""

from __future__ import annotations

import pytest
from aiokafka.partitioner import murmur2 as reference
from hypothesis import given
from hypothesis import strategies as st

from pipeline.kit.murmur2 import murmur2, partition


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        (b"abc", 479470107),
    ],
)
def test_gives_what_java_gives(data: bytes, expected: int) -> None:
    """The test vectors of Kafka's own Java clients hold."""
    assert expected % 2**32 == murmur2(data)


@given(st.binary(max_size=300))
def test_equals_another_implementation(data: bytes) -> None:
    """Any bytes hash as in aiokafka's slower implementation."""
    assert reference(data) == murmur2(data)


@given(st.binary(max_size=100), st.integers(1, 200))
def test_partition_is_that_of_kafkas_default_partitioner(key: bytes, count: int) -> None:
    """The partition is the hash without its sign bit, modulo the number of partitions, however often it is asked for."""
    expected = (reference(key) & 0x7FFFFFFF) % count
    assert [expected, expected] == [partition(key, count), partition(key, count)]
