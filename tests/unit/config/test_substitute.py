"""``${…}`` in string leaves, and the silence about what it gave."""

from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.config.load import Loaded, loads
from pipeline.config.substitute import MAX_FILE, substitute
from pipeline.core.errors import ConfigError

from .conftest import VALID

ENV = {"A": "one", "EMPTY": "", "TRAP": "${A} }, {x: y"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("${A}", "one"),
        ("<${A}|${A}>", "<one|one>"),
        ("${NONE:-two}", "two"),
        ("${EMPTY:-two}", "two"),
        ("${NONE:-}", ""),
        ("${EMPTY}", ""),
        ("${A:-two}", "one"),
        ("${NONE:-a:-b}", "a:-b"),
        ("$${A}", "${A}"),
        ("$$${A}", "$${A}"),
        ("$A {A} $", "$A {A} $"),
        ("${TRAP}", "${A} }, {x: y"),
    ],
)
def test_substitute(text: str, expected: str) -> None:
    """Variables, defaults and the escape, each once: what comes in is not looked at again."""
    problems: list[str] = []
    assert expected == substitute(text, ENV, lambda what, _: problems.append(what))
    assert problems == []


@pytest.mark.parametrize("text", ["${}", "${A", "${1A}", "${A-b}", "${A:b}", "${A b}", "${${A}}"])
def test_malformed(text: str) -> None:
    """What looks like a substitution and is none is a mistake, not a literal."""
    problems: list[str] = []
    substitute(text, ENV, lambda what, _: problems.append(what))
    assert problems == ["this is not a substitution"]


def test_file(tmp_path: Path) -> None:
    """A secret's file is read without the line end that editors put there."""
    path = tmp_path / "key"
    path.write_bytes(b"s3cret\r\n")
    assert substitute(f"${{file:{path}}}", {}, lambda *_: None) == "s3cret"


@pytest.mark.parametrize("content", [None, b"x" * (MAX_FILE + 1), b"\xff"])
def test_bad_file(tmp_path: Path, content: bytes | None) -> None:
    """A file that is missing, too large or no text is a mistake that names it."""
    path = tmp_path / "key"
    if content is not None:
        path.write_bytes(content)
    problems: list[str] = []
    substitute(f"${{file:{path}}}", {}, lambda what, _: problems.append(what))
    assert [str(path) in what for what in problems] == [True]


def test_values_cannot_change_the_structure(accept: Callable[..., Loaded]) -> None:
    """YAML in a variable is text, as the parsing was done before."""
    loaded = accept(VALID.replace("heartbeat", 'heartbeat, stream: "${T}"'), {"T": "x}, evil: {a: b"})
    assert loaded.config.sources["beat"].stream == "x}, evil: {a: b"


def test_numbers_from_the_environment(accept: Callable[..., Loaded]) -> None:
    """A variable may give a number or a truth value, too."""
    loaded = accept(VALID.replace("type: bin", 'type: bin, depth: "${D}"'), {"D": "7"})
    assert loaded.config.sinks["bin"].depth == 7


SECRET = "zXq8-hunter2-Lm"


@pytest.mark.parametrize(
    "change",
    [
        ("type: bin", 'type: bin, depth: "${S}"'),
        ("type: bin", 'type: "${S}"'),
        ("type: bin", 'type: bin, path: "{${S}}"'),
        ("type: bin", 'type: bin, path: "x{${S}}"'),
        ("type: bin", 'type: bin, batch: "${S}"'),
        ("type: bin", 'type: bin, retry: {base: "${S}"}'),
        ("from: beat", 'from: "${S}"'),
        ("from: beat", 'from: [beat, "${S}"]'),
        ("to: bin", 'to: bin, on_full: "${S}"'),
        ("to: bin", 'to: bin, filters: [{type: even, name: "${S}"}]'),
        ("heartbeat", 'heartbeat, orgs: ["${S}"]'),
        ("heartbeat", 'heartbeat, token: ["${S}"]'),
        ("heartbeat", 'heartbeat, tls: {cert: "${S}"}'),
    ],
)
def test_no_substituted_value_shows(toys: None, change: tuple[str, str]) -> None:
    """Whatever is wrong with a value that came from outside, no piece of it is in the error or its chain."""
    with pytest.raises(ConfigError) as caught:
        loads(VALID.replace(*change), {"S": SECRET})
    error: BaseException | None = caught.value
    texts = [str(problem) for problem in caught.value.problems]
    while error is not None:
        texts += [str(error), repr(error)]
        error = None if error.__suppress_context__ else error.__cause__ or error.__context__
    for text in texts:
        assert not any(SECRET[at : at + 4] in text for at in range(len(SECRET) - 3)), text


@pytest.mark.parametrize("value", ["[hunter2]", "{hunter2: hunter2}", "77665544"])
def test_no_literal_secret_shows(refuse: Callable[..., list[str]], value: str) -> None:
    """A secret that is written into the file in a wrong form does not show either."""
    problems = refuse(VALID.replace("heartbeat", f"heartbeat, token: {value}"))
    assert problems
    assert not any("hunter2" in problem or "77665544" in problem for problem in problems)


def test_no_secret_in_repr(accept: Callable[..., Loaded]) -> None:
    """A loaded configuration can be printed."""
    loaded = accept(VALID.replace("heartbeat", 'heartbeat, token: "${S}"'), {"S": SECRET})
    assert loaded.config.sources["beat"].token.get_secret_value() == SECRET
    assert SECRET not in repr(loaded)
