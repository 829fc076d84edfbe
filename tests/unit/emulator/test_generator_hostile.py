from __future__ import annotations

import json
from typing import Any

import orjson

from pipeline.emulator.generator import hostile

OID = "8cbe27f4-bfa1-4afb-ba19-138cd51389cd"


def depth(value: Any) -> int:
    deepest, level = 0, [value]
    while level:
        level = [
            child
            for node in level
            if isinstance(node, dict | list)
            for child in (node.values() if isinstance(node, dict) else node)
        ]
        deepest += 1
    return deepest


def test_every_parser_takes_them() -> None:
    """Hostile records are valid for a strict and for a lax parser, in one line of UTF-8 each."""
    for raw in hostile(1, distinct=10):
        assert b"\n" not in raw
        assert raw.startswith(b"{")
        assert raw.endswith(b"}")
        assert dict is orjson.loads(raw).__class__ is json.loads(raw).__class__


def test_they_hold_what_breaks_receivers() -> None:
    """There are climbing paths, NUL, bidi characters, deep nesting, big numbers, duplicate keys and long strings."""
    raws = hostile(1, distinct=10, string_bytes=300_000, depth=400)
    everything = b"\n".join(raws)
    for needle in (
        b"../../",
        b"\\u0000",
        "\u202e".encode(),
        b"\\u202e",
        b"18446744073709551616",
        b'"FILE_PATH":"a","FILE_PATH":"../b"',
    ):
        assert needle in everything
    assert 300_000 < max(map(len, raws)) < 301_000
    # a leaf counts as a level here
    assert 400 <= max(depth(json.loads(raw)) for raw in raws) <= 401


def test_host_names_are_distinct() -> None:
    """As many host names as asked for, so that a template with one meets its cap."""
    hosts = {orjson.loads(raw)["routing"].get("hostname") for raw in hostile(1, distinct=10_000)}
    assert len(hosts) >= 10_000


def test_they_name_the_organization_if_it_is_given() -> None:
    """With an organization each record that has routing passes for its own; without one none names any."""
    assert {OID} == {orjson.loads(raw)["routing"]["oid"] for raw in hostile(1, oid=OID, distinct=3)}
    assert not any(b'"oid"' in raw for raw in hostile(1, distinct=3))


def test_a_seed_gives_the_same_records() -> None:
    """Two calls agree, another seed differs."""
    assert hostile(1, distinct=5) == hostile(1, distinct=5)
    assert hostile(1, distinct=5) != hostile(2, distinct=5)
