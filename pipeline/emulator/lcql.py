"""The part of LCQL that the emulator runs: ``timeframe | sensors | event types | filter [| projection]``.

The filter knows ``path op value`` with ``is ==``, ``is not !=``, ``contains``, ``starts with``, ``ends with``, ``matches``,
``is greater than >``, ``is lower than <``, ``exists``, their ``not`` forms, ``and``, ``or``, ``not`` and parentheses; the
projection knows columns, ``as`` and ``LIMIT``. A query that asks for more is refused, as the cloud refuses what it cannot transcode.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.emulator.comparisons import SelectorError
from pipeline.emulator.selector import Holds, compile_selector
from pipeline.rules.compile import compile_rule
from pipeline.rules.condition import RuleError
from pipeline.rules.paths import TooComplex, compile_path, new_budget

MAX_LENGTH = 64 << 10
MAX_DEPTH = 32

_TIME = re.compile(r"\s*-?(?:\d+[hms])+\b.*|\s*\d{4}-\d{2}-\d{2}.*", re.DOTALL)
_SIDS = re.compile(
    r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}(?:\s+[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})*", re.IGNORECASE
)
_TOKEN = re.compile(
    r"""\s*(?:(?P<text>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|`[^`]*`)|(?P<sign>[()]|==|!=|>=|<=|[<>])|(?P<word>[^\s()<>=!"'`]+))"""
)
_QUOTED = re.compile(r"""[^|"'`]+|"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|`[^`]*`|.""", re.DOTALL)
_COLUMN = re.compile(r"(?P<path>[^\s()]+)(?:\s+as\s+(?P<alias>[^\s()]+))?", re.IGNORECASE)
_LIMIT = re.compile(r"LIMIT\s+(\d{1,9})", re.IGNORECASE)

# Those with more words first.
_OPS: tuple[tuple[tuple[str, ...], str, str, bool], ...] = (
    (("is", "greater", "than"), "is greater than", "value", False),
    (("is", "lower", "than"), "is lower than", "value", False),
    (("does", "not", "contain"), "contains", "value", True),
    (("not", "starts", "with"), "starts with", "value", True),
    (("not", "ends", "with"), "ends with", "value", True),
    (("starts", "with"), "starts with", "value", False),
    (("ends", "with"), "ends with", "value", False),
    (("not", "contains"), "contains", "value", True),
    (("not", "matches"), "matches", "re", True),
    (("not", "exists"), "exists", "", True),
    (("is", "not"), "is", "value", True),
    (("contains",), "contains", "value", False),
    (("matches",), "matches", "re", False),
    (("exists",), "exists", "", False),
    (("is",), "is", "value", False),
    (("==",), "is", "value", False),
    (("!=",), "is", "value", True),
    ((">",), "is greater than", "value", False),
    (("<",), "is lower than", "value", False),
)
"""The words, the rule operator, the key of its value, and whether it is negated."""


class QueryError(ValueError):
    """The text is no query that can be run."""


@dataclass(frozen=True)
class Query:
    """A query that was understood."""

    sensor: Holds | None
    """Test of a sensor's fields; None takes all, and records without a sensor."""
    sids: frozenset[str]
    """Sensors by name; empty without."""
    types: frozenset[str]
    """Event types; empty for all."""
    rule: Mapping[str, Any]
    holds: Callable[[Any], bool]
    columns: tuple[tuple[str, Callable[[Any], Any]], ...]
    """Name and getter of each column; none for whole records."""
    limit: int | None

    def row(self, doc: Any) -> Any:
        return {name: get(doc) for name, get in self.columns} if self.columns else doc


def parse_query(text: str) -> Query:
    """Understand a query; raises `QueryError`."""
    if len(text) > MAX_LENGTH:
        raise QueryError(f"more than {MAX_LENGTH} characters")
    parts = _parts(text)
    if _TIME.fullmatch(parts[0]) and len(parts) > 1:
        # callers give a time of their own, which counts
        parts = parts[1:]
    if not 3 <= len(parts) <= 4:
        raise QueryError("expected: timeframe | sensors | event types | filter [| projection]")
    sensors, types, condition, *projection = parts
    rule = _Filter(condition).all()
    columns, limit = _projection(projection[0]) if projection else ((), None)
    try:
        sids = frozenset(sensors.lower().split()) if _SIDS.fullmatch(sensors) else frozenset()
        sensor = None if sids or sensors in ("", "*") else compile_selector(sensors)
        holds = compile_rule(rule)
    except (SelectorError, RuleError) as error:
        raise QueryError(str(error)) from None
    wanted = frozenset() if types in ("", "*") else frozenset(types.split())
    return Query(sensor, sids, wanted, rule, _certain(holds), columns, limit)


def _parts(text: str) -> list[str]:
    """Split at the pipes that are not in quotes."""
    parts = [""]
    for piece in _QUOTED.findall(text):
        if piece == "|":
            parts.append("")
        else:
            parts[-1] += piece
    return [part.strip() for part in parts]


def _certain(holds: Callable[[Any], bool]) -> Callable[[Any], bool]:
    def certain(doc: Any) -> bool:
        try:
            return holds(doc)
        except TooComplex:
            return False

    return certain


class _Filter:
    def __init__(self, text: str) -> None:
        self._tokens: list[tuple[str, bool]] = []
        """Each with whether it is a text in quotes, which keep theirs."""
        at = 0
        while text[at:].strip():
            found = _TOKEN.match(text, at)
            if not found:
                raise QueryError(f"unexpected {text[at:].strip()[:40]!r}")
            at = found.end()
            self._tokens.append((found[0].strip(), found["text"] is not None))
        self._at = 0
        self._depth = 0

    def all(self) -> dict[str, Any]:
        if self._tokens == [("*", False)]:
            return {"op": "exists", "path": "/"}
        if not self._tokens:
            raise QueryError("the filter is missing; `/ exists` takes all")
        rule = self._or()
        if self._at < len(self._tokens):
            raise QueryError(f"unexpected {self._tokens[self._at][0][:40]!r}")
        return rule

    def _or(self) -> dict[str, Any]:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise QueryError(f"more than {MAX_DEPTH} levels")
        rules = [self._and()]
        while self._take("or"):
            rules.append(self._and())
        self._depth -= 1
        return rules[0] if len(rules) == 1 else {"op": "or", "rules": rules}

    def _and(self) -> dict[str, Any]:
        rules = [self._not()]
        while self._take("and"):
            rules.append(self._not())
        return rules[0] if len(rules) == 1 else {"op": "and", "rules": rules}

    def _not(self) -> dict[str, Any]:
        if self._take("not"):
            rule = self._not()
            return {**rule, "not": not rule.get("not", False)}
        if self._take("("):
            rule = self._or()
            if not self._take(")"):
                raise QueryError("missing )")
            return rule
        return self._comparison()

    def _comparison(self) -> dict[str, Any]:
        path = self._next("a path")[0]
        for words, op, key, negated in _OPS:
            if all(self._word(index) == word for index, word in enumerate(words)):
                self._at += len(words)
                rule: dict[str, Any] = {"op": op, "path": path}
                if key:
                    rule |= self._value(op, key)
                return {**rule, "not": True} if negated else rule
        raise QueryError(f"{self._word(0) or 'nothing'!r} is no operator that is supported here")

    def _value(self, op: str, key: str) -> dict[str, Any]:
        """A text in double quotes is compared in any case, one in single quotes in its own."""
        text, quoted = self._next("a value")
        if not quoted:
            return {key: text}
        inside = text[1:-1] if text[0] == "`" else re.sub(r"\\(.)", r"\1", text[1:-1])
        cased = {} if op in ("is greater than", "is lower than") else {"case sensitive": text[0] != '"'}
        return {key: inside, **cased}

    def _next(self, what: str) -> tuple[str, bool]:
        if self._at >= len(self._tokens):
            raise QueryError(f"expected {what} at the end of the filter")
        self._at += 1
        return self._tokens[self._at - 1]

    def _word(self, ahead: int) -> str:
        at = self._at + ahead
        return self._tokens[at][0].lower() if at < len(self._tokens) and not self._tokens[at][1] else ""

    def _take(self, word: str) -> bool:
        if self._word(0) != word:
            return False
        self._at += 1
        return True


def _projection(text: str) -> tuple[tuple[tuple[str, Callable[[Any], Any]], ...], int | None]:
    found = _LIMIT.search(text)
    limit = int(found[1]) if found else None
    rest = _LIMIT.sub("", text).strip()
    columns = []
    at = 0
    while at < len(rest):
        column = _COLUMN.match(rest, at)
        if not column or rest[column.end() :].lstrip().startswith("("):
            raise QueryError(f"the projection {rest[at:][:40]!r} is not supported here")
        columns.append((column["alias"] or column["path"], _getter(column["path"])))
        at = column.end() + len(rest[column.end() :]) - len(rest[column.end() :].lstrip())
    return tuple(columns), limit


def _getter(path: str) -> Callable[[Any], Any]:
    """Return what is at a path: nothing, one value, or a list of them."""
    try:
        resolve = compile_path(path)
    except ValueError as error:
        raise QueryError(str(error)) from None

    def get(doc: Any) -> Any:
        values = list(resolve(doc, new_budget()))
        return values if len(values) > 1 else values[0] if values else None

    return get
