"""The operators of the rule language: one entry in `OPERATORS` each.

An operator with a ``path`` holds when any value at that path satisfies it, so it never holds for a path that the record lacks.
Upper and lower case differ unless ``case sensitive: false`` (with ``matches``: unless ``case sensitive: true``).
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import re2

from pipeline.rules.condition import Condition, Test
from pipeline.rules.paths import Budget, Resolver, TooComplex
from pipeline.rules.values import length_of, number_of, text_of

MAX_PROGRAM = 20_000
"""Instructions in a compiled regular expression at most."""
MAX_SEARCH = 500_000_000
"""Instructions times bytes of text in one search at most: two seconds where a text was made to defeat the pattern, else far less."""

Holds = Callable[[Any], bool]
"""Decides about one value."""


@dataclass(frozen=True, slots=True)
class Operator:
    """One operator: how it is compiled, and the keys it takes besides ``op``, ``not`` and ``case sensitive``."""

    build: Callable[[Condition], Test]
    """Returns the test without regard to ``not``. Raises `RuleError`."""
    required: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()


def _any(values: Resolver, holds: Holds) -> Test:
    def test(doc: Any, budget: Budget) -> bool:
        for value in values(doc, budget):  # noqa: SIM110 - any() with a generator takes twice as long
            if holds(value):
                return True
        return False

    return test


def _and(condition: Condition) -> Test:
    """All of ``rules`` hold; those after the first that does not are not looked at."""
    tests = condition.rules()

    def test(doc: Any, budget: Budget) -> bool:
        for each in tests:  # noqa: SIM110 - all() with a generator takes twice as long
            if not each(doc, budget):
                return False
        return True

    return test


def _or(condition: Condition) -> Test:
    """One of ``rules`` holds; those after the first that does are not looked at."""
    tests = condition.rules()

    def test(doc: Any, budget: Budget) -> bool:
        for each in tests:  # noqa: SIM110 - any() with a generator takes twice as long
            if each(doc, budget):
                return True
        return False

    return test


def _is(condition: Condition) -> Test:
    """Equal, loosely.

    Two texts are compared as texts (``'1.0'`` is not ``'1'``). Where one side is a number, the other is one too or a text that
    reads as one: ``4625``, ``'4625'`` and ``'0x1211'`` are all the number 4625, ``'04625'`` is not. A boolean equals itself and the
    text ``true`` or ``false``, never a number. Null, objects and lists (other than by their elements) equal nothing.
    """
    value = condition.scalar("value")
    exact = condition.flag("case sensitive", default=True)
    text = text_of(value) or ""
    if not exact:
        text = text.lower()
    number = number_of(value)
    reads_numbers = number is not None and not isinstance(value, str)

    def holds(found: Any) -> bool:
        kind = found.__class__
        if kind is str:
            if (found if exact else found.lower()) == text:
                return True
            return reads_numbers and number_of(found) == number
        if kind is bool:
            return text == ("true" if found else "false")
        return (kind is int or kind is float) and found == number

    return _any(condition.path(), holds)


def _exists(condition: Condition) -> Test:
    """Something is at the path, be it null or empty; with ``truthy: true``, something other than null and the empty text.

    With ``truthy`` a list counts by its elements.
    """
    if condition.flag("truthy", default=False):
        return _any(condition.path(), lambda found: found is not None and found != "")
    return _any(condition.path(elements=False), lambda _: True)


def _textual(compare: Callable[[str, str], bool]) -> Callable[[Condition], Test]:
    def build(condition: Condition) -> Test:
        return _compared(condition, compare)

    return build


def _contains(condition: Condition) -> Test:
    """The text occurs in the value, at least ``count`` times (default 1) without overlapping."""
    count = condition.count("count")
    if count == 1:
        return _compared(condition, operator.contains)
    return _compared(condition, lambda found, part: found.count(part) >= count)


def _compared(condition: Condition, compare: Callable[[str, str], bool]) -> Test:
    """Compare the value's text (`text_of`) with that of the rule's ``value``."""
    part = text_of(condition.scalar("value"))
    if not part:
        raise condition.wrong("value", "must not be empty, as that would hold for every text.")
    if condition.flag("case sensitive", default=True):

        def holds(found: Any) -> bool:
            text = text_of(found)
            return text is not None and compare(text, part)
    else:
        folded = part.lower()

        def holds(found: Any) -> bool:
            text = text_of(found)
            return text is not None and compare(text.lower(), folded)

    return _any(condition.path(), holds)


def _matches(condition: Condition) -> Test:
    """The regular expression ``re`` (RE2's syntax) is found anywhere in the value's text; upper and lower case are the same."""
    options = re2.Options()
    options.case_sensitive = condition.flag("case sensitive", default=False)
    options.log_errors = False
    options.never_capture = True
    try:
        pattern = re2.compile(condition.text("re"), options)
    except re2.error as error:
        reason = error.args[0].decode(errors="replace") if isinstance(error.args[0], bytes) else str(error)
        raise condition.wrong("re", f"not a regular expression of RE2: {reason}.") from None
    except UnicodeEncodeError:
        raise condition.wrong("re", "holds a character that is not valid Unicode.") from None
    if pattern.programsize > MAX_PROGRAM:
        raise condition.wrong("re", "the regular expression is too large.", "Use smaller repetition counts.")
    search = pattern.search
    longest = MAX_SEARCH // pattern.programsize

    def holds(found: Any) -> bool:
        text = text_of(found)
        if text is None:
            return False
        # bytes spare the library from translating the position of what it found
        encoded = text.encode(errors="replace")
        if len(encoded) > longest:
            raise TooComplex(f"a text of {len(encoded)} bytes is too long for the pattern; {longest} are allowed")
        return search(encoded) is not None

    return _any(condition.path(), holds)


def _numeric(compare: Callable[[Any, Any], bool]) -> Callable[[Condition], Test]:
    """Compare the value's number (`number_of`), or with ``length of: true`` its length (`length_of`), with ``value``."""

    def build(condition: Condition) -> Test:
        limit = condition.number("value")
        of_length = condition.flag("length of", default=False)
        read = length_of if of_length else number_of

        def holds(found: Any) -> bool:
            number = read(found)
            return number is not None and compare(number, limit)

        return _any(condition.path(elements=not of_length), holds)

    return build


OPERATORS: dict[str, Operator] = {
    "and": Operator(_and, ("rules",)),
    "or": Operator(_or, ("rules",)),
    "is": Operator(_is, ("path", "value")),
    "exists": Operator(_exists, ("path",), ("truthy",)),
    "contains": Operator(_contains, ("path", "value"), ("count",)),
    "starts with": Operator(_textual(str.startswith), ("path", "value")),
    "ends with": Operator(_textual(str.endswith), ("path", "value")),
    "matches": Operator(_matches, ("path", "re")),
    "is greater than": Operator(_numeric(operator.gt), ("path", "value"), ("length of",)),
    "is lower than": Operator(_numeric(operator.lt), ("path", "value"), ("length of",)),
}
"""Name → operator."""
