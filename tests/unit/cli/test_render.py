"""How errors look."""

import io

import pytest

from pipeline.cli.render import coloured, render, sentence
from pipeline.core.errors import ConfigError


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("env", "expected"), [({}, True), ({"NO_COLOR": "1"}, False), ({"NO_COLOR": ""}, True), ({"TERM": "dumb"}, False)]
)
def test_colour_is_for_terminals(monkeypatch: pytest.MonkeyPatch, env: dict[str, str], expected: bool) -> None:
    """A terminal gets colour, unless NO_COLOR is set or it can show none; a pipe gets none."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    assert coloured(Terminal()) is expected
    assert coloured(io.StringIO()) is False


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("no route reads this", "No route reads this."),
        ("isn't it", "Isn't it."),
        ("`d` reaches `o`", "`d` reaches `o`."),
        ("max_unparsed must hold a record", "max_unparsed must hold a record."),
        ("lc.yaml is empty", "lc.yaml is empty."),
        ("a/b is a path", "a/b is a path."),
        ("LimaCharlie answered 401: unauthorized..", "LimaCharlie answered 401: unauthorized."),
        ("and so on...", "And so on..."),
        ("Some sources cannot start.", "Some sources cannot start."),
    ],
)
def test_sentences(text: str, expected: str) -> None:
    """A sentence begins with a capital letter, unless it begins with a name, and ends with one period."""
    assert expected == sentence(text)


def test_the_head_of_several_mistakes_has_one_period() -> None:
    """A text that is a sentence already is joined with the place."""
    error = ConfigError("Some sources cannot start.", where="lc.yaml", problems=(ConfigError("x"),))
    assert render(error).startswith("Error: Some sources cannot start in lc.yaml.\n")


def test_several_mistakes() -> None:
    """Each of several mistakes is a paragraph; colour changes the looks only."""
    error = ConfigError(
        "2 mistakes",
        where="lc.yaml",
        problems=(ConfigError("one is off", where="a:1:2 x", fix="Mend it"), ConfigError("two is off", where="b")),
    )
    text = "Error: 2 mistakes in lc.yaml.\n\n  a:1:2 x\n    One is off.\n    Mend it.\n\n  b\n    Two is off."
    assert render(error) == text
    assert "\x1b[" in render(error, colour=True)
