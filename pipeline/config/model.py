"""The sections of a configuration."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, PlainValidator, ValidationError, ValidationInfo, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from pipeline.config.registry import Kind, Registry, config_class
from pipeline.core.config import ComponentConfig, Field, FilterConfig, Section, SinkConfig, SourceConfig
from pipeline.core.errors import ConfigError
from pipeline.core.spool import OnFull, Start
from pipeline.core.types import Duration, Listen, Size
from pipeline.kit import cores
from pipeline.limacharlie.config import LimaCharlieConfig, OrgConfig
from pipeline.spool.disk import DiskSpoolConfig
from pipeline.spool.memory import MemorySpoolConfig


def _component(kind: Kind) -> Callable[[Any, ValidationInfo], ComponentConfig]:
    """A validator that reads a mapping as the config of the component that its ``type`` names."""

    def validate(value: Any, info: ValidationInfo) -> ComponentConfig:
        if isinstance(value, ComponentConfig):
            return value
        if not isinstance(value, Mapping):
            raise PydanticCustomError("mapping", "should be a mapping with a `type`")
        name = value.get("type")
        if not isinstance(name, str):
            error = "missing" if name is None else "string_type"
            raise ValidationError.from_exception_data(kind, [InitErrorDetails(type=error, loc=("type",), input=name)])
        registry: Registry = (info.context or {}).get("registry") or Registry()
        try:
            config = config_class(registry.component(kind, name))
        except ConfigError as error:
            custom = PydanticCustomError("component", "{what}", {"what": error.what, "fix": error.fix})
            raise ValidationError.from_exception_data(
                kind, [InitErrorDetails(type=custom, loc=("type",), input=name)]
            ) from error
        return config.model_validate(value, context=info.context)

    return validate


def one_or_more(value: Any) -> Any:
    """Let one name stand for a list of one."""
    return [value] if isinstance(value, str) else value


def _memory_unless_told(value: Any) -> Any:
    """Read a spool without a `type` as one in memory; where a `path` is given, which one is meant is better asked."""
    return {"type": "memory", **value} if isinstance(value, Mapping) and not {"type", "path"} & value.keys() else value


Sources = dict[str, Annotated[SourceConfig, PlainValidator(_component("sources"))]]
Sinks = dict[str, Annotated[SinkConfig, PlainValidator(_component("sinks"))]]
Spool = Annotated[
    MemorySpoolConfig | DiskSpoolConfig, Field(discriminator="type"), BeforeValidator(_memory_unless_told)
]
Names = Annotated[tuple[str, ...], BeforeValidator(one_or_more), Field(min_length=1)]
"""One name or a list of names."""


Workers = Literal["auto"] | Annotated[int, Field(ge=1, le=64)]


class DedupeConfig(Section):
    """Drops a record that came before: one with the same id (event_id, detect_id, record_id), else with the same content."""

    window: Duration = Field(86400.0, gt=0)
    """How long an id is remembered."""
    entries: int = Field(1_000_000, ge=1000, le=100_000_000)
    """How many ids are remembered; each takes about 150 bytes of memory, and 32 bytes of a disk spool."""


class RouteConfig(Section):
    """From sources through filters to sinks. Each sink has its own place in the records and may fall behind alone."""

    from_: Names = Field(alias="from")
    """The sources: a name or a list of names."""
    filters: tuple[Annotated[FilterConfig, PlainValidator(_component("filters"))], ...] = ()
    """What decides about the records or changes them, in this order."""
    to: Names
    """The sinks: a name or a list of names."""
    on_full: OnFull = "block"
    """When the spool is full and this route holds its oldest records: `block` makes the source wait, `drop_oldest` gives them up."""
    start: Start = "oldest"
    """Where a sink that is new to this route begins: at the `oldest` record that a disk spool still keeps, or with the `newest`, those
    that come from now on."""
    dedupe: bool | DedupeConfig = False
    """Drop records that came before. With a disk spool ids are remembered across restarts, with one in memory until the end."""


class DeadLetterConfig(Section):
    """Where records go that cannot be delivered: JSON lines, with the reason beside each."""

    path: Path = Path("dead-letter")
    """The folder; default: beside a disk spool, else `./dead-letter`."""
    max_size: Size = Field(1 << 30, gt=0)
    """Bytes that all its files may take; at least twice the largest `max_record` and 64KiB. When it is full, a lane that needs it
    waits."""


class AdminConfig(Section):
    """Serves `/metrics`, `/healthz`, `/readyz` and a live page."""

    listen: Listen = Listen("127.0.0.1", 9600)
    """Where it listens; with port 0 a free one is taken, and the log names it."""


class LogConfig(Section):
    """What is written to stderr."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    """The least that is written."""
    format: Literal["auto", "json", "console"] = "auto"
    """`auto`: readable lines where stderr is a terminal, else JSON lines."""


class Config(Section):
    """A whole configuration."""

    limacharlie: LimaCharlieConfig = LimaCharlieConfig()
    """Credentials and addresses of LimaCharlie."""
    orgs: dict[str, OrgConfig] = Field(default_factory=dict)
    """Several organizations by name; what one lacks comes from `limacharlie`. Without it there is one, which has no name."""
    sources: Sources = Field(min_length=1)
    """Where records come from, by name."""
    sinks: Sinks = Field(min_length=1)
    """Where records go, by name."""
    routes: dict[str, RouteConfig] = Field(min_length=1)
    """Which source's records go into which sinks, by name."""
    spool: Spool = MemorySpoolConfig()
    """Where accepted records wait until every sink has them; in memory, unless its `type` says otherwise."""
    dead_letter: DeadLetterConfig = DeadLetterConfig()
    """Where records go that cannot be delivered."""
    admin: AdminConfig | None = None
    """Metrics, health and a live page over HTTP. Without this section the default address is tried, and left out when taken."""
    stop_timeout: Duration = Field(25.0, ge=0)
    """How long a stop may take until what is still under way is given up."""
    log: LogConfig = LogConfig()
    """What is written to stderr."""
    workers: Workers = 1
    """Processes that share the work; `auto` takes one for each CPU that this process may use. The connections of a listener are
    handed to them in turn; each other source lives in one of them. Each has its part of the spool, in a folder `w1`, `w2`, …"""
    event_loop: Literal["asyncio", "uvloop"] = "asyncio"
    """Which event loop runs it all; `uvloop` needs the extra of that name."""

    @model_validator(mode="before")
    @classmethod
    def _dead_letter_beside_disk_spool(cls, data: Any) -> Any:
        match data:
            case {"spool": {"type": "disk", "path": str(path)}}:
                letters = data.get("dead_letter", {})
                if isinstance(letters, dict) and "path" not in letters:
                    return {**data, "dead_letter": {**letters, "path": str(Path(path).parent / "dead-letter")}}
        return data

    @property
    def processes(self) -> int:
        """How many workers there are."""
        return processes(self.workers)

    def account(self, org: str) -> LimaCharlieConfig:
        """Credentials and addresses for an organization of `orgs`, or for the only one ("")."""
        return self.limacharlie.for_org(self.orgs[org]) if org else self.limacharlie


def processes(workers: Workers) -> int:
    """How many processes a number of workers stands for."""
    return cores.usable() if workers == "auto" else workers


def spool_size(spool: MemorySpoolConfig | DiskSpoolConfig, workers: int) -> int:
    """The `max_size` of one of several workers: its share, but in memory the default where the configuration gives none."""
    given = isinstance(spool, DiskSpoolConfig) or "max_size" in spool.model_fields_set
    return spool.max_size // workers if given else spool.max_size


def filter_id(route: str, index: int, config: FilterConfig) -> str:
    """A filter's name in logs, metrics and dead letters: its own, or ``route.0``."""
    return config.name or f"{route}.{index}"
