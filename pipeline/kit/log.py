"""Structured logs on stderr: JSON lines, or a readable console where stderr is a terminal."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import MutableMapping
from typing import Any, Literal, TextIO

import orjson
import structlog
from structlog.typing import FilteringBoundLogger, Processor

Logger = FilteringBoundLogger
Format = Literal["auto", "json", "console"]

REPEAT_WINDOW = 10.0
"""Seconds in which an identical line (same component, same sentence) is written once; then it comes again with a count."""


class _Repeats:
    """Holds back a WARNING or ERROR that a component repeats, and says how often it did when the window is over.

    A line with ``distinct=True`` is always written: it tells another fact each time.
    """

    def __init__(self) -> None:
        self._seen: dict[tuple[object, ...], tuple[float, int]] = {}

    def __call__(self, _logger: Any, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        if event.pop("distinct", False) or method in ("debug", "info"):
            return event
        key = (event.get("component"), event.get("org"), event.get("event"))
        now = time.monotonic()
        since, held = self._seen.get(key, (-REPEAT_WINDOW, 0))
        if now - since < REPEAT_WINDOW:
            self._seen[key] = (since, held + 1)
            raise structlog.DropEvent
        if len(self._seen) > 1024:
            self._seen.clear()
        self._seen[key] = (now, 0)
        if held:
            event["repeated"] = held
        return event


def _dumps(value: Any, **_: Any) -> str:
    return orjson.dumps(value, default=str, option=orjson.OPT_NON_STR_KEYS).decode()


def configure(level: str = "info", style: Format = "auto", stream: TextIO | None = None) -> None:
    """Set up logging for the process; call once, before components are built."""
    out = stream or sys.stderr
    console = style == "console" or (style == "auto" and out.isatty())
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    renderer: Processor
    if console:
        renderer = structlog.dev.ConsoleRenderer(
            colors=out.isatty(), pad_event_to=0, exception_formatter=structlog.dev.plain_traceback
        )
        shared.remove(structlog.processors.format_exc_info)
    else:
        renderer = structlog.processors.JSONRenderer(serializer=_dumps)
    number = getattr(logging, level.upper())
    structlog.configure(
        processors=[*shared, _Repeats(), renderer],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.PrintLoggerFactory(out),
        cache_logger_on_first_use=False,
    )
    root = logging.getLogger()
    root.handlers[:] = [_Bridge()]
    root.setLevel(max(number, logging.WARNING))


class _Bridge(logging.Handler):
    """Hands lines of libraries (aiohttp, aiokafka, asyncio) to structlog."""

    def emit(self, record: logging.LogRecord) -> None:
        logger = get(component=record.name)
        method = (
            "error" if record.levelno >= logging.ERROR else "warning" if record.levelno >= logging.WARNING else "info"
        )
        try:
            message = record.getMessage()
        except (TypeError, ValueError):
            message = str(record.msg)
        getattr(logger, method)(message, exc_info=record.exc_info or None)


def get(**bound: object) -> Logger:
    """Return a logger with these fields bound (``component`` is the usual one)."""
    logger: Logger = structlog.get_logger(**bound)
    return logger
