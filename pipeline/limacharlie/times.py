"""Points in time as people say them, and the units in which LimaCharlie wants them: the one place for both.

Sensor history, detections, audit, artifacts, replay and search count in seconds; hives and expiry times in milliseconds.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from pipeline.core.errors import UsageError

When = float | str | datetime | timedelta
"""A point in time: Unix seconds or milliseconds, ``last 24 hours``, ``24h``, ``2 days ago``, ``now``, or ISO 8601.

A timedelta is how long ago; a datetime and a text without a zone are UTC.
"""

_MILLISECONDS_FROM = 1e11
"""Larger numbers are milliseconds (it is the year 5138 in seconds)."""
_EARLIEST = 1e9
"""The year 2001: a smaller number is a mistake, most often an amount where a time is wanted."""
_LATEST = 253_402_300_799.0
"""The end of the year 9999."""
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_WORDS = {"sec": "s", "second": "s", "min": "m", "minute": "m", "hr": "h", "hour": "h", "day": "d", "week": "w"}
_AMOUNT = r"(?:(\d{1,9}(?:\.\d{1,9})?)\s*([a-z]+))"
_RELATIVE = re.compile(rf"-?(?:(?:the\s+)?(?:last|past|previous)\s+)?((?:{_AMOUNT}\s*)+?|(?:an?\s+)?[a-z]+)(?:\s+ago)?")
_HINT = "Write it like 24h, last 24 hours, 2 days ago, now, 2026-03-01T12:00:00Z, or as Unix seconds."


def parse_when(value: When, now: float) -> float:
    """The point in time as Unix seconds; what is relative is so to ``now``. Raises `UsageError`."""
    if isinstance(value, timedelta):
        found: float | None = now - value.total_seconds()
    elif isinstance(value, datetime):
        found = (value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp()
    elif isinstance(value, str):
        found = _from_text(value.strip(), now)
    elif isinstance(value, bool) or not math.isfinite(value):
        found = None
    else:
        found = value / 1000 if value > _MILLISECONDS_FROM else float(value)
    if found is None or not _EARLIEST <= found <= _LATEST:
        raise UsageError(f"{value!r} is not a time.", fix=_HINT)
    return found


def _from_text(text: str, now: float) -> float | None:
    if re.fullmatch(r"\d{1,18}(\.\d{1,9})?", text):
        number = float(text)
        return number / 1000 if number > _MILLISECONDS_FROM else number
    lowered = text.lower()
    if lowered == "now":
        return now
    seconds = _relative(lowered)
    if seconds is not None:
        return now - seconds
    try:
        when = datetime.fromisoformat(text)
        return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None


def _relative(text: str) -> float | None:
    """Seconds in ``24h``, ``last 2 days``, ``1 hour 30 minutes ago``, ``last hour``."""
    match = _RELATIVE.fullmatch(text) if len(text) <= 64 else None
    if match is None:
        return None
    amounts = re.findall(_AMOUNT, match[1]) or [("1", re.sub(r"^an?\s+", "", match[1]))]
    seconds = 0.0
    for number, unit in amounts:
        length = _UNITS.get(unit) or _UNITS.get(_WORDS.get(unit.removesuffix("s"), ""))
        if length is None:
            return None
        seconds += float(number) * length
    return seconds


def milliseconds(seconds: float) -> int:
    """Unix seconds as the milliseconds of hives and expiry times."""
    return round(seconds * 1000)


@dataclass(frozen=True, slots=True)
class Period:
    """A range of time, in Unix seconds."""

    start: float
    end: float

    @classmethod
    def of(cls, start: When, end: When, now: float) -> Period:
        """Read the two ends against one ``now``. Raises `UsageError` where one is no time, or the start not before the end."""
        period = cls(parse_when(start, now), parse_when(end, now))
        if period.start >= period.end:
            raise UsageError(
                f"The start ({_iso(period.start)}) is not before the end ({_iso(period.end)}).",
                fix="Exchange them, or widen the range.",
            )
        return period

    def seconds(self) -> tuple[int, int]:
        """Start and end in whole seconds, never narrower than the range."""
        return math.floor(self.start), math.ceil(self.end)

    def query(self) -> dict[str, str]:
        """The fields ``start`` and ``end``, in seconds."""
        start, end = self.seconds()
        return {"start": str(start), "end": str(end)}


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
