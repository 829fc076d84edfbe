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

from pipeline.rules.condition import Condition
from pipeline.rules.paths import TooComplex
from pipeline.rules.tree import Group, Leaf, anything
from pipeline.rules.values import length_of, number_of, text_of

MAX_PROGRAM = 20_000
"""Instructions in a compiled regular expression at most."""
MAX_SEARCH = 500_000_000
"""Instructions times bytes of text in one search at most: two seconds where a text was made to defeat the pattern, else far less."""

_REMEMBERED, _SHORT = 256, 64
"""Texts whose verdict a regular expression remembers, and their characters at most: most fields hold few different ones."""


@dataclass(frozen=True, slots=True)
class Operator:
    """One operator: how it is compiled, and the keys it takes besides ``op``, ``not`` and ``case sensitive``."""

    read: Callable[[Condition], Leaf | Group]
    """Returns the condition without regard to ``not``. Raises `RuleError`."""
    required: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()


def _and(condition: Condition) -> Group:
    """All of ``rules`` hold; those after the first that does not are not looked at."""
    return Group(every=True, rules=condition.rules())


def _or(condition: Condition) -> Group:
    """One of ``rules`` holds; those after the first that does are not looked at."""
    return Group(every=False, rules=condition.rules())


def _is(condition: Condition) -> Leaf:
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

    same = "" if reads_numbers else "found == wanted" if exact else "found.lower() == wanted"
    return Leaf(condition.path(), holds, text=same, wanted=text)


def _exists(condition: Condition) -> Leaf:
    """Something is at the path, be it null or empty; with ``truthy: true``, something other than null and the empty text.

    With ``truthy`` a list counts by its elements.
    """
    if condition.flag("truthy", default=False):
        return Leaf(condition.path(), lambda found: found is not None and found != "")
    return Leaf(condition.path(), anything, elements=False)


def _textual(compare: Callable[[str, str], bool], text: str) -> Callable[[Condition], Leaf]:
    def read(condition: Condition) -> Leaf:
        return _compared(condition, compare, text)

    return read


def _contains(condition: Condition) -> Leaf:
    """The text occurs in the value, at least ``count`` times (default 1) without overlapping."""
    count = condition.count("count")
    if count == 1:
        return _compared(condition, operator.contains, "wanted in {found}")
    return _compared(condition, lambda found, part: found.count(part) >= count, "")


def _compared(condition: Condition, compare: Callable[[str, str], bool], text: str) -> Leaf:
    """Compare the value's text (`text_of`) with that of the rule's ``value``; ``text`` is how, for `Leaf.text`."""
    part = text_of(condition.scalar("value"))
    if not part:
        raise condition.wrong("value", "must not be empty, as that would hold for every text.")
    if condition.flag("case sensitive", default=True):

        def holds(found: Any) -> bool:
            text = text_of(found)
            return text is not None and compare(text, part)

        return Leaf(condition.path(), holds, text=text.format(found="found"), wanted=part)
    folded = part.lower()

    def holds_folded(found: Any) -> bool:
        text = text_of(found)
        return text is not None and compare(text.lower(), folded)

    return Leaf(condition.path(), holds_folded, text=text.format(found="found.lower()"), wanted=folded)


def _matches(condition: Condition) -> Leaf:
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

    known: dict[str, bool] = {}

    def holds(found: Any) -> bool:
        text = text_of(found)
        if text is None:
            return False
        verdict = known.get(text)
        if verdict is not None:
            return verdict
        # bytes spare the library from translating the position of what it found
        encoded = text.encode(errors="replace")
        if len(encoded) > longest:
            raise TooComplex(f"a text of {len(encoded)} bytes is too long for the pattern; {longest} are allowed")
        verdict = search(encoded) is not None
        if len(text) <= _SHORT:
            if len(known) >= _REMEMBERED:
                known.clear()
            known[text] = verdict
        return verdict

    return Leaf(condition.path(), holds)


def _numeric(compare: Callable[[Any, Any], bool]) -> Callable[[Condition], Leaf]:
    """Compare the value's number (`number_of`), or with ``length of: true`` its length (`length_of`), with ``value``."""

    def read(condition: Condition) -> Leaf:
        limit = condition.number("value")
        of_length = condition.flag("length of", default=False)
        measure = length_of if of_length else number_of

        def holds(found: Any) -> bool:
            number = measure(found)
            return number is not None and compare(number, limit)

        return Leaf(condition.path(), holds, elements=not of_length)

    return read


OPERATORS: dict[str, Operator] = {
    "and": Operator(_and, ("rules",)),
    "or": Operator(_or, ("rules",)),
    "is": Operator(_is, ("path", "value")),
    "exists": Operator(_exists, ("path",), ("truthy",)),
    "contains": Operator(_contains, ("path", "value"), ("count",)),
    "starts with": Operator(_textual(str.startswith, "{found}.startswith(wanted)"), ("path", "value")),
    "ends with": Operator(_textual(str.endswith, "{found}.endswith(wanted)"), ("path", "value")),
    "matches": Operator(_matches, ("path", "re")),
    "is greater than": Operator(_numeric(operator.gt), ("path", "value"), ("length of",)),
    "is lower than": Operator(_numeric(operator.lt), ("path", "value"), ("length of",)),
}
"""Name → operator."""
