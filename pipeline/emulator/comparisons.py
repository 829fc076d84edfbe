"""How a selector compares a sensor's field with a value."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

import re2

Compare = Callable[[Any], bool]
"""Decides about a field's value; raises `SelectorError` for one of a type that cannot be compared so."""

NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?=[ \t\r\n)]|$)")


class SelectorError(ValueError):
    """The text is no selector, or asks what cannot be asked."""


def raise_wrong(text: str) -> NoReturn:
    """Raise in the place of a value."""
    raise SelectorError(f"invalid selector: {text}")


def equals(value: str) -> Compare:
    def compare(found: Any) -> bool:
        if isinstance(found, bool):
            if value.lower() not in ("true", "false", "1", "0", "t", "f"):
                raise_wrong(f"{value[:40]!r} is not true or false")
            return found == (value.lower() in ("true", "1", "t"))
        if isinstance(found, int | float):
            if not NUMBER.fullmatch(value):
                raise_wrong(f"{value[:40]!r} is not a number")
            return found == float(value)
        if not isinstance(found, str):
            raise_wrong("a list cannot be compared with ==")
        return bool(found == value)

    return compare


def contains(value: str) -> Compare:
    def compare(found: Any) -> bool:
        if not isinstance(found, str | list | Mapping):
            raise_wrong("in and contains need a list or a text")
        return value in found

    return compare


def _matches(value: str) -> Compare:
    options = re2.Options()
    options.log_errors = False
    try:
        search = re2.compile(value, options).search
    except re2.error:
        raise SelectorError(f"invalid selector: {value[:80]!r} is not a regular expression") from None

    def compare(found: Any) -> bool:
        if not isinstance(found, str):
            raise_wrong("matches needs a text")
        return search(found) is not None

    return compare


def _empty() -> Compare:
    return lambda found: (
        not found if isinstance(found, str | list | Mapping) else raise_wrong("is empty needs a list or a text")
    )


def _nil() -> Compare:
    return lambda found: found is None


def _negated(build: Callable[..., Compare]) -> Callable[..., Compare]:
    def negated(*value: str) -> Compare:
        compare = build(*value)
        return lambda found: not compare(found)

    return negated


OPERATORS: tuple[tuple[str, Callable[..., Compare]], ...] = (
    ("==", equals),
    ("!=", _negated(equals)),
    ("not contains", _negated(contains)),
    ("contains", contains),
    ("not matches", _negated(_matches)),
    ("matches", _matches),
    ("is not empty", _negated(_empty)),
    ("is empty", _empty),
    ("is not nil", _negated(_nil)),
    ("is nil", _nil),
)
"""Those with a word more come first. Each builds a comparison from its value, if it has one."""
