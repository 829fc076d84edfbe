"""From pydantic's errors to sentences with a place in the file, in which no secret shows."""

from __future__ import annotations

import re
import typing
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from pipeline.config.model import Config
from pipeline.config.problem import ConfigProblem, Path
from pipeline.config.registry import KINDS, Kind, Registry, config_class
from pipeline.config.suggest import did_you_mean
from pipeline.config.tree import Tree
from pipeline.core.errors import ConfigError

_EXPECTED = {
    "bool": "true or false",
    "date": "a date",
    "datetime": "a date and time",
    "dict": "a mapping",
    "float": "a number",
    "int": "a whole number",
    "list": "a list",
    "mapping": "a mapping",
    "model": "a mapping",
    "path": "a path",
    "string": "text",
    "tuple": "a list",
}
"""What pydantic calls a kind of value, before the first underscore of its error type, and what we call it."""

_SHOWN = re.compile(r"(literal_error|enum|(int|float|bool)_parsing|(greater|less)_than.*)")
"""Kinds of errors whose input is shown: the field takes a choice or a number, which is no secret."""
_MISFIT = re.compile(r"literal_error|.*_(type|parsing|from_float)")
"""Kinds of errors that say that a value has another form."""
_KEY = re.compile(r"[a-z][a-z0-9_ ]*")
_SECRET_KEY = re.compile(r"key|secret|password|token|credential", re.IGNORECASE)


def explain(error: ValidationError, tree: Tree, registry: Registry) -> list[ConfigProblem]:
    """Return a problem for each mistake, at the place of the value, of the unknown key, or of the section that lacks one."""
    details = [(_path(one["loc"], tree.data, one["type"]), one) for one in error.errors(include_url=False)]
    paths = [path for path, _ in details]
    fitting = {path for path, one in details if not _MISFIT.fullmatch(one["type"])}
    found: dict[tuple[Path, bool], list[ErrorDetails]] = {}
    for path, one in details:
        of_union = len(one["loc"]) > len(path) and _MISFIT.fullmatch(one["type"]) is not None
        # one form of a union fits so far that its mistakes are inside, or in the value: that the others do not fit says nothing
        if of_union and (
            path in fitting or any(len(other) > len(path) and other[: len(path)] == path for other in paths)
        ):
            continue
        found.setdefault((path, of_union), []).append(one)
    return [_problem(path, errors, tree, registry) for (path, _), errors in found.items()]


def _path(loc: tuple[str | int, ...], data: Any, kind: str) -> Path:
    """The keys of ``loc`` that exist in the data, and one that should: ``loc`` also names which form of a union was tried."""
    path: Path = ()
    for index, part in enumerate(loc):
        if part in data if isinstance(data, Mapping) else isinstance(data, list) and part in range(len(data)):
            data = data[part]
        elif not (
            index == len(loc) - 1
            and isinstance(data, Mapping)
            and not _MISFIT.fullmatch(kind)
            and _KEY.fullmatch(str(part))
        ):
            continue
        path = (*path, part)
    return path


def _problem(path: Path, errors: list[ErrorDetails], tree: Tree, registry: Registry) -> ConfigProblem:
    kind = errors[0]["type"]
    context = errors[0].get("ctx", {})
    fix = ""
    mark = tree.value(path)
    if kind == "missing":
        what, mark = "this key is missing", tree.key(path[:-1]) or tree.key(path)
    elif kind == "extra_forbidden":
        what, mark = "this key is unknown", tree.key(path)
        known = [name for name in _known(path[:-1], tree.data, registry) if name not in _at(tree.data, path[:-1])]
        fix = did_you_mean(str(path[-1]), known) + (f"Not used yet: {', '.join(known)}." if known else "")
    elif kind == "component":
        what, fix = context["what"], context["fix"]
    else:
        what = " or ".join(sorted({_sentence(error) for error in errors}))
        what = re.sub(r" or should be ", " or ", what)
        value = errors[0]["input"]
        if path in tree.substituted:
            fix = "The value comes from a substitution and is not shown."
        elif len(errors) == 1 and _SHOWN.fullmatch(kind) and not _SECRET_KEY.search(str(path[-1:])):
            what += f", not {value!r}"[:100] if isinstance(value, str | int | float) else ""
            fix = did_you_mean(str(value), re.findall(r"'([^']*)'", str(context.get("expected", ""))))
    if _leaks(f"{what} {fix}", path, tree):
        what, fix = "this value is not valid", "It comes from a substitution; what is wrong with it is not shown."
    return ConfigProblem(what, fix=fix.strip(), file=tree.file, mark=mark, path=path)


def _sentence(error: ErrorDetails) -> str:
    name = error["type"].split("_")[0]
    if error["type"] == "union_tag_invalid":
        return f"its {error['ctx']['discriminator']} should be {error['ctx']['expected_tags'].replace(', ', ' or ')}"
    if error["type"] == "union_tag_not_found":
        return f"the key {error['ctx']['discriminator']} is missing"
    if error["type"] == "too_short":
        return "should not be empty"
    if name in _EXPECTED and error["type"].endswith(("_type", "_parsing", "_attributes_type", "_from_float")):
        return f"should be {_EXPECTED[name]}"
    text = error["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
    text = re.sub(r"^Input should ", "should ", text)
    return text.removesuffix(".")


def _leaks(text: str, path: Path, tree: Tree) -> bool:
    """Whether a text has a piece of a substituted value at this path or below."""
    for place, value in tree.substituted.items():
        if place[: len(path)] == path and value:
            size = min(4, len(value))
            if any(value[start : start + size] in text for start in range(len(value) - size + 1)):
                return True
    return False


def _at(data: Any, path: Path) -> Any:
    for part in path:
        data = data[part]
    return data


def _known(path: Path, data: Any, registry: Registry) -> list[str]:
    """The keys that the mapping at ``path`` may have."""
    models: list[type[BaseModel]] = [Config]
    for index, part in enumerate(path):
        data = data[part]
        kind = _kind(path[: index + 1])
        if kind:
            try:
                models = [config_class(registry.component(kind, str(data.get("type"))))]
            except ConfigError:
                return []
            continue
        fields = [
            field for model in models for name, field in model.model_fields.items() if part in (name, field.alias)
        ]
        if fields:
            models = [model for field in fields for model in _models(field.annotation)]
    return [field.alias or name for model in models for name, field in model.model_fields.items()]


def _kind(path: Path) -> Kind | None:
    """Which kind of component stands at this path, if one does."""
    match path:
        case ("routes", _, "filters", int()):
            return "filters"
        case (("sources" | "sinks") as kind, _):
            return KINDS[0] if kind == "sources" else KINDS[2]
    return None


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in typing.get_args(annotation):
        yield from _models(argument)
