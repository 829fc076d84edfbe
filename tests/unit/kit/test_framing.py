"""Framing, case by case."""

from __future__ import annotations

import pytest

from pipeline.kit.framing import TURN, Framer


def records(data: bytes, **options: object) -> list[bytes]:
    return Framer(1000, **options).feed(data)


@pytest.mark.parametrize(
    ("line", "record"),
    [
        (b'{"a":1}', b'{"a":1}'),
        (b'<38> {"a":1}', b'{"a":1}'),
        (b'<38>{"a":1}', b'{"a":1}'),
        (b'<38>Oct 11 22:14:15 host lc[7]: {"a":1}', b'{"a":1}'),
        (b'<38>Oct  1 22:14:15 host {"a":1}', b'{"a":1}'),
        (b'<38>1 2026-01-01T00:00:00Z host app 12 id - {"a":1}', b'{"a":1}'),
        (rb'<38>1 2026-01-01T00:00:00Z h a - - [x@1 k="{\"]"][y@2 z="\\\]"] {"a":1}', b'{"a":1}'),
        (b'<38>1 - h a - - sometoken {"a":1}', b'{"a":1}'),
        (b'{"<38>":"1 {"}', b'{"<38>":"1 {"}'),
        (b'<999999> {"a":1}', b'<999999> {"a":1}'),
        (b"not json", b"not json"),
    ],
)
def test_the_header_is_taken_off(line: bytes, record: bytes) -> None:
    """The record is what follows the header; what is no header stays."""
    assert records(line + b"\n") == [record]
    assert records(line + b"\r\n") == [record]


@pytest.mark.parametrize(
    ("line", "record"),
    [
        (b"plain {text}", b"plain {text}"),
        (b"2026-01-01 12 apples", b"2026-01-01 12 apples"),
        (b"12 {apples}", b"12 {apples}"),
        (b"<38> some text", b"some text"),
        (b"<38>Oct 11 22:14:15 host lc: some {text}", b"some {text}"),
        (b"<38>1 - h a - - [x] some {text}", b"some {text}"),
        (b"14 <38> some text", b"some text"),
    ],
)
def test_text_follows_its_header(line: bytes, record: bytes) -> None:
    """With `text`, a record is any line, its header taken off."""
    assert records(line + b"\n", text=True) == [record]


def test_a_counted_frame_needs_no_line_end() -> None:
    """Frames with their length follow each other directly; lines may come between them."""
    assert records(b'7 {"a":1}12 <38> {"b":2}{"c":3}\n7 {"d":4}\n') == [b'{"a":1}', b'{"b":2}', b'{"c":3}', b'{"d":4}']


@pytest.mark.parametrize(
    "header",
    [b'<38>1 - h a - - [x@1 t="sesame"] ', b"<38>1 - h a - - sesame ", b"<38>Oct 11 22:14:15 sesame lc: ", b"<38> sesame "],
)  # fmt: skip
def test_a_token_in_the_header_is_found(header: bytes) -> None:
    """The token may be in elements, or bare where the header has none."""
    assert records(header + b'{"a":1}\n', token=b"sesame") == [b'{"a":1}']


@pytest.mark.parametrize(
    "line",
    [b'{"sesame":1}', b'<38>1 - h a - - - {"sesame":1}', b'<38>1 sesame h a - - [x] {"a":1}', b'<38> {"a":"sesame"}'],
)
def test_a_token_elsewhere_does_not_count(line: bytes) -> None:
    """The token in the record, or in another field of the header, lets nobody in."""
    framer = Framer(1000, token=b"sesame")
    assert framer.feed(line + b"\n") == []
    assert framer.refused == [(line, "token")]


@pytest.mark.parametrize(
    ("tail", "whole"),
    [
        (b'{"a":1}', True),
        (b'<38> {"a":1}\r', True),
        (b'{"a":', False),
        (b"[1]", False),
        (b'9 {"a":1}', True),
        (b"12", False),
    ],
)
def test_the_tail_is_given_if_it_is_whole(tail: bytes, whole: bool) -> None:
    """An unfinished record is given when it parses as an object, else refused."""
    framer = Framer(1000)
    assert framer.feed(tail) == []
    assert framer.finish(orderly=False) == ([b'{"a":1}'] if whole else [])
    assert [reason for _, reason in framer.refused] == ([] if whole else ["truncated"])


def test_unfinished_text_is_given_after_an_orderly_end() -> None:
    """Nobody can tell whether text is whole, so the end of the connection decides."""
    for orderly in (True, False):
        framer = Framer(1000, text=True)
        framer.feed(b"one\ntwo")
        assert framer.finish(orderly=orderly) == ([b"two"] if orderly else [])


def test_a_record_of_exactly_the_limit_passes() -> None:
    """`max_record` bytes are allowed, one more is not, with and without a header."""
    body = b'{"a":"%s"}' % (b"x" * 992)
    assert len(body) == 1000
    for header in (b"", b"<38> "):
        framer = Framer(1000)
        assert framer.feed(header + body + b"\n" + header + b" " * (header == b"") + body + b"\n")[0] == body
    framer = Framer(999)
    assert framer.feed(body + b"\n") == []
    assert framer.refused == [(body[:1024], "oversize")]


def test_unclosed_structured_data_costs_little() -> None:
    """A header made to confuse is read in one pass, not in exponential time."""
    framer = Framer(1 << 20)
    line = b"<38>1 - h a - - " + b'[x k="' * 200_000
    for _ in range(20):
        assert framer.feed(line[: 1 << 20] + b"\n")


@pytest.mark.parametrize("line", [b"2 {}", b"{}\n", b"<1>{}\n", b"2 {}\n", b"{}\r\n"])
def test_tiny_records_come_in_turns(line: bytes) -> None:
    """One call takes some of them only, however many came; the next calls take the others, and all of them come out."""
    framer = Framer(1000)
    count = 3 * TURN + 7
    turns = [framer.feed(line * count)]
    while framer.ahead:
        turns.append(framer.feed(b""))
    assert [record for turn in turns for record in turn] == [b"{}"] * count
    assert max(map(len, turns)) <= TURN
    assert framer.held == 0


def test_what_comes_in_between_waits_its_turn() -> None:
    """Bytes that come while others wait follow them; the end of the stream takes all that waits."""
    sent = [b'{"n":%d}' % n for n in range(2 * TURN)]
    framer = Framer(1000)
    found = list(framer.feed(b"\n".join(sent[:-1]) + b"\n"))
    assert framer.ahead
    found += framer.feed(sent[-1])
    found += framer.finish()
    assert found == sent
    assert framer.ahead == framer.held == 0


def test_a_frame_full_of_lines_is_cut_a_limited_number_of_times() -> None:
    """A frame with more lines than one turn takes leaves the rest in one piece, for whoever judges records."""
    lines = b"{}\n" * (2 * TURN)
    found = Framer(len(lines)).feed(b"%d %s" % (len(lines), lines))
    assert found[:TURN] == [b"{}"] * TURN
    assert len(found) == TURN + 1


def test_an_unfinished_record_can_be_dropped() -> None:
    """Its beginning is returned and nothing is held."""
    framer = Framer(1000)
    framer.feed(b'{"a":' + b"x" * 900)
    assert framer.drop() == b'{"a":' + b"x" * 900
    assert framer.held == 0
