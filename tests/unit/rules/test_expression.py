from __future__ import annotations

import pytest

from pipeline.core.errors import UsageError
from pipeline.rules.compile import compile_rule
from pipeline.rules.expression import parse_expression

RECORD = {
    "priority": 5,
    "cat": "Suspicious = bad",
    "routing": {"hostname": "WEB-1"},
    "list": [{"a": True}],
    "empty": "",
}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("priority>4", True),
        ("priority>5", False),
        ("priority < 0x10", True),
        ("priority<-3", False),
        ("priority=5", True),
        ("priority!=5", False),
        ("nothing!=5", True),
        ("nothing=5", False),
        (" cat = Suspicious = bad ", True),
        ("cat='Suspicious = bad'", True),
        ('cat="Suspicious"', False),
        ("routing/hostname~^web-\\d$", True),
        ("routing/hostname=web-1", False),
        ("?/hostname~web", True),
        ("*/a=true", True),
        ("empty=", True),
        ("cat=''", False),
        ("cat='=bad'", False),
        ("/cat~'= bad'", True),
    ],
)
def test_expressions(text, expected):
    """The short form decides as its sign and value say."""
    assert compile_rule(parse_expression(text))(RECORD) is expected


def test_rule_of_an_expression():
    """The short form is a rule in the long form, to be put among others."""
    assert parse_expression("cat!=x") == {"op": "is", "path": "cat", "value": "x", "not": True}


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "The filter '' is not a path, a sign and a value. Use = != > < or ~"),
        ("priority", "The filter 'priority' is not a path, a sign and a value."),
        ("=5", "The filter '=5' is not a path, a sign and a value."),
        ("a!b", "The filter 'a!b' is not a path, a sign and a value."),
        ("priority>=4", "The sign >= in the filter 'priority>=4' is not known. Use > alone, with the next number."),
        ("a==b", "The sign == in the filter 'a==b' is not known. Use = alone."),
        ("a=~b", "The sign =~ in the filter 'a=~b' is not known."),
        (
            "priority>high",
            "The value in the filter 'priority>high' is wrong: it must be a number. Only numbers are compared by > and <",
        ),
        ("priority>", "The value in the filter 'priority>' is wrong: it must be a number."),
        ("cat~(", "The regular expression in the filter 'cat~(' is wrong: it is not a regular expression"),
        ("cat~", "The regular expression in the filter 'cat~' is wrong: it must not be empty."),
        ("a//b>1", "The path in the filter 'a//b>1' is wrong: the path 'a//b' has an empty step."),
        ("a//b=1", "The path in the filter 'a//b=1' is wrong: the path 'a//b' has an empty step."),
    ],
)
def test_mistakes(text, part):
    """What is wrong with an expression is said in a whole sentence, together with the expression."""
    with pytest.raises(UsageError) as caught:
        parse_expression(text)
    assert str(caught.value).startswith(part)
