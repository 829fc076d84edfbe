"""What a decoded value is as text, as a number, and how long it is.

The cloud does not document how its operators compare a number with a text, while its rules hold both ``'4625'`` and ``9999`` for
fields that are numbers. So comparing is loose, by these three readings.
"""

from __future__ import annotations

import re
from typing import Any

Scalar = str | int | float | bool

_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_HEX = re.compile(r"0[xX][0-9a-fA-F]+")
_MAX_DIGITS = 64


def text_of(value: Any) -> str | None:
    """Return a text as it is, a number in its shortest decimal form, a boolean as ``true`` or ``false``; else None."""
    kind = value.__class__
    if kind is str:
        text: str = value
        return text
    if kind is bool:
        return "true" if value else "false"
    if kind is int or kind is float:
        return str(value)
    return None


def number_of(value: Any) -> int | float | None:
    """Return a number as it is, and a text that is a JSON number or hexadecimal (``0x10000000``) as its number; else None.

    A boolean is no number, nor is a text with leading zeros, a plus sign or spaces.
    """
    kind = value.__class__
    if kind is int or kind is float:
        number: int | float = value
        return number
    if kind is not str or len(value) > _MAX_DIGITS:
        return None
    if match := _NUMBER.fullmatch(value):
        return float(value) if match[1] or match[2] else int(value)
    return int(value, 16) if _HEX.fullmatch(value) else None


def length_of(value: Any) -> int | None:
    """Return the characters of a text, the elements of a list, the keys of an object; else None."""
    return len(value) if value.__class__ in (str, list, dict) else None
