"""The byte test over a block against a look at each record."""

from __future__ import annotations

import orjson
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipeline.core.lines import Lines
from pipeline.engine.bytetest import LEAST, ByteTest
from pipeline.engine.trial import Trial

MARKS = [b'"ab"', b"ab", b'"aba', b"b", b"<&>", b"a!", b"x" * 40]
pieces = st.sampled_from(
    [b'"', b"a", b"b", b"ab", b'"ab"', b"x" * 40, b"x" * 7, b"\\", b"\\u00", b"\\u0061", b"\\u0041", b"6", b"3c", b"<&>",
     b"a!", b"\\u00e9", b"\xc3\xa9", b"\xff", b" ", b"{", b" " * 3000, b"y" * LEAST]
)  # fmt: skip


def _written(text: str, which: int) -> bytes:
    """As JSON, with some of the characters escaped."""
    coded = (f"\\u{ord(each):04x}" if which >> index % 8 & 1 else each for index, each in enumerate(text))
    return b'"%b"' % "".join(coded).encode()


texts = st.builds(_written, st.sampled_from(["ab", "xaby", "a!", "<&>", "b", "é"]), st.integers(0, 255))
records = st.lists(pieces, max_size=8).map(b"".join) | st.lists(texts, max_size=3).map(b",".join)


@settings(max_examples=300, deadline=None)
@example([b"y" * (LEAST + 1), b"", b"y" * LEAST, b"ab"], [b"ab"], True)
@example([b"", b"y" * (LEAST + 1)], [b"ab"], True)
@given(
    st.lists(records, max_size=12), st.lists(st.sampled_from(MARKS), min_size=1, max_size=3), st.booleans()
)  # fmt: skip
def test_nothing_that_must_pass_is_dropped(raws: list[bytes], marks: list[bytes], limited: bool) -> None:
    """What holds a mark, may hide one in an escape or is too large passes, in order and uncut; what is none of this does not."""
    lines = Lines.of(raws)
    lot = ByteTest(marks, LEAST if limited else 0, Trial(1.0)).run(lines)
    assert lot.lines == [raws[row] + b"\n" for row in lot.rows]
    assert list(lot.rows) == sorted(set(lot.rows))
    odd = lot.keep([place for place in range(len(lot)) if place % 2])
    assert (odd.lines, list(odd.rows)) == (list(lot.lines[1::2]), list(lot.rows[1::2]))
    passed = set(lot.rows)
    for row, raw in enumerate(raws):
        marked = any(mark in raw for mark in marks)
        if marked or (limited and len(raw) > LEAST) or _unescaped_holds(raw, marks):
            assert row in passed
        elif b"\\u00" not in raw and not (limited and len(raw) >= LEAST // 2):
            assert row not in passed


def _unescaped_holds(raw: bytes, marks: list[bytes]) -> bool:
    """Whether a mark is in the record where its characters are written as they are; for that it has to be texts alone."""
    try:
        texts = orjson.loads(b"[%b]" % raw)
    except ValueError:
        return False
    plain = b",".join(orjson.dumps(text) for text in texts)
    return any(mark in plain for mark in marks)


@given(st.text("ab!/\\é\n\t\x7f", min_size=1).map(str.encode))
def test_only_marks_that_have_one_form_are_looked_for(mark: bytes) -> None:
    """JSON may write a mark in its characters or as \\u00.., and in no other way."""
    assert ByteTest.fits([mark], 0) == (not set(mark) & set("/\\é\n\t\x7f".encode()))
    assert not ByteTest.fits([], 0)
    assert not ByteTest.fits([b""], 0)
    assert not ByteTest.fits([b"a"], LEAST - 1)
