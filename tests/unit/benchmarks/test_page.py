"""The page on performance is made from one run."""

import pytest

from benchmarks import page


def test_sections(monkeypatch):
    """Each table of the page is made anew, what stands around it stays, and doing it twice changes nothing."""
    monkeypatch.setattr(page, "SECTIONS", {name: lambda whole: f"{whole['x']} \\1" for name in page.SECTIONS})
    before = page.PAGE.read_text()
    once = page.written(before, {"x": "new"})
    assert once.count("new \\1") == len(page.SECTIONS)
    assert page.written(once, {"x": "new"}) == once
    assert [line for line in before.splitlines() if line.startswith("#")] == [
        line for line in once.splitlines() if line.startswith("#")
    ]


def test_unknown_section():
    """A section that nobody makes is an error, and not left as it was."""
    with pytest.raises(ValueError, match="nonsense"):
        page.written(page.PAGE.read_text() + "<!-- bench: nonsense -->\n<!-- /bench -->", {})
