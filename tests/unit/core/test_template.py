"""Paths and topics from records, in which no record can steer a write."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.core.template import OVERFLOW, Seen, Template, segment

WHEN = 1_700_000_000.0  # 2023-11-14 22:13:20 UTC


def test_render():
    """Stream, organization, time in UTC and record values each take their place."""
    template = Template("/data/{stream}/{org}/%Y/%m/%d/%H-{routing/hostname}.jsonl")
    text = template.render("event", "acme", WHEN, {"routing/hostname": "ws-1"}, Seen())
    assert text == "/data/event/acme/2023/11/14/22-ws-1.jsonl"


def test_what_a_template_asks_for():
    """A template says which record values it needs, and whether the time matters."""
    assert set(Template("lc.{routing/sid}.{cat}.{stream}").paths) == {"routing/sid", "cat"}
    assert Template("a/%Y").timed
    assert not Template("a/{cat}").timed


@pytest.mark.parametrize(
    "text", ["", "{stream}", "%Y/x", "/{org}/x", "//{cat}", "a{", "a}", "a{b", "a{b}", "a%Z", "a%", "a{*/b}", "a{x//y}"]
)
def test_odd_templates_are_mistakes(text):
    """A template begins with a literal prefix, closes its braces and knows its signs."""
    with pytest.raises(ValueError, match=r"."):
        Template(text)


@pytest.mark.parametrize(
    ("value", "safe"),
    [
        ("../../etc/passwd", ".._.._etc_passwd"),
        ("..", "_"),
        (".", "_"),
        ("", "_"),
        (None, "_"),
        ("a\0b", "a_b"),
        ("a\nb", "a_b"),
        ("\u202egnp.exe", "_gnp.exe"),
        ("büro", "b_ro"),
        ("%Y{stream}", "_Y_stream_"),
        ("x" * 10_000, "x" * 128),
        ("C:\\Windows", "C__Windows"),
        ("...", "..."),
    ],
)
def test_hostile_values(value, safe):
    """A substituted value is one safe segment of at most 128 bytes."""
    assert segment(value) == safe


@given(st.text(), st.text(), st.text())
def test_no_record_leaves_the_prefix(stream, org, value):
    """Whatever stream, organization and record say, the path has the shape of the template and no step out of its prefix."""
    text = Template("/data/{stream}/{org}/{a/b}.log").render(stream, org, WHEN, {"a/b": value}, Seen())
    assert re.fullmatch(r"/data/[A-Za-z0-9._-]+/[A-Za-z0-9._-]+/[A-Za-z0-9._-]+\.log", text)
    assert not {".", ".."} & set(text.split("/"))


def test_a_flood_of_values_ends_in_one():
    """Past the cap of distinct values a new one becomes `_overflow`; known ones keep their place."""
    template, seen = Template("t.{a/b}"), Seen(limit=3)
    names = [template.render("event", "", WHEN, {"a/b": str(number)}, seen) for number in range(10_000)]
    assert set(names) == {"t.0", "t.1", "t.2", f"t.{OVERFLOW}"}
    assert template.render("event", "", WHEN, {"a/b": "1"}, seen) == "t.1"


def test_values_are_not_read_as_templates():
    """A percent sign or a brace that comes from a record is not replaced again."""
    assert Template("a/{x/y}/%d").render("e", "", WHEN, {"x/y": "%H"}, Seen()) == "a/_H/14"
