"""The words of a configuration: durations, sizes, addresses, secrets, record paths."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Self

from pydantic import (
    BeforeValidator,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    PlainSerializer,
    SecretStr,
    WithJsonSchema,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

Secret = SecretStr
"""Text that never shows in repr, logs or errors; `.get_secret_value()` gives it."""

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_SIZES = {
    "": 1,
    "b": 1,
    "kb": 10**3,
    "mb": 10**6,
    "gb": 10**9,
    "tb": 10**12,
    "kib": 2**10,
    "mib": 2**20,
    "gib": 2**30,
    "tib": 2**40,
}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?i?b)?", re.IGNORECASE)


def parse_duration(value: Any) -> Any:
    """Turn ``1h30m``, ``250ms`` or a number of seconds into seconds. Raises ValueError."""
    if not isinstance(value, str):
        return value
    text = value.strip().lower()
    if re.fullmatch(r"\d+(\.\d+)?", text):
        return float(text)
    parts = _DURATION.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ValueError("a duration is a number of seconds, or like 250ms, 5s, 10m, 1h30m, 2d")
    return sum(float(number) * _UNITS[unit] for number, unit in parts)


def parse_size(value: Any) -> Any:
    """Turn ``64MiB``, ``1GB`` or a number of bytes into bytes. Raises ValueError."""
    if not isinstance(value, str):
        return value
    match = _SIZE.fullmatch(value.strip())
    if not match:
        raise ValueError("a size is a number of bytes, or like 512KiB, 64MiB, 50GiB, 1GB")
    return int(float(match[1]) * _SIZES[(match[2] or "").lower()])


def format_duration(seconds: float) -> str:
    """Write seconds as a person would: ``250ms``, ``5s``, ``1h30m``."""
    text, rest = "", round(seconds * 1000)
    for unit, length in (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)):
        count, rest = divmod(rest, length)
        if count:
            text += f"{count}{unit}"
    return text or "0s"


def format_size(size: int) -> str:
    """Write bytes as a person would: ``16MiB``."""
    for unit, length in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if size >= length:
            return f"{size / length:.4g}{unit}"
    return f"{size}B"


Duration = Annotated[
    float,
    BeforeValidator(parse_duration),
    PlainSerializer(format_duration, return_type=str, when_used="json"),
    WithJsonSchema({"anyOf": [{"type": "number"}, {"type": "string"}], "examples": ["5s"]}),
]
"""Seconds; written ``250ms``, ``5s``, ``1h30m``."""

Size = Annotated[
    int,
    BeforeValidator(parse_size),
    PlainSerializer(format_size, return_type=str, when_used="json"),
    WithJsonSchema({"anyOf": [{"type": "integer"}, {"type": "string"}], "examples": ["64MiB"]}),
]
"""Bytes; written ``512KiB``, ``64MiB``, ``50GiB``."""


@dataclass(frozen=True, slots=True)
class Listen:
    """Where a listener binds: ``host:port``, ``[::]:port`` or ``:port`` (all addresses); port 0 picks one."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @classmethod
    def parse(cls, value: Any) -> Listen:
        if isinstance(value, Listen):
            return value
        match = re.fullmatch(r"(?:\[([0-9A-Fa-f:.%\w]+)\]|([^:\[\]]*)):(\d{1,5})", str(value).strip())
        if not match or int(match[3]) > 65535:
            raise ValueError("an address is host:port, [ipv6]:port or :port, with a port of at most 65535")
        return cls(match[1] or match[2] or "", int(match[3]))

    @classmethod
    def __get_pydantic_core_schema__(cls, _source: Any, _handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(
            cls.parse, serialization=core_schema.plain_serializer_function_ser_schema(str)
        )

    @classmethod
    def __get_pydantic_json_schema__(cls, _schema: CoreSchema, _handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {"type": "string", "examples": ["127.0.0.1:9600"]}


class RecordPath(str):
    """A path of keys into a record, like ``routing/sid``; it addresses one value and has no wildcards."""

    __slots__ = ("keys",)
    keys: tuple[str, ...]

    def __new__(cls, text: str) -> Self:
        keys = tuple(text.strip("/").split("/"))
        if not all(keys) or "*" in keys or "?" in keys:
            raise ValueError("a record path is keys with / between them, like routing/sid, without wildcards")
        path = super().__new__(cls, "/".join(keys))
        path.keys = keys
        return path

    def value(self, doc: Any) -> Any:
        """The value at this path in a decoded record; None where there is none."""
        for key in self.keys:
            if doc.__class__ is not dict:
                return None
            doc = doc.get(key)
        return doc

    def text(self, doc: Mapping[str, Any]) -> str | None:
        """The value at this path as text; None where it is absent, null, an object or a list."""
        value: Any = doc
        for key in self.keys:  # as `value` does; a call more would be felt, once for each record
            if value.__class__ is not dict:
                return None
            value = value.get(key)
        if value.__class__ is str:
            found: str = value
            return found
        if value is True or value is False:
            return "true" if value else "false"
        if isinstance(value, int | float):
            return str(value)
        return None

    @classmethod
    def __get_pydantic_core_schema__(cls, _source: Any, _handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(cls, core_schema.str_schema())
