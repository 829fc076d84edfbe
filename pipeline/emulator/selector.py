"""Sensor selectors: the expression language of go-bexpr, with what LimaCharlie adds to it.

``plat == windows and (prod in tags or hostname matches `^web`)``. LimaCharlie adds ``*`` for all and texts in single quotes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from pipeline.emulator.comparisons import NUMBER, OPERATORS, SelectorError, contains, raise_wrong
from pipeline.emulator.roster import FIELDS

MAX_LENGTH = 8192
MAX_DEPTH = 64

Values = Mapping[str, Any]
Holds = Callable[[Values], bool]
"""Whether a sensor's fields satisfy a selector; raises `SelectorError` for a comparison that its types forbid."""
Get = Callable[[Values], Any]

_SPACE = re.compile(r"[ \t\r\n]*")
_IDENT = re.compile(r"[a-zA-Z][a-zA-Z0-9_/]*")
_INDEX = re.compile(r"[0-9]+")
_QUOTED = re.compile(r"\"(?:[^\"\\]|\\.)*\"|`[^`]*`|'[^']*'")


def compile_selector(text: str) -> Holds:
    """Return the test for a selector; an empty one and ``*`` take all. Raises `SelectorError`."""
    text = text.strip()
    if text in ("", "*"):
        return lambda _: True
    if len(text) > MAX_LENGTH:
        raise SelectorError(f"a selector has at most {MAX_LENGTH} characters")
    return _Parser(text).all()


class _Parser:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._depth = 0
        self._bound: list[str] = []

    def all(self) -> Holds:
        holds = self._or()
        self._space()
        if self._at < len(self._text):
            raise self._wrong("unexpected text")
        return holds

    def _or(self) -> Holds:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise SelectorError(f"a selector is at most {MAX_DEPTH} levels deep")
        left = self._and()
        if self._word("or"):
            right = self._or()
            self._depth -= 1
            return lambda values: left(values) or right(values)
        self._depth -= 1
        return left

    def _and(self) -> Holds:
        left = self._not()
        if self._word("and"):
            right = self._and()
            return lambda values: left(values) and right(values)
        return left

    def _not(self) -> Holds:
        if self._word("not"):
            holds = self._not()
            return lambda values: not holds(values)
        if self._sign("("):
            holds = self._or()
            if not self._sign(")"):
                raise self._wrong("missing )")
            return holds
        return self._collection() or self._match()

    def _collection(self) -> Holds | None:
        start = self._at
        every = self._word("all")
        get = self._selector() if every or self._word("any") else None
        if get is not None and self._word("as"):
            elements = get
            names = [self._need_ident()]
            if self._sign(","):
                names.append(self._need_ident())
            if not self._sign("{"):
                raise self._wrong("missing {")
            # with two names the first is the index
            index, element = names if len(names) > 1 else ("_", names[0])
            self._bound += names
            holds = self._or()
            del self._bound[-len(names) :]
            if not self._sign("}"):
                raise self._wrong("missing }")
            fold = all if every else any
            return lambda values: fold(
                holds({**values, index: number, element: each})
                for number, each in enumerate(_elements(elements(values)))
            )
        self._at = start
        return None

    def _match(self) -> Holds:
        start = self._at
        left = self._selector()
        if left is not None:
            for words, build in OPERATORS:
                if self._sign(words) if words in ("==", "!=") else self._words(words):
                    compare = build() if words.startswith("is ") else build(self._value())
                    return lambda values: compare(left(values))
        self._at = start
        value = self._value()
        negated = self._words("not in")
        if not negated and not self._word("in"):
            raise self._wrong("expected an operator")
        field = self._selector()
        if field is None:
            raise self._wrong("expected a field")
        holds = contains(value)
        return lambda values: holds(field(values)) != negated

    def _selector(self) -> Get | None:
        start = self._at
        self._space()
        if self._text.startswith('"/', self._at):
            quoted = _QUOTED.match(self._text, self._at)
            steps = quoted[0][2:-1].split("/") if quoted else []
            self._at = quoted.end() if quoted else self._at
        elif name := self._take(_IDENT):
            steps = [name]
            while step := self._step():
                steps.append(step)
        else:
            self._at = start
            return None
        if steps[0] not in self._bound and steps[0] not in FIELDS:
            # it may be the value of `value in field`, which is looked at next
            return lambda _: raise_wrong(f"unknown field {steps[0]}")
        return lambda values: _at(values, steps)

    def _step(self) -> str | None:
        start = self._at
        if self._text.startswith(".", self._at):
            self._at += 1
            if step := self._take(_IDENT) or self._take(_INDEX):
                return step
        elif self._text.startswith("[", self._at):
            self._at += 1
            if (quoted := self._take(_QUOTED)) and self._sign("]"):
                return _unquoted(quoted)
        self._at = start
        return None

    def _value(self) -> str:
        self._space()
        if quoted := self._take(_QUOTED):
            return _unquoted(quoted)
        if number := self._take(NUMBER):
            return number
        if word := self._take(_IDENT):
            while step := self._step():
                word += f".{step}"
            return word
        raise self._wrong("expected a value (one that is no plain word or number must be in quotes)")

    def _take(self, pattern: re.Pattern[str]) -> str:
        found = pattern.match(self._text, self._at)
        if not found:
            return ""
        self._at = found.end()
        return found[0]

    def _need_ident(self) -> str:
        self._space()
        if self._sign("_"):
            return "_"
        name = self._take(_IDENT)
        if not name:
            raise self._wrong("expected a name")
        return name

    def _words(self, words: str) -> bool:
        start = self._at
        if all(self._word(word) for word in words.split()):
            return True
        self._at = start
        return False

    def _word(self, word: str) -> bool:
        start = self._at
        self._space()
        if self._take(_IDENT) == word:
            return True
        self._at = start
        return False

    def _sign(self, sign: str) -> bool:
        start = self._at
        self._space()
        if self._text.startswith(sign, self._at):
            self._at += len(sign)
            return True
        self._at = start
        return False

    def _space(self) -> None:
        found = _SPACE.match(self._text, self._at)
        assert found is not None
        self._at = found.end()

    def _wrong(self, what: str) -> SelectorError:
        return SelectorError(f"invalid selector: {what} at character {self._at + 1}: {self._text[self._at :][:40]!r}")


def _unquoted(text: str) -> str:
    inside = text[1:-1]
    return re.sub(r"\\(.)", r"\1", inside) if text[0] == '"' else inside


def _at(values: Values, steps: list[str]) -> Any:
    value: Any = values
    for step in steps:
        if isinstance(value, Mapping) and step in value:
            value = value[step]
        elif isinstance(value, list) and step.isdecimal() and int(step) < len(value):
            value = value[int(step)]
        else:
            raise_wrong(f"no such field: {'.'.join(steps)}")
    return value


def _elements(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise_wrong("any and all need a list")
    return list(value)
