"""How errors read in one line."""

import pytest

from pipeline.core.errors import PipelineError, RetryLater


@pytest.mark.parametrize(
    ("what", "where", "fix", "expected"),
    [
        ("it is off", "", "", "it is off"),
        ("it is off", "a.b", "", "a.b: it is off"),
        ("it is off", "a.b", "Mend it.", "a.b: it is off. Mend it."),
        ("It is off.", "", "Mend it.", "It is off. Mend it."),
        ("Is it off?", "", "Mend it.", "Is it off? Mend it."),
    ],
)
def test_what_and_fix_are_two_sentences(what: str, where: str, fix: str, expected: str) -> None:
    """A period stands between what is wrong and how to fix it, and only one."""
    assert expected == str(PipelineError(what, where=where, fix=fix))


def test_without_a_text() -> None:
    """A sink's verdict without a word has no text."""
    assert str(RetryLater()) == ""
