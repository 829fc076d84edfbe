"""Reads one condition of a rule strictly, and says exactly where a mistake is."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from pipeline.core.errors import ConfigError
from pipeline.rules.paths import parse_path
from pipeline.rules.tree import Node
from pipeline.rules.values import Scalar, number_of

Location = tuple[str | int, ...]
"""Keys and indexes from the rule's root."""


class RuleError(ConfigError):
    """A rule is wrong. ``where`` is the path inside the rule, like ``rules[1].value``, and ``location`` the same as a tuple.

    When several mistakes were found, ``problems`` holds one `RuleError` each.
    """

    def __init__(
        self, what: str, location: Location = (), *, fix: str = "", problems: tuple[RuleError, ...] = ()
    ) -> None:
        where = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in location).removeprefix(".")
        super().__init__(what, where=where, fix=fix, problems=problems)
        self.location = location

    @classmethod
    def joined(cls, mistakes: Sequence[RuleError]) -> RuleError:
        """Return one error for all of these (at least one)."""
        if len(mistakes) == 1:
            return mistakes[0]
        text = "; ".join(map(str, mistakes))
        return cls(f"{len(mistakes)} mistakes: {text}", problems=tuple(mistakes))

    @property
    def mistakes(self) -> tuple[RuleError, ...]:
        """The single mistakes: ``problems``, or this one."""
        return tuple(problem for problem in self.problems if isinstance(problem, RuleError)) or (self,)


class Condition:
    """One condition as written: a mapping, and its place in the rule."""

    def __init__(
        self, keys: Mapping[str, Any], location: Location, read_rules: Callable[[Any, Location], tuple[Node, ...]]
    ) -> None:
        self._keys = keys
        self._location = location
        self._read_rules = read_rules

    def wrong(self, key: str, what: str, fix: str = "") -> RuleError:
        """Return the error for the value of ``key``."""
        return RuleError(what, (*self._location, key), fix=fix)

    def expect(self, required: Iterable[str], optional: Iterable[str]) -> None:
        """Check that these keys are there, and at most these. Raises `RuleError`."""
        known = [*required, *optional]
        for key in self._keys:
            if key not in known:
                raise self.wrong(str(key), f"{key!r} is not known here.", suggestion(key, known))
        for key in required:
            if self._keys.get(key) is None:
                raise self.wrong(key, f"{key!r} is missing.")

    def flag(self, key: str, *, default: bool) -> bool:
        """Return a boolean. Raises `RuleError`."""
        value = self._keys.get(key, default)
        if not isinstance(value, bool):
            raise self.wrong(key, f"must be true or false, not {kind_of(value)}.")
        return value

    def count(self, key: str) -> int:
        """Return a whole number of at least 1, which is also the default. Raises `RuleError`."""
        value = self._keys.get(key, 1)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise self.wrong(key, "must be a whole number of at least 1.")
        return value

    def text(self, key: str) -> str:
        """Return a text that is not empty. Raises `RuleError`."""
        value = self._keys[key]
        if value == "":
            raise self.wrong(key, "must not be empty.")
        if not isinstance(value, str):
            raise self.wrong(key, f"must be a text, not {kind_of(value)}.")
        return value

    def scalar(self, key: str) -> Scalar:
        """Return a text, number or boolean to compare with. Raises `RuleError`."""
        value = self._keys[key]
        if not isinstance(value, str | int | float):
            fix = "To allow several values, use `op: or`." if isinstance(value, list) else ""
            raise self.wrong(key, f"must be a text, a number, true or false, not {kind_of(value)}.", fix)
        if isinstance(value, str) and (value[:2], value[-2:]) in (("<<", ">>"), ("[[", "]]")):
            # taken as plain text it would silently never hold
            raise self.wrong(key, "look-back values `<<path>>` and sensor variables `[[name]]` are not supported.")
        return value

    def number(self, key: str) -> int | float:
        """Return a number, which may be written as text. Raises `RuleError`."""
        number = number_of(self.scalar(key))
        if number is None:
            raise self.wrong(key, "must be a number.")
        return number

    def event_types(self) -> frozenset[str] | None:
        """Return the types of ``event`` or ``events``, None where neither is given. Raises `RuleError`."""
        if self._keys.get("event") is not None and self._keys.get("events") is not None:
            raise self.wrong("events", "'event' and 'events' exclude each other.", "Put all types into `events`.")
        if self._keys.get("event") is not None:
            return frozenset((self.text("event"),))
        names = self._keys.get("events")
        if names is None:
            return None
        if not isinstance(names, list) or not names or not all(isinstance(name, str) and name for name in names):
            raise self.wrong("events", "must be a list of types, at least one.")
        return frozenset(names)

    def path(self, key: str = "path") -> str:
        """Return a path (`compile_path`). Raises `RuleError`."""
        text = self.text(key)
        try:
            parse_path(text)
        except ValueError as error:
            raise self.wrong(key, f"{error}.") from None
        return text

    def rules(self) -> tuple[Node, ...]:
        """Return the conditions under ``rules``. Raises `RuleError`, with all their mistakes."""
        return self._read_rules(self._keys["rules"], (*self._location, "rules"))


def suggestion(word: object, known: Iterable[str]) -> str:
    """Return a sentence that helps whoever misspelt one of the known words."""
    names = list(known)
    close = difflib.get_close_matches(str(word), names, n=1, cutoff=0.5)
    return f"Did you mean {close[0]!r}?" if close else f"There are {', '.join(map(repr, names))}."


def kind_of(value: object) -> str:
    """Name the sort of a value as YAML and JSON call it, without showing the value."""
    names = {str: "a text", bool: "a boolean", int: "a number", float: "a number", list: "a list", dict: "an object"}
    return "nothing" if value is None else names.get(type(value), "something else")
