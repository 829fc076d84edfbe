"""Records in one block."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pipeline.core.lines import Blocks, Lines

records = st.lists(st.binary(max_size=20).map(lambda raw: raw.replace(b"\n", b" ")), max_size=12)
places = st.none() | st.integers(-15, 15)


@given(records, places, places, st.sampled_from([None, 1, 2, -1]))
def test_a_block_is_the_sequence_of_its_records(
    raws: list[bytes], start: int | None, stop: int | None, step: int | None
) -> None:
    """It has the length, the items, the slices and the size of the list that it was made of, empty records included."""
    lines = Lines.of(raws)
    assert len(lines) == len(raws)
    assert list(lines) == raws == lines
    assert lines.size == sum(map(len, raws))
    assert [lines[index] for index in range(-len(raws), len(raws))] == raws * 2
    assert list(lines[start:stop:step]) == raws[start:stop:step]
    assert [line[:-1] for line in lines.ended()] == raws
    assert all(line.endswith(b"\n") for line in lines.ended())
    edges = lines.edges
    assert (edges.lines, edges.longest) == (len(raws), max(map(len, raws), default=0))
    assert edges.firsts == {(raw + b"\n")[0] for raw in raws}
    assert edges.lasts == (set() if b"" in raws else {raw[-1] for raw in raws})


@given(st.lists(records, max_size=4))
def test_blocks_join_to_the_block_of_all_records(parts: list[list[bytes]]) -> None:
    """Joining costs no record its place, and an empty part adds none."""
    assert Lines.joined(map(Lines.of, parts)) == Lines.of([raw for part in parts for raw in part])


def test_what_is_no_sequence_of_the_same_records_is_not_equal() -> None:
    """Equality is about records, not about the bytes around them."""
    assert Lines.of([b"a", b"b"]) != Lines.of([b"a"])
    assert Lines.of([b"a", b"b"]) != [b"a"]
    assert Lines.of([b"a"]) != b"a"
    assert "1 records" in repr(Lines.of([b"a"]))


@given(st.lists(records, max_size=4))
def test_several_blocks(parts: list[list[bytes]]) -> None:
    """Blocks are the sequence of all their records."""
    blocks, whole = Blocks([Lines.of(part) for part in parts]), [raw for part in parts for raw in part]
    assert (list(blocks), len(blocks), list(blocks[1:]), bool(blocks)) == (whole, len(whole), whole[1:], bool(whole))
    assert [blocks[at] for at in range(len(blocks))] == whole
