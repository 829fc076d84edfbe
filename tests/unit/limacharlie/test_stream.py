"""The Spout protocol's lines."""

import tracemalloc

import pytest

from pipeline.core.errors import (
    AuthenticationError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitedError,
    UnavailableError,
)
from pipeline.limacharlie.stream import HEAD, SpoutParser, stream_error

RECORD = b'{"routing":{"oid":"a"},"event":{}}'


def test_a_chunk_of_whole_records_comes_out_as_it_is():
    """Records lose their line end and nothing else, in order."""
    parser = SpoutParser(1000)
    assert parser.feed(b'{"a": 1}\n{"b":\t2 }\n') == [b'{"a": 1}', b'{"b":\t2 }']
    assert parser.live


def test_a_record_over_several_chunks_is_one_record():
    """The unfinished end of a chunk waits for the next ones."""
    parser = SpoutParser(1000)
    assert parser.feed(b'{"a":1}\n{"b"') == [b'{"a":1}']
    assert parser.feed(b":") == []
    assert parser.feed(b'2}\n{"c":3}\n') == [b'{"b":2}', b'{"c":3}']


def test_blank_lines_and_carriage_returns_are_no_records():
    """Blank lines are skipped and CR before LF is cut, also where a chunk ends between them."""
    parser = SpoutParser(1000)
    assert parser.feed(b'\n\r\n  \n{"a":1}\r') == []
    assert parser.feed(b'\n{"b":2}\r\n\n') == [b'{"a":1}', b'{"b":2}']


def test_a_connected_trace_makes_the_stream_live():
    """The trace is no record, and nothing is live before it."""
    parser = SpoutParser(1000)
    assert not parser.live
    assert parser.feed(b'{"__trace":"connected"}\n') == []
    assert parser.live


@pytest.mark.parametrize("line", [b'{"__trace":"keepalive"}', b'{ "__trace" : "keepalive" }', b'{"__trace":"novel"}'])
def test_traces_are_never_records(line):
    """Keep-alives and traces that are not known yet are left out."""
    assert SpoutParser(1000).feed(RECORD + b"\n" + line + b"\n" + RECORD + b"\n") == [RECORD, RECORD]


@pytest.mark.parametrize(
    ("n", "counted"), [(b"5", 5), (b"-5", 1), (b'"x"', 1), (b"null", 1), (b"99999999999999999", 10**12)]
)
def test_dropped_records_are_counted_within_reason(n, counted):
    """A drop is at least one record, whatever its number is."""
    parser = SpoutParser(1000)
    assert parser.feed(b'{"__trace":"dropped","n":' + n + b"}\n") == []
    assert parser.dropped == counted


@pytest.mark.parametrize("line", [b'{"error":{"code":1},"routing":{}}', b'{"__trace":7}', b'{"error":broken', b"{ x"])
def test_a_record_that_only_begins_like_a_trace_is_a_record(line):
    """Only a single discriminating key makes a line part of the protocol."""
    parser = SpoutParser(1000)
    assert parser.feed(line + b"\n") == [line]
    assert parser.error is None


def test_a_large_record_that_begins_like_an_error_is_a_record():
    """What is longer than any message of the protocol is not decoded to find out."""
    line = b'{"error":"' + b"x" * HEAD + b'"}'
    assert SpoutParser(1 << 20).feed(line + b"\n") == [line]


@pytest.mark.parametrize("line", [b"error: unauthorized\n", b"ERROR: unauthorized\n", b'{"error":"unauthorized"}\n'])
def test_a_refusal_becomes_an_error(line):
    """Text and object form mean the same."""
    parser = SpoutParser(1000)
    assert parser.feed(line) == []
    assert isinstance(parser.error, AuthenticationError)
    assert "unauthorized" in str(parser.error)


def test_an_error_line_without_its_line_end_is_understood():
    """A connection may close right after the text."""
    parser = SpoutParser(1000)
    assert parser.feed(b"error: unauthorized") == []
    assert parser.finish(orderly=True) == []
    assert isinstance(parser.error, AuthenticationError)


def test_an_error_object_may_hold_more_than_text():
    """Its content is shown as it is."""
    parser = SpoutParser(1000)
    parser.feed(b'{"error":{"code":5}}\n')
    assert '{"code":5}' in str(parser.error)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("unauthorized", AuthenticationError),
        ("unknown api key", AuthenticationError),
        ("unauthorized, missing output.set", PermissionDeniedError),
        ("missing permission", PermissionDeniedError),
        ("too many streams", RateLimitedError),
        ("org not found", NotFoundError),
        ("internal", UnavailableError),
        ("", UnavailableError),
    ],
)
def test_the_text_decides_whether_trying_again_helps(text, kind):
    """What is not known counts as temporary."""
    assert type(stream_error(text)) is kind


def test_an_error_text_is_made_fit_for_a_log():
    """Control and bidi characters and endless texts do not reach an operator's terminal."""
    parser = SpoutParser(1 << 20)
    parser.feed("error: \x1b[31mevil\u202e".encode() + b"x" * 9000 + b"\n")
    text = str(parser.error)
    assert "evil" in text
    assert text.isprintable()
    assert len(text) < 400


def test_lines_that_are_not_json_are_left_to_intake():
    """The parser does not judge form."""
    assert SpoutParser(1000).feed(b"<html>\n") == [b"<html>"]
    assert not SpoutParser(1000).live


def test_text_records_may_look_like_errors_once_live():
    """With a custom transform any line is a record; before that only a refusal can come."""
    parser = SpoutParser(1000, text=True)
    assert parser.feed(b"error: no such org\n") == []
    assert isinstance(parser.error, NotFoundError)
    parser = SpoutParser(1000, text=True)
    assert parser.feed(b'{"__trace":"connected"}\nerror: disk failed\n') == [b"error: disk failed"]
    assert parser.error is None


def test_an_oversize_record_is_counted_once_and_the_next_one_is_whole():
    """Its beginning is kept, the rest is skipped up to the line end."""
    parser = SpoutParser(100)
    assert parser.feed(b'{"a":1}\n{"b":"') == [b'{"a":1}']
    for _ in range(50):
        assert parser.feed(b"x" * 60) == []
    assert parser.feed(b'"}\n{"c":3}\n') == [b'{"c":3}']
    assert len(parser.oversize) == 1
    assert parser.oversize[0].startswith(b'{"b":"xxx')
    assert parser.finish(orderly=True) == []


def test_an_oversize_record_is_not_held():
    """Memory stays within max_record and a chunk however long a line is."""
    parser = SpoutParser(1000)
    for _ in range(1000):
        parser.feed(b"x" * 500)
        assert len(parser._tail) <= 1001
    assert len(parser.oversize) == 1


def test_an_unfinished_record_in_small_pieces_costs_its_size():
    """A peer that sends byte by byte does not make a record cost a multiple of its bytes."""
    parser = SpoutParser(1 << 20)
    parser.feed(b"{")
    tracemalloc.start()
    try:
        for number in range(100_000):
            parser.feed(bytes((97 + number % 26,)))
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 200_000


def test_a_record_of_exactly_the_largest_size_passes():
    """The limit is the record's, without its line end."""
    record = b'{"a":"' + b"x" * 92 + b'"}'
    parser = SpoutParser(len(record))
    assert parser.feed(record) == []
    assert parser.feed(b"\r") == []
    assert parser.feed(b"\n") == [record]
    assert parser.oversize == []


def test_a_whole_rest_at_the_end_is_delivered():
    """A last record without its line end is a record if it is a JSON object."""
    parser = SpoutParser(1000)
    parser.feed(RECORD)
    assert parser.finish(orderly=False) == [RECORD]
    assert parser.cut == 0


@pytest.mark.parametrize("rest", [b'{"a":', b'{"a":{}', b"[1]"])
def test_a_cut_record_is_counted_and_not_delivered(rest):
    """Half a record is no record."""
    parser = SpoutParser(1000)
    parser.feed(b'{"x":1}\n' + rest)
    assert parser.finish(orderly=True) == []
    assert parser.cut == len(rest)


def test_the_rest_of_a_text_stream_counts_as_whole_only_after_an_orderly_end():
    """Nobody can see from a text line whether it is whole."""
    parser = SpoutParser(1000, text=True)
    parser.feed(b"a line")
    assert parser.finish(orderly=True) == [b"a line"]
    parser.feed(b"a line")
    assert parser.finish(orderly=False) == []
    assert parser.cut == 6
