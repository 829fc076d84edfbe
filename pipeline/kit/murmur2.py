"""The hash by which Kafka's own clients choose the partition of a key."""

from __future__ import annotations

from functools import lru_cache
from struct import unpack_from

_SEED = 0x9747B28C
_MIX = 0x5BD1E995
_MASK = 0xFFFFFFFF
_REMEMBERED = 64
"""Bytes of a key at most whose hash is remembered: ids come again and again, and hashing one takes microseconds."""


def murmur2(data: bytes) -> int:
    """Return the 32-bit hash (unsigned) that ``org.apache.kafka.common.utils.Utils.murmur2`` gives for ``data``."""
    words, rest = divmod(len(data), 4)
    state = _SEED ^ len(data)
    for word in unpack_from(f"<{words}I", data):
        mixed = word * _MIX & _MASK
        mixed = (mixed ^ mixed >> 24) * _MIX & _MASK
        state = state * _MIX & _MASK ^ mixed
    if rest:
        state = (state ^ int.from_bytes(data[-rest:], "little")) * _MIX & _MASK
    state = (state ^ state >> 13) * _MIX & _MASK
    return state ^ state >> 15


def partition(key: bytes, count: int) -> int:
    """Return the partition (0 … ``count`` - 1) in which Kafka's Java clients put a record with this key."""
    found = _remembered(key) if len(key) <= _REMEMBERED else murmur2(key)
    return (found & 0x7FFFFFFF) % count


_remembered = lru_cache(maxsize=1 << 15)(murmur2)
