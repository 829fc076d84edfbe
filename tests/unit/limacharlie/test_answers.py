"""Reading answers that may be anything."""

import base64
import gzip

import pytest

from pipeline.core.errors import UnavailableError, UsageError
from pipeline.limacharlie import answers


async def walk(fetch, **options):
    return [record async for record in answers.pages(fetch, "events", "GET x", **options)]


def served(pages, asked):
    """A ``fetch`` that serves a page for each cursor."""

    async def fetch(cursor):
        asked.append(cursor)
        return pages[cursor]

    return fetch


async def test_pages_are_walked_to_the_last(service):
    """Compressed and plain ones, and an empty one in between."""
    asked = []
    pages = {
        "-": {"events": service.packed([{"n": 1}, {"n": 2}]), "next_cursor": "a"},
        "a": {"events": "", "next_cursor": "b"},
        "b": {"events": [{"n": 3}, "nonsense"], "next_cursor": None},
    }
    assert await walk(served(pages, asked)) == [{"n": 1}, {"n": 2}, {"n": 3}]
    assert asked == ["-", "a", "b"]


async def test_a_limit_ends_the_walk_without_another_page(service):
    """What is not wanted is not asked for."""
    asked = []
    pages = {"-": {"events": [{"n": 1}, {"n": 2}], "next_cursor": "a"}}
    assert await walk(served(pages, asked), limit=2) == [{"n": 1}, {"n": 2}]
    assert await walk(served(pages, asked), limit=0) == []
    assert asked == ["-"]


async def test_a_cursor_that_leads_nowhere_ends_in_an_error():
    """Else the walk would go round for ever."""
    with pytest.raises(UnavailableError, match="do not lead on"):
        await walk(served({"-": {"events": [], "next_cursor": "-"}}, []))
    circle = {"-": {"events": [{"n": 1}], "next_cursor": "a"}, "a": {"events": [], "next_cursor": "-"}}
    with pytest.raises(UnavailableError, match="do not lead on"):
        await walk(served(circle, []))
    with pytest.raises(UnavailableError, match="do not lead on"):
        _ = [page async for page in answers.raw_pages(served(circle, []), "events", "GET x")]


@pytest.mark.parametrize(
    ("page", "cursor", "words"),
    [
        ([{"n": 1}], "{}", "same page came twice"),
        ([], "{}", "1001 in a row hold nothing"),
        ([{"n": 1}], "{}" + "x" * 20_000, "cursor has 20001 characters"),
    ],
)
async def test_cursors_that_are_new_for_ever_end_in_an_error(page, cursor, words):
    """A page that comes again under another cursor, a long row of empty pages and an endless cursor end the walk."""
    asked = []

    async def fetch(given):
        asked.append(given)
        return {"events": page, "next_cursor": cursor.format(len(asked))}

    with pytest.raises(UnavailableError, match=words):
        _ = [found async for found in answers.raw_pages(fetch, "events", "GET x")]
    assert len(asked) <= 1001


@pytest.mark.parametrize(
    "value",
    [
        "no base64!",
        "aGVsbG8=",
        base64.b64encode(gzip.compress(b"[1, 2]", mtime=0)[:-6]).decode(),
        base64.b64encode(gzip.compress(b"{}", mtime=0)).decode(),
        base64.b64encode(gzip.compress(b"not json", mtime=0)).decode(),
        7,
        {},
    ],
)
async def test_a_damaged_page_is_a_failure_and_not_an_empty_one(value):
    """Else a gap would be taken for silence."""
    with pytest.raises(UnavailableError, match="GET x"):
        await answers.unpack(value, "GET x")


async def test_a_small_answer_cannot_become_an_endless_one(monkeypatch):
    """Compression has a limit too."""
    monkeypatch.setattr(answers, "MAX_UNPACKED", 1000)
    with pytest.raises(UnavailableError, match="too large"):
        await answers.unpack(base64.b64encode(gzip.compress(b" " * 100_000)).decode(), "GET x")


async def test_a_large_page_is_unpacked_whole(service):
    """It goes through a thread."""
    page = [{"n": n, "text": f"{n * 7919 % 10_007}"} for n in range(50_000)]
    assert await answers.unpack(service.packed(page), "GET x") == page


async def test_what_we_pack_is_what_we_unpack():
    """Both ways are used: pages come packed, data goes packed."""
    for content in (b"abc", b"abc" * 100_000):
        assert await answers.gunzip(await answers.gzip(content), "x") == content


@pytest.mark.parametrize("name", ["", ".", ".."])
def test_a_name_cannot_lead_to_another_path(name):
    """Dots would be taken as steps up."""
    with pytest.raises(UsageError):
        answers.segment(name)


def test_a_name_is_one_part_of_a_path():
    """Slashes, spaces, percent signs."""
    assert answers.segment("a/b c%?é") == "a%2Fb%20c%25%3F%C3%A9"


@pytest.mark.parametrize("sid", ["who", "", "../orgs", "9cbed57a-6d6a-4af0-b881-803a99b177d9/tags"])
def test_only_a_uuid_is_a_sensor(sid):
    """A sensor's path is its id, and `who` has another meaning there."""
    with pytest.raises(UsageError, match="not a sensor id"):
        answers.sensor_id(sid)
