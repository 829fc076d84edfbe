"""The words of a configuration."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.core.config import Section
from pipeline.core.types import (
    Duration,
    Listen,
    RecordPath,
    Secret,
    Size,
    format_duration,
    format_size,
    parse_duration,
    parse_size,
)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("250ms", 0.25), ("5s", 5), ("10m", 600), ("1h30m", 5400), ("2d", 172800), ("7", 7), ("0.5", 0.5), (" 5S ", 5)],
)
def test_duration(text, seconds):
    """A duration is a number of seconds or numbers with units."""
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "s", "5 s", "-5s", "5x", "1h-30m", "1e3", "٣s٣"])
def test_odd_durations_are_mistakes(text):
    """What is no duration is refused."""
    with pytest.raises(ValueError, match="a duration is"):
        parse_duration(text)


@given(st.integers(0, 10**9))
def test_a_shown_duration_reads_back(milliseconds):
    """A duration as we write it means the same when it is read, to the millisecond."""
    assert round(parse_duration(format_duration(milliseconds / 1000)) * 1000) == milliseconds


@pytest.mark.parametrize(
    ("text", "size"),
    [("512KiB", 512 << 10), ("64MiB", 64 << 20), ("50 gib", 50 << 30), ("1GB", 10**9), ("1.5kb", 1500), ("17", 17)],
)
def test_size(text, size):
    """A size is a number of bytes or a number with a unit, binary or decimal."""
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "MiB", "-1", "5 MiBs", "1,5MB", "0x10"])
def test_odd_sizes_are_mistakes(text):
    """What is no size is refused."""
    with pytest.raises(ValueError, match="a size is"):
        parse_size(text)


@given(st.sampled_from([1, 1 << 10, 1 << 20, 1 << 30]), st.integers(1, 999))
def test_a_shown_round_size_reads_back(unit, count):
    """A round size as we write it means the same when it is read."""
    assert parse_size(format_size(unit * count)) == unit * count


@pytest.mark.parametrize(
    ("text", "host", "port", "shown"),
    [
        ("127.0.0.1:80", "127.0.0.1", 80, "127.0.0.1:80"),
        (":0", "", 0, ":0"),
        ("[::1]:9", "::1", 9, "[::1]:9"),
        ("[fe80::1%eth0]:9", "fe80::1%eth0", 9, "[fe80::1%eth0]:9"),
        ("localhost:65535", "localhost", 65535, "localhost:65535"),
    ],
)
def test_listen(text, host, port, shown):
    """An address is host:port, with an IPv6 host in brackets."""
    listen = Listen.parse(text)
    assert (host, port, shown) == (listen.host, listen.port, str(listen))


@pytest.mark.parametrize("text", ["", "80", "a:65536", "::1:80", "a:b", "a:-1", "a:80:90"])
def test_odd_addresses_are_mistakes(text):
    """What is no address is refused."""
    with pytest.raises(ValueError, match="an address is"):
        Listen.parse(text)


@pytest.mark.parametrize("text", ["", "/", "a//b", "a/*/b", "a/?"])
def test_odd_record_paths_are_mistakes(text):
    """A record path is plain keys."""
    with pytest.raises(ValueError, match="a record path is"):
        RecordPath(text)


@pytest.mark.parametrize(
    ("value", "text"),
    [("x", "x"), ("", ""), (5, "5"), (1.5, "1.5"), (True, "true"), (False, "false"), (None, None), ([], None), ({}, None)],
)  # fmt: skip
def test_text_at_a_record_path(value, text):
    """A scalar has a text; null, an object and a list have none."""
    assert RecordPath("/a/b").text({"a": {"b": value}}) == text


def test_a_path_through_something_else_finds_nothing():
    """Where a key is missing, or its value is no object, there is no text."""
    assert RecordPath("a/b").text({}) is None
    assert RecordPath("a/b").text({"a": "text"}) is None
    assert RecordPath("a/b").text({"a": [{"b": 1}]}) is None


def test_words_in_a_section():
    """A section reads the words, shows them again, and hides a secret."""

    class Sample(Section):
        wait: Duration
        room: Size
        key: Secret

    section = Sample.model_validate({"wait": "1m", "room": "1KiB", "key": "hidden"})
    assert (60, 1024) == (section.wait, section.room)
    assert "hidden" not in repr(section)
    assert "hidden" not in section.model_dump_json()
    assert '"1m"' in section.model_dump_json()
