from __future__ import annotations

import pytest

from pipeline.rules.values import number_of, text_of


@pytest.mark.parametrize(
    ("value", "number"),
    [("0", 0), ("-7", -7), ("1.50", 1.5), ("2E3", 2000.0), ("0XfF", 255), (7, 7), (1.5, 1.5), ("1e999", float("inf"))],
)
def test_reads_as_number(value, number):
    """JSON's numbers and hexadecimal are numbers."""
    assert number_of(value) == number


@pytest.mark.parametrize(
    "value",
    ["", "+1", "01", "1_000", " 1", "1 ", "1\n", ".5", "5.", "٣", "0x", "nan", "inf", "9" * 65, True, None, [1], {}],
)
def test_reads_not_as_number(value):
    """Leading zeros, signs, spaces, other digits and very long texts are no numbers."""
    assert number_of(value) is None


@pytest.mark.parametrize(
    ("value", "text"),
    [("a", "a"), (5, "5"), (1.5, "1.5"), (True, "true"), (False, "false"), (None, None), ([], None), ({}, None)],
)
def test_text(value, text):
    """Texts, numbers and booleans have a text form; nothing else has."""
    assert text_of(value) == text
