"""Moves LimaCharlie's streams into the systems a security team owns.

This module re-exports all that a plug-in imports.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.core.batch import Batch, LogId, Receipt
    from pipeline.core.clock import Clock
    from pipeline.core.component import Context, Org, Report
    from pipeline.core.config import (
        BatchConfig,
        ClientTls,
        Field,
        FilterConfig,
        RetryConfig,
        SinkConfig,
        SourceConfig,
        Tls,
    )
    from pipeline.core.errors import (
        AuthenticationError,
        ConfigError,
        NotFoundError,
        Partial,
        PermanentError,
        PermissionDeniedError,
        PipelineError,
        RateLimitedError,
        Rejected,
        RequestRefusedError,
        RetryLater,
        TemporaryError,
        UnavailableError,
        UsageError,
    )
    from pipeline.core.event import Event, Undecodable
    from pipeline.core.filter import Decider, Filter, Needs
    from pipeline.core.items import Item, Items, Part
    from pipeline.core.sink import Mark, Sink
    from pipeline.core.source import Outlet, Source
    from pipeline.core.spool import Spool
    from pipeline.core.template import Seen, Template
    from pipeline.core.types import Duration, Listen, RecordPath, Secret, Size

__version__ = "0.1.0"

__all__ = [
    "AuthenticationError",
    "Batch",
    "BatchConfig",
    "ClientTls",
    "Clock",
    "ConfigError",
    "Context",
    "Decider",
    "Duration",
    "Event",
    "Field",
    "Filter",
    "FilterConfig",
    "Item",
    "Items",
    "Listen",
    "LogId",
    "Mark",
    "Needs",
    "NotFoundError",
    "Org",
    "Outlet",
    "Part",
    "Partial",
    "PermanentError",
    "PermissionDeniedError",
    "PipelineError",
    "RateLimitedError",
    "Receipt",
    "RecordPath",
    "Rejected",
    "Report",
    "RequestRefusedError",
    "RetryConfig",
    "RetryLater",
    "Secret",
    "Seen",
    "Sink",
    "SinkConfig",
    "Size",
    "Source",
    "SourceConfig",
    "Spool",
    "Template",
    "TemporaryError",
    "Tls",
    "UnavailableError",
    "Undecodable",
    "UsageError",
]

_HOMES = {
    "pipeline.core.batch": ("Batch", "LogId", "Receipt"),
    "pipeline.core.clock": ("Clock",),
    "pipeline.core.component": ("Context", "Org", "Report"),
    "pipeline.core.config": (
        "BatchConfig",
        "ClientTls",
        "Field",
        "FilterConfig",
        "RetryConfig",
        "SinkConfig",
        "SourceConfig",
        "Tls",
    ),
    "pipeline.core.errors": (
        "AuthenticationError",
        "ConfigError",
        "NotFoundError",
        "Partial",
        "PermanentError",
        "PermissionDeniedError",
        "PipelineError",
        "RateLimitedError",
        "Rejected",
        "RequestRefusedError",
        "RetryLater",
        "TemporaryError",
        "UnavailableError",
        "UsageError",
    ),
    "pipeline.core.event": ("Event", "Undecodable"),
    "pipeline.core.filter": ("Decider", "Filter", "Needs"),
    "pipeline.core.items": ("Item", "Items", "Part"),
    "pipeline.core.sink": ("Mark", "Sink"),
    "pipeline.core.source": ("Outlet", "Source"),
    "pipeline.core.spool": ("Spool",),
    "pipeline.core.template": ("Seen", "Template"),
    "pipeline.core.types": ("Duration", "Listen", "RecordPath", "Secret", "Size"),
}


def __getattr__(name: str) -> Any:
    """Import on first use: every module of the package imports this one first, the command line's `--help` too."""
    for module, names in _HOMES.items():
        if name in names:
            value = globals()[name] = getattr(import_module(module), name)
            return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
