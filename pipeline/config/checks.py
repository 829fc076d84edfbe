"""What no section can know alone: do the names fit, do the limits fit together."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from pipeline.config.model import Config, filter_id
from pipeline.config.problem import ConfigProblem, Path
from pipeline.config.registry import SPOOLS
from pipeline.config.suggest import did_you_mean
from pipeline.config.tree import Tree
from pipeline.core.types import format_size

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


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def check_limits(config: Config, tree: Tree) -> Iterator[ConfigProblem]:
    """Yield mistakes in how the sections of a valid configuration fit together."""
    if config.spool.type not in SPOOLS:
        yield _problem(
            tree,
            ("spool", "type"),
            f"this version has no {config.spool.type} spool",
            f"There is: {', '.join(SPOOLS)}.",
        )
    for name, source in config.sources.items():
        if source.max_record * 4 > config.spool.max_size:
            yield _problem(
                tree,
                ("sources", name, "max_record"),
                f"one record may have {format_size(source.max_record)}, more than a quarter of the spool's"
                f" {format_size(config.spool.max_size)}",
                f"Set max_record to at most {format_size(config.spool.max_size // 4)},"
                f" or spool.max_size to at least {format_size(source.max_record * 4)}.",
            )
    owners: dict[str, str] = {}
    for name, org in config.orgs.items():
        if org.oid is None:
            yield _problem(tree, ("orgs", name), "this organization has no oid", "Give its `oid`.", at_key=True)
        elif (owner := owners.setdefault(org.oid, name)) != name:
            yield _problem(tree, ("orgs", name, "oid"), f"{owner} has the same oid", "Remove one of the two.")
    used: set[str] = set()
    for name, route in config.routes.items():
        if route.dedupe:
            yield _problem(tree, ("routes", name, "dedupe"), "dedupe comes with the disk spool", "Remove it for now.")
        for index, one in enumerate(route.filters):
            path: Path = ("routes", name, "filters", index, "name")
            if one.name is not None and not _ID.fullmatch(one.name):
                yield _problem(
                    tree, path, "a filter's name has lower-case letters, digits, _ and -, and begins with a letter"
                )
            if (id_ := filter_id(name, index, one)) in used:
                yield _problem(tree, path, "another filter has this name", "Give each its own.")
            used.add(id_)


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
                        f"{source} reaches {sink} by the route {other} too",
                        "A record that passes both is written twice.",
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
