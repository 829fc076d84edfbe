"""Sensor selectors that mean what was said."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.core.errors import UsageError
from pipeline.limacharlie import selector

SID = "9cbed57a-6d6a-4af0-b881-803a99b177d9"


def unquote(text):
    """What go-bexpr makes of a quoted value: raw between back-quotes, else up to the next quotation mark, then unescaped."""
    if text.startswith("`"):
        found = re.fullmatch(r"`([^`]*)`", text)
        return found[1] if found else None
    found = re.fullmatch(r'"([^"]*)"', text)
    if not found or re.search(r"[\x00-\x1f]", found[1]):
        return None
    return re.sub(r"\\x([0-9a-f]{2})", lambda code: chr(int(code[1], 16)), found[1])


@given(st.text())
def test_any_value_stays_itself(value):
    """Whatever is in it: quotes, back-quotes, backslashes, newlines."""
    assert unquote(selector.quote(value)) == value


def test_a_sensor_is_meant_by_its_quoted_id():
    """An unquoted UUID does not parse."""
    assert selector.sensor(SID.upper()) == f"sid == `{SID}`"
    with pytest.raises(UsageError, match="not a sensor id"):
        selector.sensor("` or plat != `")


def test_parts_keep_their_meaning_when_joined():
    """Each part is in parentheses of its own."""
    windows = selector.is_("plat", "windows")
    either = selector.some(selector.tagged("prod"), selector.matches("hostname", r"^web\d"))
    assert (
        selector.every(windows, either) == r"(plat == `windows`) and ((`prod` in tags) or (hostname matches `^web\d`))"
    )
    assert selector.no(selector.contains("ext_ip", "10.")) == "not (ext_ip contains `10.`)"
    assert selector.every(windows) == windows


@pytest.mark.parametrize("parts", [(), ("",), ("a == b", " ")])
def test_an_empty_part_is_refused(parts):
    """It would mean all sensors, or nothing."""
    with pytest.raises(UsageError, match="empty"):
        selector.every(*parts)


def test_a_field_that_no_sensor_has_is_refused():
    """LimaCharlie would answer with an error that is harder to read."""
    with pytest.raises(UsageError, match="platform"):
        selector.is_("platform", "windows")
