"""What no section can know alone: do the names fit, do the limits fit together."""

from __future__ import annotations

import pathlib
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pydantic import ConfigDict

from pipeline.config.model import (
    AdminConfig,
    Config,
    DeadLetterConfig,
    DedupeConfig,
    RouteConfig,
    Sinks,
    Sources,
    Spool,
    Workers,
    processes,
    spool_size,
)
from pipeline.config.problem import ConfigProblem, Path
from pipeline.config.registry import Registry
from pipeline.config.suggest import did_you_mean
from pipeline.config.tree import Tree
from pipeline.core.config import Field, Section
from pipeline.core.sink import Sink
from pipeline.core.template import Template
from pipeline.core.types import Listen, format_size
from pipeline.limacharlie.config import OrgConfig
from pipeline.spool.disk import DiskSpoolConfig
from pipeline.spool.memory import MemorySpoolConfig

LETTER_ROOM = 64 << 10
"""Bytes of a dead letter beside its record, at most."""
DEDUPE_ENTRY = 32
"""Bytes that a disk spool needs for each id of a `dedupe`."""
_OFF = ("0", "f", "false", "n", "no", "off")
"""What a text may be that means false, as one from a substitution."""
_NAMED = ("orgs", "sources", "sinks", "routes")
_ID = re.compile(r"[a-z][a-z0-9_-]{0,62}")


def _problem(tree: Tree, path: Path, what: str, fix: str = "", *, at_key: bool = False) -> ConfigProblem:
    mark = tree.key(path) if at_key else tree.value(path)
    return ConfigProblem(what, fix=fix, file=tree.file, mark=mark, path=path)


def check_names(tree: Tree) -> Iterator[ConfigProblem]:
    """Yield mistakes in names. Looks at the data as written, so that it works while other things are still wrong."""
    ids = {section: _mapping(tree.data.get(section)) for section in ("orgs", "sources", "sinks", "routes")}
    for section, members in ids.items():
        for name in members:
            if not _ID.fullmatch(name):
                yield _problem(
                    tree,
                    (section, name),
                    "a name has lower-case letters, digits, _ and -, begins with a letter and has at most 63 characters",
                    at_key=True,
                )
    for name, route in ids["routes"].items():
        for key, section in (("from", "sources"), ("to", "sinks")):
            path: Path = ("routes", name, key)
            yield from _references(tree, path, _mapping(route).get(key), section, ids[section])
    yield from _filter_names(tree, ids["routes"])
    for name, source in ids["sources"].items():
        orgs = _mapping(source).get("orgs", "all")
        if orgs != "all":
            yield from _references(tree, ("sources", name, "orgs"), orgs, "orgs", ids["orgs"])


def _references(tree: Tree, path: Path, value: Any, section: str, known: dict[str, Any]) -> Iterator[ConfigProblem]:
    names = value if isinstance(value, list) else [value]
    for index, name in enumerate(names):
        place: Path = (*path, index) if isinstance(value, list) else path
        if not isinstance(name, str):
            continue  # the model says so
        if name not in known:
            shown = "this name" if place in tree.substituted else repr(name)
            listed = f"There are: {', '.join(known)}." if known else f"The section `{section}` has none."
            guess = "" if place in tree.substituted else did_you_mean(name, known)
            yield _problem(tree, place, f"{shown} is not one of the {section}", guess + listed)
        elif name in names[:index]:
            yield _problem(tree, place, "this name is in the list twice", "Remove one.")


def _filter_names(tree: Tree, routes: dict[str, Any]) -> Iterator[ConfigProblem]:
    used: set[str] = set()
    for route, content in routes.items():
        filters = _mapping(content).get("filters")
        for index, one in enumerate(filters if isinstance(filters, list) else ()):
            path: Path = ("routes", route, "filters", index, "name")
            name = _mapping(one).get("name")
            if name is None:
                name = f"{route}.{index}"
            elif not isinstance(name, str):
                continue  # the model says so
            elif not _ID.fullmatch(name):
                yield _problem(
                    tree, path, "a filter's name has lower-case letters, digits, _ and -, and begins with a letter"
                )
            if name in used:
                yield _problem(tree, path, "another filter has this name", "Give each its own.")
            used.add(name)


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


class Parts(Section):
    """Those sections that are checked against each other; what has a mistake of its own is left out, or None."""

    model_config = ConfigDict(extra="ignore")

    orgs: dict[str, OrgConfig] = Field(default_factory=dict)
    sources: Sources = Field(default_factory=dict)
    sinks: Sinks = Field(default_factory=dict)
    spool: Spool | None = MemorySpoolConfig()
    routes: dict[str, RouteConfig] = Field(default_factory=dict)
    dead_letter: DeadLetterConfig | None = DeadLetterConfig()
    admin: AdminConfig | None = None
    workers: Workers | None = 1

    @property
    def processes(self) -> int:
        return processes(self.workers or 1)


def sound_parts(data: Mapping[str, Any], mistakes: Iterable[Path], registry: Registry) -> Parts:
    """Read what has no mistake: a member of `orgs`, `sources`, `sinks` and `routes`, or another section as a whole."""
    broken = {path[: 2 if path[0] in _NAMED else 1] for path in mistakes if path}
    rest: dict[str, Any] = {}
    for section, value in data.items():
        if section not in _NAMED:
            rest[section] = None if (section,) in broken else value
        elif (section,) not in broken:
            rest[section] = {name: member for name, member in value.items() if (section, name) not in broken}
    return Parts.model_validate(rest, context={"registry": registry})


def check_together(parts: Parts, tree: Tree, registry: Registry) -> Iterator[ConfigProblem]:
    """Yield mistakes in how the sections fit together."""
    yield from _memory_marks(parts, tree, registry)
    yield from _organizations(parts, tree)
    yield from _sizes(parts, tree)
    yield from _dedupe(parts, tree)
    yield from _backfill(parts, tree)
    if parts.processes > 1:
        yield from _workers(parts, tree, registry)
    yield from _shared_paths(parts, tree)
    yield from _shared_addresses(parts, tree)


def _memory_marks(parts: Parts, tree: Tree, registry: Registry) -> Iterator[ConfigProblem]:
    if not isinstance(parts.spool, MemorySpoolConfig):
        return
    for name, sink in parts.sinks.items():
        kind = registry.component("sinks", sink.type)
        if issubclass(kind, Sink) and kind.needs_disk_spool:
            yield _problem(
                tree,
                ("sinks", name, "type"),
                f"a sink of type `{sink.type}` needs the disk spool: what it did must be known after a crash",
                "Add `spool: {type: disk, path: …}`.",
            )


def _organizations(parts: Parts, tree: Tree) -> Iterator[ConfigProblem]:
    owners: dict[str, str] = {}
    for name, org in parts.orgs.items():
        if org.oid is None:
            yield _problem(tree, ("orgs", name), "this organization has no oid", "Give its `oid`.", at_key=True)
        elif (owner := owners.setdefault(org.oid, name)) != name:
            yield _problem(tree, ("orgs", name, "oid"), f"`{owner}` has the same oid", "Remove one of the two.")


def _sizes(parts: Parts, tree: Tree) -> Iterator[ConfigProblem]:
    number = parts.processes
    size = spool_size(parts.spool, number) if parts.spool is not None else 0
    split = parts.spool is not None and size < parts.spool.max_size
    share = f", which {number} workers share" if split else ""
    for name, source in parts.sources.items():
        if parts.spool is not None and source.max_record * 4 > size:
            yield _problem(
                tree,
                ("sources", name, "max_record"),
                f"one record may have {format_size(source.max_record)}, more than a quarter of the spool's"
                f" {format_size(parts.spool.max_size)}{share}",
                f"Set max_record to at most {format_size(size // 4)},"
                f" or spool.max_size to at least {format_size(source.max_record * 4 * (number if split else 1))}.",
            )
    if parts.dead_letter is None or not parts.sources:
        return
    name, source = max(parts.sources.items(), key=lambda item: item[1].max_record)
    # Quotes and backslashes take two bytes each in the text of a letter.
    need = (2 * source.max_record + LETTER_ROOM) * number
    if parts.dead_letter.max_size < need:
        yield _problem(
            tree,
            ("dead_letter", "max_size"),
            f"a record of the source `{name}` may have {format_size(source.max_record)}, and its letter may never fit:"
            " the lane would wait for ever",
            f"Set dead_letter.max_size to at least {-(-need // 2**20)}MiB, or lower the source's max_record.",
        )


def _dedupe(parts: Parts, tree: Tree) -> Iterator[ConfigProblem]:
    """What routes remember is a part of the disk spool, and must leave room for the records."""
    if not isinstance(parts.spool, DiskSpoolConfig):
        return
    asked = {
        name: DedupeConfig() if route.dedupe is True else route.dedupe
        for name, route in parts.routes.items()
        if route.dedupe
    }
    need = sum(one.entries for one in asked.values() if isinstance(one, DedupeConfig)) * DEDUPE_ENTRY
    if need * 4 > parts.spool.max_size:
        name = next(iter(asked))
        yield _problem(
            tree,
            ("routes", name, "dedupe"),
            f"the ids that `dedupe` remembers may take {format_size(need)}, more than a quarter of the spool's"
            f" {format_size(parts.spool.max_size)}",
            f"Set dedupe.entries to at most {parts.spool.max_size // 4 // DEDUPE_ENTRY // len(asked)},"
            f" or spool.max_size to at least {-(-need * 4 // 2**20)}MiB.",
        )


def _backfill(parts: Parts, tree: Tree) -> Iterator[ConfigProblem]:
    """What is fetched again must be told from what was delivered, also after a crash."""
    for name, source in parts.sources.items():
        if getattr(source, "backfill", False) is False:
            continue
        path: Path = ("sources", name, "backfill")
        if isinstance(parts.spool, MemorySpoolConfig):
            fix = "Set `spool: {type: disk, path: …}`, or remove it."
            yield _problem(tree, path, "`backfill` needs the disk spool, which knows what was delivered", fix)
        for other, route in parts.routes.items():
            if name in route.from_ and route.dedupe is False:
                what = f"`backfill` needs `dedupe` on the route `{other}`, or records would come twice"
                yield _problem(tree, path, what, f"Set `routes.{other}.dedupe: true`.")


def _workers(parts: Parts, tree: Tree, registry: Registry) -> Iterator[ConfigProblem]:
    """What several processes cannot do right."""
    fix = "Set `workers: 1`."
    for name, sink in parts.sinks.items():
        if getattr(registry.component("sinks", sink.type), "alone", False):
            what = (
                f"a sink of the type `{sink.type}` works in one process only, and there are {parts.processes} workers"
            )
            yield _problem(tree, ("sinks", name, "type"), what, fix)
    for name, route in _mapping(tree.data.get("routes")).items():
        if str(_mapping(route).get("dedupe", False)).lower() not in _OFF:
            what = "each worker would know only the ids that it has seen itself, so `dedupe` works in one process only"
            yield _problem(tree, ("routes", name, "dedupe"), what, fix)


def _shared_paths(parts: Parts, tree: Tree) -> Iterator[ConfigProblem]:
    owners: dict[pathlib.Path, str] = {}
    for name, sink in parts.sinks.items():
        template = getattr(sink, "path", None)
        if sink.type != "file" or not isinstance(template, Template):
            continue
        path = pathlib.Path(template.text)
        if (owner := owners.setdefault(path, name)) != name:
            yield _problem(
                tree,
                ("sinks", name, "path"),
                f"the sinks `{owner}` and `{name}` have the same path",
                "Give each its own, or let the routes share one sink.",
            )


def _shared_addresses(parts: Parts, tree: Tree) -> Iterator[ConfigProblem]:
    listeners: list[tuple[str, Path, Any]] = [
        (f"the source `{name}`", ("sources", name, "listen"), getattr(source, "listen", None))
        for name, source in parts.sources.items()
    ]
    if parts.admin is not None:
        listeners.append(("the section `admin`", ("admin", "listen"), parts.admin.listen))
    owners: dict[Listen, str] = {}
    for listener, path, address in listeners:
        if not isinstance(address, Listen) or address.port == 0:
            continue
        if (owner := owners.setdefault(address, listener)) != listener:
            yield _problem(
                tree, path, f"{owner} and {listener} both listen on {address}", "Give each a port of its own."
            )


def warnings(config: Config, tree: Tree) -> Iterator[ConfigProblem]:
    """Yield what is allowed but hardly meant."""
    lanes: dict[tuple[str, str], str] = {}
    for name, route in config.routes.items():
        for source in route.from_:
            for sink in route.to:
                if (other := lanes.setdefault((source, sink), name)) != name:
                    yield _problem(
                        tree,
                        ("routes", name),
                        f"`{source}` reaches `{sink}` by the route `{other}` too",
                        "A record that passes both is written twice.",
                        at_key=True,
                    )
            if config.sources[source].type == "ai_session" and not route.dedupe:
                yield _problem(
                    tree,
                    ("routes", name),
                    f"after a restart `{source}` gives its sessions from their beginning again",
                    "Set `dedupe: true`, with a disk spool, or these records come twice.",
                    at_key=True,
                )
    for section, members, reached in (
        ("sources", config.sources, {source for source, _ in lanes}),
        ("sinks", config.sinks, {sink for _, sink in lanes}),
    ):
        for name in members:
            if name not in reached:
                what = "no route reads this source" if section == "sources" else "no route leads to this sink"
                fix = "Its records are dropped." if section == "sources" else "Nothing is written to it."
                yield _problem(tree, (section, name), what, fix, at_key=True)
