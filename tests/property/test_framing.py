"""Framing gives the same records however the bytes are cut."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pipeline.kit import framing
from pipeline.kit.framing import Framer

MAX = 200

bodies = st.one_of(
    st.integers(0, 10**9).map(lambda n: b'{"n":%d}' % n),
    st.text(st.characters(blacklist_characters='"\\', min_codepoint=32), max_size=40).map(
        lambda text: b'{"t":"%s"}' % text.encode("utf-8", "replace")
    ),
    st.just(b'{"header":"<38>1 - - [x] {","count":"12 {"}'),
    st.just(b'{"big":"%s"}' % (b"x" * (MAX - 10))),
)
headers = st.sampled_from(
    [
        b"",
        b"<38>",
        b"<38> ",
        b"<38>Jan  2 03:04:05 host lc: ",
        b"<38>2026-01-02T03:04:05.678Z host lc[12]: ",
        b"<38>1 2026-01-02T03:04:05Z host app 1 - - ",
        b"<38>1 2026-01-02T03:04:05Z host app - - - \xef\xbb\xbf",
        rb'<38>1 - - - - - [a@1 k="v\"\]{"][b] ',
        b"<38>1 - host app - - bare-token ",
    ]
)
ends = st.sampled_from([b"\n", b"\r\n", b"\n\n", b"\n\r\n", b"\r\n \t\n"])


@st.composite
def streams(draw: st.DrawFn) -> tuple[bytes, list[bytes], int]:
    """Bytes, the records in them, and how many are too large."""
    data, records, oversize = b"", [], 0
    for _ in range(draw(st.integers(0, 8))):
        kind = draw(st.integers(0, 9))
        if kind == 0:
            huge = b'{"h":"%s"}' % (b"y" * draw(st.integers(MAX, 12_000)))
            data += b"%d %s" % (len(huge), huge) if draw(st.booleans()) else huge + b"\n"
            oversize += 1
            continue
        body, header = draw(bodies), draw(headers)
        records.append(body)
        if kind < 4:
            frame = header + body + draw(st.sampled_from([b"", b"\n", b"\r\n"]))
            data += b"%d %s" % (len(frame), frame) + draw(st.sampled_from([b"", b"\n"]))
        else:
            data += header + body + draw(ends)
    return data, records, oversize


def cut(data: bytes, places: list[int]) -> list[bytes]:
    marks = sorted({0, len(data), *(place % (len(data) + 1) for place in places)})
    return [data[a:b] for a, b in pairwise(marks)]


def run(pieces: list[bytes], *, text: bool = False) -> tuple[list[bytes], list[str]]:
    framer = Framer(MAX, text=text)
    records = [record for piece in pieces for record in framer.feed(piece)]
    records += framer.finish()
    assert framer.held == 0
    return records, [reason for _, reason in framer.refused]


@given(streams(), st.lists(st.integers(0, 40_000), max_size=30))
def test_every_cut_gives_the_records_that_were_sent(stream: tuple[bytes, list[bytes], int], places: list[int]) -> None:
    """Records, headers, CRs, blank lines, lengths and oversize records, cut anywhere, give exactly the records."""
    data, records, oversize = stream
    assert run(cut(data, places)) == (records, ["oversize"] * oversize)


@given(streams())
def test_single_bytes_give_the_records_that_were_sent(stream: tuple[bytes, list[bytes], int]) -> None:
    """A stream that comes byte by byte gives exactly the records."""
    data, records, oversize = stream
    assert run([data[at : at + 1] for at in range(len(data))]) == (records, ["oversize"] * oversize)


@given(streams(), st.lists(st.integers(0, 40_000), max_size=30), st.integers(1, 4))
def test_turns_change_nothing(stream: tuple[bytes, list[bytes], int], places: list[int], turn: int) -> None:
    """However little one call takes, the records are the same."""
    data, records, oversize = stream
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(framing, "TURN", turn)
        assert run(cut(data, places)) == (records, ["oversize"] * oversize)


pieces_of_noise = st.lists(
    st.sampled_from([
        b"{", b"}", b'{"a":1}', b"\n", b"\r", b" ", b"<38>", b"1 ", b"12 ", b"7 {", b"9 <3>", b"0", b"x", b'"', b"[", b"]",
        b"\\", b"123456789 ", b"1234567890 {", b"y" * 300, b"z" * 5000, b"\xff", b"\x00", b"-",
    ]),
    max_size=40,
)  # fmt: skip


@given(pieces_of_noise, st.lists(st.integers(0, 40_000), max_size=30), st.booleans())
@example([b"\r", b"\n", b"{", b"\r", b"\n"], [1, 2, 3], False)
def test_noise_is_cut_alike(noise: list[bytes], places: list[int], text: bool) -> None:
    """Whatever bytes come, the way they are cut changes neither records nor refusals."""
    data = b"".join(noise)
    assert run(cut(data, places), text=text) == run([data] if data else [], text=text)


@given(pieces_of_noise, st.lists(st.integers(0, 40_000), max_size=30))
def test_held_bytes_are_bounded(noise: list[bytes], places: list[int]) -> None:
    """An unfinished record never holds more than its limit, a header and one piece."""
    framer = Framer(MAX)
    for piece in cut(b"".join(noise), places):
        framer.feed(piece)
        assert framer.held <= MAX + 4096 + 16
