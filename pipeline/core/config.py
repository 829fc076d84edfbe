"""The bases of component configurations. A field's docstring is its reference documentation."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from pipeline.core.types import Duration, Size

__all__ = [
    "BatchConfig",
    "ClientTls",
    "ComponentConfig",
    "Field",
    "FilterConfig",
    "RetryConfig",
    "Section",
    "SinkConfig",
    "SourceConfig",
    "Tls",
]


class Section(BaseModel):
    """A part of the configuration: unknown keys are mistakes, values never change after loading."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        arbitrary_types_allowed=True,
        populate_by_name=True,
        validate_default=True,
    )


class ComponentConfig(Section):
    type: str
    """Which component this is."""


class SourceConfig(ComponentConfig):
    """What every source has."""

    stream: str = "event"
    """The LimaCharlie stream that its records belong to: event, detect, audit, deployment or billing."""
    orgs: Literal["all"] | list[str] = "all"
    """The organizations (names under the top-level `orgs`) that this source serves."""
    format: Literal["json", "text"] = "json"
    """`json`: every record is one JSON object. `text`: lines of any form, for outputs with a custom transform."""
    max_record: Size = Field(16 << 20, gt=0)
    """The largest record; a larger one goes to the source's dead letter."""


class FilterConfig(ComponentConfig):
    """What every filter has."""

    name: str | None = None
    """Its name in logs, metrics and dead letters; default `ROUTE.N`."""


class BatchConfig(Section):
    """How many items a sink gets in one write. The write starts when one of the limits is reached."""

    max_events: int = Field(default=1000, gt=0)
    """Items in one write."""
    max_bytes: Size = Field(default=1 << 20, gt=0)
    """Bytes of payload in one write (a single larger item is written alone)."""
    max_wait: Duration = Field(default=0.1, ge=0)
    """How long the first item may wait for company."""


class RetryConfig(Section):
    """How a failed write is tried again: exponential back-off with full jitter."""

    base: Duration = Field(default=0.5, gt=0)
    """The first wait is at most this."""
    cap: Duration = Field(default=30.0, gt=0)
    """No wait is longer than this."""
    expires: Duration | None = Field(default=None, gt=0)
    """Give up after this long and put the items into the dead letter; never, unless set."""


class SinkConfig(ComponentConfig):
    """What every sink has."""

    batch: BatchConfig = BatchConfig()
    """How many items it gets in one write."""
    in_flight: int = Field(1, gt=0, le=64)
    """Writes under way at once; more than one gives up the order of records."""
    timeout: Duration = Field(60.0, gt=0)
    """A write that takes longer counts as failed and is tried again."""
    retry: RetryConfig = RetryConfig()
    """How a failed write is tried again."""


class Tls(Section):
    """The certificate of a listener. The files are read again when they change."""

    cert: Path
    """PEM file: the certificate, then its chain."""
    key: Path
    """PEM file: the private key."""


class ClientTls(Section):
    """How we check and identify ourselves to a server that we dial."""

    ca: Path | None = None
    """PEM file with the authorities to trust; default: the system's."""
    cert: Path | None = None
    """PEM file with our certificate, where the server asks for one."""
    key: Path | None = None
    """PEM file with our private key."""
    verify: bool = True
    """Check the server's certificate and name."""
