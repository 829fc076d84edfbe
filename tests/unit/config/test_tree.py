"""Texts that are no configuration, and texts that mean harm."""

import sys
from collections.abc import Callable

import pytest

from .conftest import VALID

Refuse = Callable[..., list[str]]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("- a\n- b", "1:1: a configuration is a mapping"),
        ("hello", "1:1: a configuration is a mapping"),
        ("a:\n\tb: 1", "2:1: this is not YAML: found character '\\t' that cannot start any token | This is a tab"),
        ("a: 1\n---\nb: 2", "2:1: this is not YAML: but found another document"),
        ("a: 'b", "1:6: this is not YAML: found unexpected end of stream"),
        ("a: b: c", "1:5: this is not YAML: mapping values are not allowed here | A value that has a colon"),
        ("a: @b", "1:4: this is not YAML: found character '@' that cannot start any token | Put the value in quotes"),
        ("a: *b", "1:4: this is not YAML: found undefined alias 'b'"),
        ("a: {b: ${LC_OID}}", "1:9: this is not YAML: expected ',' or '}', but got '{' | Put the value in quotes"),
        ("a: [lc.{stream}]", "1:8: this is not YAML: expected ',' or ']', but got '{' | Put the value in quotes"),
        ("a: 1\nb: \x01", "2:4: this is not YAML: a control character"),
        ("a: 1\nb: 2\na: 3", "3:1 a: this key is given twice | The first is in line 1; keep one."),
        ("a: !secret b", "1:4 a: the tag !secret has no meaning here"),
        ("? [a, b]\n: 1", "1:3: a key is plain text"),
        ("a: .inf", "1:4 a: this is not a finite number"),
        ("a: " + "9" * 5000, "1:4 a: this is not a finite number"),
        ('a: "\\ud83d"', "1:4 a: this text has half a surrogate pair"),
        ("a: {<<: 5}", "1:9 a: only a mapping can be merged"),
    ],
)
def test_not_a_configuration(refuse: Refuse, text: str, expected: str) -> None:
    """Each damage has its place and, where there is one, its remedy."""
    assert any(problem.startswith(expected) for problem in refuse(text)), refuse(text)


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        "a: " + "{a: " * 60 + "1" + "}" * 60,
        "a: " + "[" * 5000 + "]" * 5000,
        "a: &a {b: *a}",
        "a: &a [*a]",
        "a: &a {<<: {<<: *a}}",
        "a0: &a0 {x: 1}\n" + "".join(f"a{n}: &a{n} {{<<: *a{n - 1}}}\n" for n in range(1, 200)),
        "a0: &a0 {x: 1}\n" + "".join(f"a{n}: &a{n} {{<<: [*a{n - 1}, *a{n - 1}]}}\n" for n in range(1, 45)),
        "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12)),
    ],
)
def test_bombs(refuse: Refuse, text: str) -> None:
    """Deep nesting, endless aliases and merges, and aliases that multiply end soon and with a message."""
    limit = sys.getrecursionlimit()
    problems = refuse(text)
    assert any("deeper" in problem or "no end" in problem or "more than" in problem for problem in problems)
    assert limit == sys.getrecursionlimit()


def test_an_anchor_may_be_used_again(accept: Callable[..., object]) -> None:
    """YAML allows an anchor's name to be given anew; that is no reason to complain."""
    assert accept("x-a: &a 1\nx-b: &a 2\n" + VALID)


def test_a_mistake_in_an_anchor_counts_once(refuse: Refuse) -> None:
    """What several places take over from one anchor is one mistake, at the anchor."""
    text = VALID.replace("{type: heartbeat}", "&b {type: heartbeat, interval: '${NOPE}'}\n  two: *b\n  three: *b")
    (problem,) = refuse(text)
    assert problem.startswith("3:40 sources.beat.interval: the environment variable NOPE is not set"), problem
