"""What a source's filters choose from the history, and which sources have none."""

import base64
import gzip
import json

import pytest

from pipeline.core.errors import UnavailableError
from pipeline.emulator.fleet import Fleet
from pipeline.emulator.generator import Generator
from pipeline.emulator.selection import Selection as Emulated
from pipeline.limacharlie.answers import unpack_raw
from pipeline.limacharlie.backfill import Selection, check_backfill


def made(stream):
    return Generator(Fleet("8cbe27f4-bfa1-4afb-ba19-138cd51389cd", 7), stream, 7, 1_700_000_000_000, 100.0).take(2000)


@pytest.mark.parametrize(
    ("stream", "option", "attribute"),
    [
        ("event", "tag", "tags"),
        ("event", "tag_black_list", "tags"),
        ("event", "event_white_list", "event_type"),
        ("event", "event_black_list", "event_type"),
        ("detect", "event_white_list", "event_type"),
        ("detect", "cat", "cat"),
        ("detect", "cat_white_list", "cat"),
        ("detect", "cat_black_list", "cat"),
        ("event", "sid", "sid"),
        ("detect", "sid", "sid"),
    ],
)
def test_the_history_is_filtered_as_the_stream_is(stream, option, attribute):
    """The same option chooses the same records from the history as it does in the cloud's stream."""
    records = made(stream)
    found = [getattr(one, attribute) for one in records]
    value = found[0] if attribute != "tags" else next(tag for tags in found for tag in tags)
    expected = [one.raw for one in Emulated({option: value}).choose(records)]
    own = option in ("tag", "cat", "sid")
    selection = Selection(stream, **{option: value}) if own else Selection(stream, options={option: [value]})
    assert selection.choose([one.raw for one in records]) == expected
    assert 0 < len(expected) < len(records)


def test_an_investigation_is_named_before_the_slash():
    """Records of one investigation are those whose id begins with its name, up to a slash."""
    raws = [b'{"routing":{"investigation_id":"%b"}}' % name for name in (b"a", b"a/1", b"ab", b"b/a")]
    assert Selection("event", inv_id="a").choose(raws) == raws[:2]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"stream": "deployment"}, "keeps no history"),
        ({"text": True}, "lines of any form"),
        ({"options": {"custom_transform": "x"}}, "custom_transform"),
        ({"options": {"sample_rate": 2}}, "sample_rate"),
    ],
)
def test_sources_without_a_history(given, words):
    """A source whose records the history could not give as they are cannot have `backfill`, and is told why."""
    usual = {"stream": "event", "text": False, "options": {}}
    assert check_backfill(True, **usual) is True
    assert check_backfill(False, **usual | given) is False
    with pytest.raises(ValueError, match=words):
        check_backfill(True, **usual | given)


def packed(text):
    return base64.b64encode(gzip.compress(text)).decode()


async def test_records_come_out_of_a_page_byte_for_byte():
    """Numbers, escapes and spaces within a record stay as LimaCharlie wrote them; a record over several lines becomes one."""
    raws = [b'{"n":12345678901234567890123, "f":1.0}', rb'{"t":"\u00e9\/"}', b"{}"]
    assert await unpack_raw(packed(b"[ " + b" ,\n".join(raws) + b" ]"), "x") == raws
    assert await unpack_raw(packed(b'[{"a":\n1}, 5, "x", null]'), "x") == [b'{"a":1}']
    assert await unpack_raw([{"a": 1}], "x") == [json.dumps({"a": 1}).encode().replace(b" ", b"")]
    assert await unpack_raw(None, "x") == await unpack_raw("", "x") == []
    with pytest.raises(UnavailableError):
        await unpack_raw(packed(b"[{]"), "x")
