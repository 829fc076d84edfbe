"""Paths and topics made from a record's facts, in which no record can steer a write."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from typing import Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from pipeline.core.types import RecordPath

MAX_SEGMENT = 128
"""Bytes of a substituted value at most."""
OVERFLOW = "_overflow"
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]")
_PLACE = re.compile(r"\{([^{}]*)\}")
_TIME = re.compile(r"%[YmdHMSjFyuVG]")


def segment(value: str | None) -> str:
    """Make one safe segment of a value: other characters than ``A-Za-z0-9._-`` become ``_``; empty, ``.`` and ``..`` become ``_``."""
    if not value:
        return "_"
    text = _UNSAFE.sub("_", value[: MAX_SEGMENT * 4])[:MAX_SEGMENT]
    return "_" if text in (".", "..") else text


class Template:
    """``lc.{stream}`` or ``/data/{stream}/{routing/hostname}/%Y/%m/%d.jsonl``.

    Begins with a literal prefix; ``%`` is the receive time in UTC; ``{stream}``, ``{org}`` and ``{record/path}`` are replaced by
    one safe segment each. Raises ValueError when it does not hold to that.
    """

    __slots__ = ("_literals", "_places", "paths", "prefix", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        match = re.match(r"[^{}%]*", text)
        self.prefix = match[0] if match else ""
        if not self.prefix.strip("/"):
            raise ValueError(
                "a template begins with a literal prefix, so that no record can choose where it is written"
            )
        self._literals: list[str] = []
        self._places: list[str | RecordPath] = []
        paths: list[RecordPath] = []
        at = 0
        for place in _PLACE.finditer(text):
            self._literal(text[at : place.start()])
            name = place[1].strip()
            if name in ("stream", "org"):
                self._places.append(name)
            else:
                if "/" not in name and name not in ("cat", "source", "oid", "etype", "ident", "priority"):
                    raise ValueError(
                        f"{{{name}}} is not known; there are {{stream}}, {{org}} and record paths like {{routing/hostname}}"
                    )
                path = RecordPath(name)
                self._places.append(path)
                paths.append(path)
            at = place.end()
        self._literal(text[at:])
        self.paths: frozenset[RecordPath] = frozenset(paths)
        """Record paths whose values `render` needs."""

    def _literal(self, text: str) -> None:
        if "{" in text or "}" in text:
            raise ValueError("a brace in a template is left open")
        for sign in re.findall(r"%.?", text):
            if not _TIME.fullmatch(sign):
                raise ValueError(f"{sign} is not known in a template; there are %Y %m %d %H %M %S %j %F %y %u %V %G")
        self._literals.append(text)

    @property
    def timed(self) -> bool:
        """Whether the result depends on the receive time."""
        return any("%" in text for text in self._literals)

    def render(self, stream: str, org: str, received_at: float, values: Mapping[str, str], seen: Seen) -> str:
        """Return the text for one record. ``seen`` bounds the number of distinct values over the life of a sink."""
        first = self._literals[0]
        when = time.gmtime(received_at) if self.timed else None
        text = time.strftime(first, when) if when and "%" in first else first
        for place, literal in zip(self._places, self._literals[1:], strict=True):
            if place == "stream":
                text += segment(stream)
            elif place == "org":
                text += segment(org)
            else:
                text += seen.admit(place, segment(values.get(place)))
            text += time.strftime(literal, when) if when and "%" in literal else literal
        return text

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return f"Template({self.text!r})"

    @classmethod
    def __get_pydantic_core_schema__(cls, _source: Any, _handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(
            lambda value: value if isinstance(value, cls) else cls(str(value)),
            serialization=core_schema.plain_serializer_function_ser_schema(str),
        )

    @classmethod
    def __get_pydantic_json_schema__(cls, _schema: CoreSchema, _handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {"type": "string", "examples": ["/data/{stream}/%Y/%m/%d/%H.jsonl"]}


class Seen:
    """Counts the distinct values of each place; past ``limit`` a new value becomes ``_overflow``."""

    def __init__(self, limit: int = 1000) -> None:
        self.limit = limit
        self._values: dict[str, set[str]] = {}

    def admit(self, place: str, value: str) -> str:
        known = self._values.setdefault(place, set())
        if value in known:
            return value
        if len(known) >= self.limit:
            return OVERFLOW
        known.add(value)
        return value
