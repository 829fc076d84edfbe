"""One line for a person about one record; nothing in the record can move the cursor, hide text or begin a second line."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from typing import Any

import orjson

from pipeline.limacharlie import records
from pipeline.limacharlie.ai.message import Message, parse

TELLING = (
    "COMMAND_LINE",
    "DOMAIN_NAME",
    "URL",
    "FILE_PATH",
    "IP_ADDRESS",
    "REGISTRY_KEY",
    "USER_NAME",
    "HASH",
    "SVC_NAME",
    "NAMED_PIPE_NAME",
    "DEVICE_PATH",
    "ERROR_MESSAGE",
)
"""Fields of an event that say most about it, the most telling first."""
_WHAT_MAX = 300

# Controls, characters without width, and those that turn the direction of text.
_UNSAFE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u00ad\u061c\u115f\u1160\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0"
    "\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e0fff]"
)
_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
_RESET = "\x1b[0m"
_DIM, _BOLD, _RED, _YELLOW, _CYAN = "\x1b[2m", "\x1b[1m", "\x1b[1;31m", "\x1b[33m", "\x1b[36m"


def escape(text: str) -> str:
    """Write characters that a terminal acts on, or does not show, as JSON escapes."""
    return _UNSAFE.sub(_code, text)


def _code(match: re.Match[str]) -> str:
    character = match[0]
    if character in _SHORT:
        return _SHORT[character]
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2))


def line(payload: bytes, stream: str, received_at: float, *, colour: bool = False) -> str:
    """Time (UTC), stream, priority, category, host, what, for one record, without a line end.

    The time is the record's own, or when it was received (Unix seconds). What is not a JSON object is shown as it is.
    """
    try:
        doc = orjson.loads(payload)
    except ValueError:
        doc = None
    paint = _paint if colour else _plain
    if not isinstance(doc, dict):
        return f"{paint(_DIM, _when(received_at))} {stream:<6}  {_clip(payload.decode(errors='replace'), _WHAT_MAX)}"
    milliseconds = records.time_ms(doc)
    priority = records.priority(doc)
    loud = _RED if (priority or 0) >= 5 else _YELLOW if stream == "detect" else _BOLD
    return " ".join(
        (
            paint(_DIM, _when(received_at if milliseconds is None else milliseconds / 1000)),
            f"{_clip(stream, 10):<6}",
            paint(loud, f"{'-' if priority is None else priority:>2}"),
            paint(loud, f"{_clip(_category(doc), 40):<24}"),
            paint(_CYAN, f"{_clip(records.hostname(doc) or '-', 30):<16}"),
            _clip(_what(doc), _WHAT_MAX),
        )
    )


def _paint(style: str, text: str) -> str:
    return f"{style}{text}{_RESET}"


def _plain(_style: str, text: str) -> str:
    return text


def _when(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(seconds))


def _clip(text: str, size: int) -> str:
    # An escape is longer than its character, so the text is cut before and after.
    safe = escape(text[: size + 1])
    return safe if len(safe) <= size else safe[: size - 1] + "…"


def _category(doc: Mapping[str, Any]) -> str:
    return records.category(doc) or records.event_type(doc) or "-"


def _what(doc: Mapping[str, Any]) -> str:
    if records.is_detection(doc):
        return _join(doc.get("source_rule"), records.event_type(doc), _telling(records.payload(doc)))
    if "session" in doc and isinstance(message := parse(doc.get("event")), Message):
        return message.text or _telling(message.payload)
    if "etype" in doc:
        return _join(doc.get("ident"), doc.get("msg") or doc.get("error"))
    return _telling(records.payload(doc))


def _join(*parts: Any) -> str:
    return "  ".join(part for part in parts if isinstance(part, str) and part)


def _telling(payload: Mapping[str, Any]) -> str:
    """The value of the most telling field, here or in the tables within; else the first few plain values."""
    for reach in (_direct, _nested):
        found = reach(payload)
        if found:
            return found
    plain = (f"{key}={value}" for key, value in payload.items() if isinstance(value, str | int | float) and value != "")
    return " ".join(text for text, _ in zip(plain, range(4), strict=False))


def _direct(payload: Mapping[str, Any]) -> str:
    for name in TELLING:
        value = payload.get(name)
        if isinstance(value, str) and value:
            return value
    return ""


def _nested(payload: Mapping[str, Any]) -> str:
    for value in payload.values():
        inner = value[0] if isinstance(value, list) and value else value
        if isinstance(inner, dict) and (found := _direct(inner)):
            return found
    return ""
