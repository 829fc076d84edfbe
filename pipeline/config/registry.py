"""From a component's type name to its class: built-ins and what installed packages add, imported only when used."""

from __future__ import annotations

import typing
from collections.abc import Mapping
from functools import cached_property
from importlib import import_module
from importlib.metadata import EntryPoint, EntryPoints, entry_points
from types import MappingProxyType
from typing import Any, Literal

from pipeline.config.suggest import did_you_mean
from pipeline.core.component import Component
from pipeline.core.config import ComponentConfig
from pipeline.core.errors import ConfigError
from pipeline.core.filter import Filter
from pipeline.core.sink import Sink
from pipeline.core.source import Source

Kind = Literal["sources", "filters", "sinks"]
KINDS: tuple[Kind, ...] = ("sources", "filters", "sinks")

BUILT_IN: Mapping[Kind, Mapping[str, str]] = MappingProxyType({
    "sources": {
        "ai_session": "pipeline.sources.ai_session:AiSession",
        "file": "pipeline.sources.file:FileSource",
        "firehose": "pipeline.sources.firehose:Firehose",
        "spout": "pipeline.sources.spout:Spout",
        "stdin": "pipeline.sources.stdin:StdinSource",
    },
    "filters": {
        "events": "pipeline.filters.events:Events",
        "match": "pipeline.filters.match:Match",
        "responses": "pipeline.filters.responses:Responses",
        "sample": "pipeline.filters.sample:Sample",
    },
    "sinks": {
        "ai_session": "pipeline.sinks.ai_session:AiSessionSink",
        "file": "pipeline.sinks.file:FileSink",
        "kafka": "pipeline.sinks.kafka:KafkaSink",
        "reliable_task": "pipeline.sinks.reliable_task:ReliableTaskSink",
        "stdout": "pipeline.sinks.stdout:StdoutSink",
    },
})  # fmt: skip

SPOOLS: Mapping[str, str] = MappingProxyType({
    "disk": "pipeline.spool.disk:DiskSpool",
    "memory": "pipeline.spool.memory:MemorySpool",
})  # fmt: skip
"""Spools by type."""

_BASES: Mapping[Kind, type[Component[Any]]] = MappingProxyType({"sources": Source, "filters": Filter, "sinks": Sink})


class Registry:
    """The components that a configuration may name: built-ins and, unless ``installed`` is False, those of other packages.

    Packages are looked up once in its life.
    """

    def __init__(self, *, installed: bool = True) -> None:
        self.installed = installed

    @cached_property
    def _outside(self) -> Mapping[tuple[str, str], list[EntryPoint]]:
        found: dict[tuple[str, str], list[EntryPoint]] = {}
        points = (
            entry_points() if self.installed else EntryPoints()
        )  # one look at all installed packages, not one per kind
        for kind in KINDS:
            for point in points.select(group=f"pipeline.{kind}"):
                found.setdefault((kind, point.name), []).append(point)
        return found

    def names(self, kind: Kind) -> list[str]:
        """All type names of a kind, sorted."""
        return sorted(BUILT_IN[kind].keys() | {name for outside, name in self._outside if outside == kind})

    def component(self, kind: Kind, name: str) -> type[Component[Any]]:
        """Import the class of a type name.

        Raises ConfigError when there is none, when two packages claim the name, or when it cannot be imported.
        """
        one = kind[:-1]
        places: dict[str, str] = {}
        for point in self._outside.get((kind, name), ()):
            places[point.dist.name if point.dist else point.value] = point.value
        if name in BUILT_IN[kind]:
            places["lc-pipeline"] = BUILT_IN[kind][name]
        if not places:
            names = self.names(kind)
            raise ConfigError(
                f"there is no {one} of type {name!r}",
                fix=f"{did_you_mean(name, names)}There are: {', '.join(names)}.",
            )
        if len(places) > 1:
            raise ConfigError(
                f"the packages {' and '.join(f'`{place}`' for place in sorted(places))} have a {one} of type {name!r} each",
                fix="Uninstall one of these packages.",
            )
        (package, place), *_ = places.items()
        return _import(kind, name, package, place)


def _import(kind: Kind, name: str, package: str, place: str) -> type[Component[Any]]:
    module, _, attribute = place.partition(":")
    try:
        found = getattr(import_module(module), attribute)
    except Exception as error:  # a package of others may fail in any way; the cause stays attached for --debug
        raise ConfigError(
            f"the {kind[:-1]} {name!r} of package {package} cannot be loaded: {type(error).__name__}: {error}",
            fix=f"Check that {package} and what it needs are installed completely.",
        ) from error
    if not (isinstance(found, type) and issubclass(found, _BASES[kind])):
        raise ConfigError(
            f"`{place}` of package {package} is not a pipeline.{_BASES[kind].__name__}",
            fix=f"Its entry point in pipeline.{kind} must name a subclass.",
        )
    return found


def config_class(component: type[Component[Any]]) -> type[ComponentConfig]:
    """Return the config class that a component names as its generic argument: HeartbeatConfig of ``Source[HeartbeatConfig]``.

    Raises ConfigError when it names none.
    """
    for base in component.__mro__:
        for generic in base.__dict__.get("__orig_bases__", ()):
            for argument in typing.get_args(generic):
                if isinstance(argument, type) and issubclass(argument, ComponentConfig):
                    return argument
    raise ConfigError(
        f"`{component.__module__}.{component.__qualname__}` does not say which config class it has",
        fix="Derive it from Source[…], Filter[…] or Sink[…] with the config class in the brackets.",
    )
