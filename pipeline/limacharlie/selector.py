"""Writing sensor selectors, the expressions that say which sensors are meant: ``plat == windows and `prod` in tags``."""

from __future__ import annotations

import re

from pipeline.core.errors import UsageError
from pipeline.limacharlie.answers import sensor_id

ALL = "*"
"""All sensors of the organization."""
FIELDS = frozenset(
    {
        *("sid", "oid", "iid", "did", "plat", "ext_plat", "arch", "enroll", "hostname", "mac_addr", "alive", "ext_ip"),
        *("int_ip", "isolated", "should_isolate", "sealed", "should_seal", "kernel", "tags", "is_del"),
    }
)
"""What a selector can ask of a sensor."""
_ESCAPED = re.compile(r'["\\\x00-\x1f\x7f]')


def quote(value: str) -> str:
    """Write a value so that it is that text and nothing else, whatever is in it."""
    if re.fullmatch(r"[^`\x00-\x1f\x7f]*", value):
        return f"`{value}`"
    # A quotation mark would end the text even behind a backslash.
    return '"' + _ESCAPED.sub(lambda found: f"\\x{ord(found[0]):02x}", value) + '"'


def is_(field: str, value: str) -> str:
    """``plat == `windows```: the field has this value. Raises `UsageError` for a field that no sensor has."""
    return f"{_field(field)} == {quote(value)}"


def contains(field: str, value: str) -> str:
    """The field's text, or one of its entries, contains this."""
    return f"{_field(field)} contains {quote(value)}"


def matches(field: str, expression: str) -> str:
    """The field matches a regular expression (RE2), anywhere in it."""
    return f"{_field(field)} matches {quote(expression)}"


def sensor(sid: str) -> str:
    """One sensor. Raises `UsageError` for what is no sensor id."""
    return is_("sid", sensor_id(sid))


def tagged(tag: str) -> str:
    """Sensors with this tag."""
    return f"{quote(tag)} in tags"


def every(*selectors: str) -> str:
    """Sensors that all of these mean. Raises `UsageError` without any."""
    return _join("and", selectors)


def some(*selectors: str) -> str:
    """Sensors that at least one of these means. Raises `UsageError` without any."""
    return _join("or", selectors)


def no(selector: str) -> str:
    """All other sensors."""
    return f"not ({selector})"


def _field(name: str) -> str:
    if name not in FIELDS:
        raise UsageError(f"A sensor has no {name[:40]!r}.", fix=f"Fields are {', '.join(sorted(FIELDS))}.")
    return name


def _join(word: str, selectors: tuple[str, ...]) -> str:
    # An empty part would make a selector that means more than was said, or nothing at all.
    if not selectors or not all(part.strip() for part in selectors):
        raise UsageError("A part of the selector is empty.", fix=f"Write {ALL!r} for all sensors.")
    return selectors[0] if len(selectors) == 1 else f" {word} ".join(f"({part})" for part in selectors)
