"""Commands and selectors with places that a record fills, in which no record can say more than one value."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from pipeline.core.types import RecordPath
from pipeline.limacharlie import selector as selectors

MAX_VALUE = 4096
"""Characters of one value at most."""
_PLAIN = re.compile(r"[A-Za-z0-9._:/@%+=][A-Za-z0-9._:/@%+=-]*")
"""A word that needs no quotes."""
_STRICT = re.compile(r"[A-Za-z0-9._:/@][A-Za-z0-9._:/@-]{0,255}")
"""What a value may be where its surroundings would read anything else as their own language."""
_SHELLS = frozenset({"run"})
"""Commands whose arguments a shell or a program on the endpoint reads once more."""


class UnfitError(ValueError):
    """A record cannot fill the template; ``reason`` is ``missing_value`` or ``unsafe_value``."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True, slots=True)
class _Piece:
    """Literal text as it is written, or the place of a value."""

    text: str
    path: RecordPath | None
    quote: str
    """The quotation mark that it stands between, or ""."""


class _Template:
    quotes: ClassVar[str]
    escapes: ClassVar[bool]
    """Whether a backslash between double quotes escapes."""

    def __init__(self, text: str) -> None:
        """Raises ValueError for a brace or a quote that is left open, and for a bad path."""
        self.text = text
        self._words = list(self._read(text))

    @property
    def paths(self) -> frozenset[RecordPath]:
        """What it takes from a record."""
        return frozenset(piece.path for word in self._words for piece in word if piece.path is not None)

    def _read(self, text: str) -> Iterator[list[_Piece]]:
        """Words of pieces; spaces outside of quotes are between words."""
        word: list[_Piece] = []
        literal, quote, at = "", "", 0
        while at < len(text):
            char = text[at]
            if text[at : at + 2] in ("{{", "}}"):
                literal += char
                at += 2
                continue
            if char == "{":
                end = text.find("}", at)
                if end < 0:
                    raise ValueError("a brace is left open; for a brace itself write it twice")
                if literal:
                    word.append(_Piece(literal, None, quote))
                    literal = ""
                word.append(_Piece("", RecordPath(text[at + 1 : end].strip()), quote))
                at = end + 1
                continue
            if char == "}":
                raise ValueError("a brace is closed that was not opened; for a brace itself write it twice")
            if not quote and char.isspace():
                if literal:
                    word.append(_Piece(literal, None, ""))
                if word:
                    yield word
                word, literal = [], ""
                at += 1
                continue
            if self.escapes and quote == '"' and text[at : at + 2] in ('\\"', "\\\\"):
                literal += text[at : at + 2]
                at += 2
                continue
            if char == quote or (not quote and char in self.quotes):
                # The mark itself belongs to the text between the marks, so that a word with quotes is known by its pieces.
                if not quote and literal:
                    word.append(_Piece(literal, None, ""))
                    literal = ""
                literal += char
                if quote:
                    word.append(_Piece(literal, None, quote))
                    literal = ""
                quote = "" if quote else char
                at += 1
                continue
            literal += char
            at += 1
        if quote:
            raise ValueError("a quote is left open")
        if literal:
            word.append(_Piece(literal, None, ""))
        if word:
            yield word

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.text!r})"

    @classmethod
    def _parse(cls, value: Any) -> Self:
        return value if isinstance(value, cls) else cls(str(value))

    @classmethod
    def __get_pydantic_core_schema__(cls, _source: Any, _handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(
            cls._parse, serialization=core_schema.plain_serializer_function_ser_schema(str)
        )

    @classmethod
    def __get_pydantic_json_schema__(cls, _schema: CoreSchema, _handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {"type": "string"}


class CommandTemplate(_Template):
    """``file_get {event/FILE_PATH}``: a command to a sensor. ``{{`` is a brace.

    A word with a place becomes one word of the command whatever the value is, and never an option. Between quotes of the template's
    own, and in the arguments of ``run``, which the endpoint reads once more, a value may only be letters, digits and ``._:/@-``.
    """

    quotes = "'\""
    escapes = True

    def __init__(self, text: str) -> None:
        super().__init__(text)
        if not self._words:
            raise ValueError("there is no command")
        if any(piece.path is not None for piece in self._words[0]):
            raise ValueError("the command's name is written out, so that no record can choose it")
        self.name = "".join(piece.text for piece in self._words[0])

    def render(self, doc: Mapping[str, Any]) -> str:
        """The command for a record. Raises `UnfitError`."""
        return " ".join(self._word(word, lambda path: _value(path, doc)) for word in self._words)

    def example(self) -> str:
        """The command as it is for some record, to check its form."""
        return " ".join(self._word(word, lambda _: "1") for word in self._words)

    def _word(self, pieces: list[_Piece], value: Callable[[RecordPath], str]) -> str:
        if all(piece.path is None for piece in pieces):
            return "".join(piece.text for piece in pieces)
        if self.name in _SHELLS or any(piece.quote or _has_quote(piece.text) for piece in pieces):
            return "".join(
                piece.text if piece.path is None else _strict(piece.path, value(piece.path)) for piece in pieces
            )
        word = "".join(piece.text if piece.path is None else value(piece.path) for piece in pieces)
        first = pieces[0].path
        if first is not None and word.startswith("-"):
            raise UnfitError("unsafe_value", f"{first} would be an option of the command")
        return _quote(word)


class SelectorTemplate(_Template):
    """``hostname == {event/HOST_NAME}``: the sensors that are meant. A value is quoted as a text of the selector's language."""

    quotes = "'\"`"
    escapes = False

    def __init__(self, text: str) -> None:
        super().__init__(text)
        if text.strip() in ("", selectors.ALL):
            raise ValueError("this means all sensors; say which ones are meant")

    def render(self, doc: Mapping[str, Any]) -> str:
        """The selector for a record. Raises `UnfitError`."""
        return " ".join("".join(self._piece(piece, doc) for piece in word) for word in self._words)

    def _piece(self, piece: _Piece, doc: Mapping[str, Any]) -> str:
        if piece.path is None:
            return piece.text
        value = _value(piece.path, doc)
        return _strict(piece.path, value) if piece.quote else selectors.quote(value)


def _value(path: RecordPath, doc: Mapping[str, Any]) -> str:
    found = path.text(doc)
    if not found:
        raise UnfitError("missing_value", f"the record has no {path}")
    if len(found) > MAX_VALUE or not found.isprintable():
        raise UnfitError(
            "unsafe_value", f"{path} is longer than {MAX_VALUE} characters, or has some that are not printable"
        )
    return found


def _strict(path: RecordPath, value: str) -> str:
    if not _STRICT.fullmatch(value):
        raise UnfitError("unsafe_value", f"{path} stands where only letters, digits and ._:/@- are safe")
    return value


def _has_quote(text: str) -> bool:
    return "'" in text or '"' in text


def _quote(word: str) -> str:
    """One word of a command line: in single quotes all is literal, in double quotes a backslash escapes a quote or itself."""
    if _PLAIN.fullmatch(word):
        return word
    if "'" not in word:
        return f"'{word}'"
    return '"' + word.replace("\\", "\\\\").replace('"', '\\"') + '"'
