"""Whether bytes are UTF-8, without making a text of them."""

from __future__ import annotations

from typing import Any

from pydantic_core import SchemaValidator, ValidationError, core_schema

_MANY = 4096
"""Bytes from which on an error that says what is wanted is cheaper than a text that is thrown away."""
_TOO_LONG: Any = SchemaValidator(core_schema.str_schema(max_length=1))


def is_utf8(data: bytes) -> bool:
    """Whether these bytes are valid UTF-8.

    `bytes.decode` copies what is not ASCII into two or four bytes a character, which takes five times as long as looking at it.
    What only looks is at hand in pydantic: it checks bytes in place, and says of a text that it is too long before it makes one.
    """
    if data.isascii():
        return True
    if len(data) >= _MANY:
        try:
            _TOO_LONG.validate_python(data)
        except ValidationError as error:
            if (
                error.errors(include_url=False, include_context=False, include_input=False)[0]["type"]
                == "string_too_long"
            ):
                return True
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True
