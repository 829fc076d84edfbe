"""From a checked configuration to connected parts. Nothing here binds, connects or starts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from itertools import count
from typing import Any, cast

from pipeline.config.model import Config, DedupeConfig, RouteConfig, filter_id
from pipeline.config.registry import SPOOLS, Registry
from pipeline.core.batch import LogId
from pipeline.core.clock import Clock
from pipeline.core.component import Context, Org
from pipeline.core.config import FilterConfig, SourceConfig
from pipeline.core.filter import Filter
from pipeline.core.sink import Mark, Sink
from pipeline.core.source import Source
from pipeline.core.spool import Spool
from pipeline.engine.backfill import Filler, Filling
from pipeline.engine.committer import Committer
from pipeline.engine.dedupe import Dedupe, Dedupes
from pipeline.engine.delivery import SinkRunner
from pipeline.engine.intake import Intake
from pipeline.engine.lane import Lane
from pipeline.engine.letters import DeadLetters
from pipeline.engine.meters import Meters
from pipeline.engine.placement import Place
from pipeline.engine.route import Route, Step
from pipeline.engine.status import Board, Status
from pipeline.engine.watch import Watch
from pipeline.kit import log as logs


@dataclass(slots=True)
class SourceRun:
    """One instance of a source with its outlet."""

    source: Source[Any]
    intake: Intake
    status: Status
    orgs: Sequence[Org]


@dataclass(slots=True)
class Plan:
    """All parts of a process."""

    config: Config
    clock: Clock
    stopping: asyncio.Event
    board: Board
    spool: Spool
    letters: DeadLetters
    meters: Meters
    committer: Committer
    sources: list[SourceRun] = field(default_factory=list)
    sinks: dict[str, SinkRunner] = field(default_factory=dict)
    routes: list[Route] = field(default_factory=list)
    lanes: list[Lane] = field(default_factory=list)
    logs: list[LogId] = field(default_factory=list)
    place: Place = field(default_factory=Place)
    dedupes: Dedupes = field(default_factory=Dedupes)
    replaying: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held by the replay that is under way, whoever asked for it."""
    watch: Watch = field(init=False)
    filler: Filler = field(init=False)

    def __post_init__(self) -> None:
        self.watch = Watch(self.board.gaps, self.clock, logs.get(component="spool"))
        self.filler = Filler(self.board.gaps, self.clock, logs.get(component="backfill"))

    def readers(self, log: LogId) -> list[Lane]:
        """The lanes that read a log of replayed records."""
        return [lane for lane in self.lanes if log.is_for(lane.route.name, lane.runner.id)]


def build(
    config: Config,
    orgs: Mapping[str, Org],
    clock: Clock,
    registry: Registry | None = None,
    place: Place = Place(),  # noqa: B008 - frozen
) -> Plan:
    """Make all components of a configuration. ``orgs`` has one entry named "" where the configuration names none.

    ``place`` says which of several processes this is: it has all lanes and logs, and those sources that live in it.
    """
    registry = registry or Registry()
    config = place.of(config)
    board = Board(clock)
    stopping = asyncio.Event()
    spool: Spool = _spool(config)
    letters = DeadLetters(config.dead_letter.path, config.dead_letter.max_size, clock.now)
    meters = Meters(spool, board, letters, clock)
    runners: dict[str, SinkRunner] = {}
    committer = Committer(spool, logs.get(component="spool"))
    plan = Plan(config, clock, stopping, board, spool, letters, meters, committer, place=place)
    numbers = count()

    for name in _used_sinks(config):
        settings = config.sinks[name]
        kind = cast(type[Sink[Any]], registry.component("sinks", settings.type))
        log = logs.get(component=name)
        status = board.add(name, "sink", "", log)
        context = Context(
            name, log, clock, status, stopping, tuple(orgs.values()), _marker(committer, name), worker=place.worker
        )
        sink: Sink[Any] = kind(settings, context)
        runners[name] = SinkRunner(sink, settings, status, log)
    plan.sinks = runners
    committer.sinks = list(runners.values())

    for name, given in config.sources.items():
        _add_source(plan, registry, name, given, orgs, numbers)

    for name, route in config.routes.items():
        filters = [
            _filter(plan, registry, filter_id(name, number, entry), entry) for number, entry in enumerate(route.filters)
        ]
        paths = [path for target in route.to for path in runners[target].sink.paths]
        log = logs.get(component=name)
        dedupe = _dedupe(plan, name, route)
        built = Route(name, filters, paths, log, _counter(board, name), lanes=len(route.to), dedupe=dedupe)
        plan.routes.append(built)
        read = [log for log in plan.logs if log.source in route.from_]
        for target in route.to:
            plan.lanes.append(
                Lane(
                    built,
                    runners[target],
                    read,
                    route.on_full,
                    spool,
                    committer,
                    letters.lane(name, target),
                    clock,
                    log,
                    meters.observer(name, target),
                    plan.watch.shed,
                    route.start,
                )
            )
        if route.on_full == "drop_oldest":
            plan.watch.sheds(read)
    committer.keepers = [plan.dedupes, board.gaps] if spool.durable else []
    _add_places(plan)
    meters.dedupes = plan.dedupes.routes
    meters.lanes, meters.routes, meters.sinks = plan.lanes, plan.routes, list(runners.values())
    meters.intakes = [(run.source.id, run.intake) for run in plan.sources]
    return plan


def _spool(config: Config) -> Spool:
    module, _, name = SPOOLS[config.spool.type].partition(":")
    spool: Spool = getattr(import_module(module), name)(config.spool)
    return spool


def _dedupe(plan: Plan, name: str, route: RouteConfig) -> Callable[[Step], None] | None:
    if route.dedupe is False:
        return None
    config = DedupeConfig() if route.dedupe is True else route.dedupe
    dedupe = plan.dedupes.routes[name] = Dedupe(
        name, window=config.window, entries=config.entries, clock=plan.clock, durable=plan.spool.durable
    )
    return dedupe.apply


def _used_sinks(config: Config) -> list[str]:
    used = {sink for route in config.routes.values() for sink in route.to}
    return [name for name in config.sinks if name in used]


def _add_source(
    plan: Plan,
    registry: Registry,
    name: str,
    settings: SourceConfig,
    orgs: Mapping[str, Org],
    numbers: Iterator[int],
) -> None:
    kind = cast(type[Source[Any]], registry.component("sources", settings.type))
    wanted = [org for key, org in orgs.items() if settings.orgs == "all" or key in settings.orgs]
    groups = [[org] for org in wanted] if kind.per_org else [wanted]
    letters = plan.letters.source(name)
    place = plan.place
    share = place.shared(kind, settings)
    for group in groups:
        names = {org.name: LogId(name, org.name) for org in group}
        if kind.any_org:
            names = {"": LogId(name), **names}
        plan.logs.extend(log for log in names.values() if log not in plan.logs)
        if place.drains or (share is None and not place.runs(next(numbers))):
            continue
        org = group[0].name if len(group) == 1 else ""
        log = logs.get(component=name, org=org) if org else logs.get(component=name)
        status = plan.board.add(name, "source", org, log)
        source = kind(
            settings if share is None else share,
            Context(
                name, log, plan.clock, status, plan.stopping, tuple(group),
                worker=place.worker, handover=place.handovers.get(name),
            ),
        )  # fmt: skip
        intake = Intake(name, settings, names, plan.spool, letters, plan.clock, plan.watch.accepted)
        handover = place.handovers.get(name)
        if kind.misses_while_away and (handover is None or handover.leads):
            plan.watch.away.update(names.values())
        plan.sources.append(SourceRun(source, intake, status, group))


def _add_places(plan: Plan) -> None:
    """Say where the records of each log come from that a gap may miss."""
    for run in plan.sources:
        names = [name for name, route in plan.config.routes.items() if run.source.id in route.from_]
        for org in run.orgs:
            if (log := LogId(run.source.id, org.name)) in plan.watch.away:
                dedupes = [plan.dedupes.routes.get(name) for name in names]
                plan.filler.places[log] = Filling(run.source, org, run.intake, dedupes)


def _filter(plan: Plan, registry: Registry, name: str, settings: FilterConfig) -> Filter[Any]:
    kind = cast(type[Filter[Any]], registry.component("filters", settings.type))
    log = logs.get(component=name)
    return kind(settings, Context(name, log, plan.clock, plan.board.add(name, "filter", "", log), plan.stopping))


def _marker(committer: Committer, sink: str) -> Callable[[Mark], Any]:
    async def commit_mark(mark: Mark) -> None:
        await committer.commit_mark(sink, mark)

    return commit_mark


def _counter(board: Board, route: str) -> Callable[[str, str], None]:
    def count(component: str, code: str) -> None:
        for status in board:
            if status.component == component:
                status.error(code)
                return
        board.add(route, "route", "", logs.get(component=route)).error(code)

    return count
