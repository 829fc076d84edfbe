"""The reference of the configuration, made from its models: Markdown for people, JSON Schema for editors."""

from __future__ import annotations

import inspect
import re
import typing
from collections.abc import Iterable, Iterator
from enum import Enum
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union

from pydantic import BaseModel, BeforeValidator, Field, SecretStr, create_model
from pydantic.fields import FieldInfo
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import PydanticUndefined

from pipeline.config.docstrings import meanings
from pipeline.config.model import Config, RouteConfig, one_or_more
from pipeline.config.registry import KINDS, Kind, Registry, config_class
from pipeline.core.config import ComponentConfig, Section
from pipeline.core.template import Template
from pipeline.core.types import Listen, RecordPath, format_duration, format_size, parse_duration, parse_size

_WORDS: dict[Any, str] = {
    Any: "anything",
    bool: "true or false",
    dict: "mapping",
    float: "number",
    int: "whole number",
    list: "list",
    Listen: "address to listen on",
    NoneType: "",
    Path: "path",
    RecordPath: "record path",
    SecretStr: "secret",
    str: "text",
    Template: "template",
    tuple: "list",
}


def _type(annotation: Any, metadata: Iterable[Any] = ()) -> str:
    """What a value may be, in words."""
    functions = {one.func for one in metadata if isinstance(one, BeforeValidator)}
    if parse_duration in functions:
        return "duration"
    if parse_size in functions:
        return "size"
    if one_or_more in functions:
        return "name or list of names"
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        return _type(arguments[0], arguments[1:])
    if origin is Literal:
        return ", ".join(f"`{argument}`" for argument in arguments)
    if origin in (Union, UnionType):
        # the order of a union's members depends on which equal union was made first in the process
        return " or ".join(sorted(set(filter(None, map(_type, arguments))), reverse=True))
    if origin in (list, tuple):
        return f"list of {_type(arguments[0])}".replace("of mapping", "of mappings")
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "mapping"
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return ", ".join(f"`{member.value}`" for member in annotation)
    return _WORDS.get(origin or annotation, getattr(annotation, "__name__", str(annotation)))


def _shown(value: Any, kind: str) -> str:
    """A default as a person would write it; "" for what says nothing."""
    if value is PydanticUndefined:
        return "**required**"
    if value is None or isinstance(value, BaseModel) or value in ({}, [], ()):
        return ""
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if "duration" in kind and isinstance(value, int | float):
        return f"`{format_duration(value)}`"
    if "size" in kind and isinstance(value, int):
        return f"`{format_size(value)}`"
    return f"`{value}`"


def _default(field: FieldInfo) -> Any:
    return field.get_default(call_default_factory=True, validated_data={})


def _rows(model: type[BaseModel], before: str = "", given: Any = None) -> Iterator[tuple[str, str, str, str]]:
    """Key, type, default and meaning of each field, those of the model itself before those that it inherits.

    The fields of a nested section follow it; ``given`` is the section that stands for an absent one, with its own defaults.
    """
    own, texts = inspect.get_annotations(model), meanings(model)
    for name in sorted(model.model_fields, key=lambda name: name not in own):
        if name == "type" and issubclass(model, ComponentConfig):
            continue
        field = model.model_fields[name]
        key = f"{before}{field.alias or name}"
        kind = _type(field.annotation, field.metadata)
        default = _default(field) if given is None else getattr(given, name)
        yield key, kind, _shown(default, kind), texts.get(name, "")
        for section in _sections(field.annotation):
            yield from _rows(section, f"{key}.", default if isinstance(default, section) else None)


def _sections(annotation: Any) -> Iterator[type[Section]]:
    """The sections that a field may hold; not those under names that a person chooses."""
    if isinstance(annotation, type) and issubclass(annotation, Section) and not issubclass(annotation, ComponentConfig):
        yield annotation
    elif typing.get_origin(annotation) in (Union, UnionType, Annotated):
        for argument in typing.get_args(annotation):
            yield from _sections(argument)


def _cell(text: str) -> str:
    """Docstrings mark code with two backticks or one; a table's cell is one line."""
    return " ".join(text.replace("``", "`").replace("|", "\\|").split())


def _table(model: type[BaseModel], before: str = "") -> str:
    rows = [
        f"| `{key}` | {_cell(kind)} | {default} | {_cell(text)} |" for key, kind, default, text in _rows(model, before)
    ]
    return "\n".join(["| Key | Value | Default | Meaning |", "|---|---|---|---|", *rows]) if rows else "It has no keys."


def _doc(model: type[BaseModel]) -> str:
    return inspect.cleandoc(model.__dict__.get("__doc__") or "").replace("``", "`")


def _config(registry: Registry, kind: Kind, name: str) -> type[ComponentConfig]:
    return config_class(registry.component(kind, name))


def summary(registry: Registry, kind: Kind, name: str) -> str:
    """The first sentence about a component."""
    return re.split(r"(?<=[.;])\s", _doc(_config(registry, kind, name)), maxsplit=1)[0].rstrip(".;")


def component_page(registry: Registry, kind: Kind, name: str) -> str:
    """Markdown about one component and all its keys."""
    config = _config(registry, kind, name)
    return f"## {kind[:-1].capitalize()} `{name}`\n\n{_doc(config)}\n\n{_table(config)}\n"


def component_schema(registry: Registry, kind: Kind, name: str) -> dict[str, Any]:
    """The JSON Schema of what one component takes."""
    model = _derived(f"{kind[:-1]}_{name}", _config(registry, kind, name), type=(Literal[name], ...))
    schema: dict[str, Any] = _in_order(model.model_json_schema(schema_generator=_Schema))
    return schema


def components_page(registry: Registry, kind: Kind) -> str:
    """Markdown about all components of a kind."""
    pages = [component_page(registry, kind, name) for name in registry.names(kind)]
    return "\n".join([f"# {kind.capitalize()}\n", *pages])


def sections_page() -> str:
    """Markdown about all sections of a configuration but the components."""
    return "\n".join(["# Sections of a configuration\n", *map(_section, Config.model_fields)])


def _section(name: str) -> str:
    field, meaning = Config.model_fields[name], meanings(Config)[name]
    text = f"## `{name}`\n\n{meaning}\n"
    if name in KINDS:
        return f"{text}\nEach has a name of your choice; see [{name}]({name}.md).\n"
    annotation, keys = field.annotation, f"{name}."
    if typing.get_origin(annotation) is dict:
        annotation, keys = typing.get_args(annotation)[1], f"{name}.NAME."
    models = list(_sections(annotation))
    for model in models:
        doc = _doc(model)
        text = f"## `{name}`\n" if doc.startswith(meaning.rstrip(".")) else text
        text += f"\n{doc}\n\n{_table(model, keys)}\n"
    if not models:
        kind = _type(annotation, field.metadata)
        text += f"\n{kind.capitalize()}; default {_shown(_default(field), kind)}.\n"
    return text


class _Schema(GenerateJsonSchema):
    """Says what each field means. Where a number or a truth value stands, a substitution may stand, too."""

    def model_schema(self, schema: Any) -> JsonSchemaValue:
        result = super().model_schema(schema)
        model: type[BaseModel] = schema["cls"]
        for name, meaning in meanings(model).items():
            field = result["properties"][model.model_fields[name].alias or name]
            field["description"] = meaning
        return result

    def int_schema(self, schema: Any) -> JsonSchemaValue:
        return _or_substitution(super().int_schema(schema))

    def float_schema(self, schema: Any) -> JsonSchemaValue:
        return _or_substitution(super().float_schema(schema))

    def bool_schema(self, schema: Any) -> JsonSchemaValue:
        return _or_substitution(super().bool_schema(schema))


def _or_substitution(schema: JsonSchemaValue) -> JsonSchemaValue:
    return {"anyOf": [schema, {"type": "string", "pattern": r"\$\{"}]}


def _derived(name: str, base: type[BaseModel], **fields: Any) -> Any:
    return create_model(name, __base__=base, __doc__=base.__doc__, **fields)


def _in_order(schema: Any) -> Any:
    """Sort alternatives: a union's members come in any order."""
    if isinstance(schema, dict):
        ordered = {key: _in_order(value) for key, value in schema.items()}
        if "anyOf" in ordered:
            ordered["anyOf"].sort(key=repr)
        return ordered
    return [_in_order(one) for one in schema] if isinstance(schema, list) else schema


def json_schema(registry: Registry) -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of a configuration with all components of the registry."""
    components: dict[Kind, Any] = {}
    for kind in KINDS:
        configs = [
            _derived(f"{kind[:-1]}_{name}", _config(registry, kind, name), type=(Literal[name], ...))
            for name in registry.names(kind)
        ]
        components[kind] = Annotated[Union[tuple(configs)], Field(discriminator="type")]  # noqa: UP007 - made at run time
    names: Any = str | list[str]
    route = _derived(
        "route",
        RouteConfig,
        from_=(names, Field(alias="from")),
        filters=(list.__class_getitem__(components["filters"]), []),
        to=(names, ...),
    )
    members: dict[str, Any] = {"sources": components["sources"], "sinks": components["sinks"], "routes": route}
    fields = {section: (dict.__class_getitem__((str, member)), ...) for section, member in members.items()}
    schema = _in_order(_derived("configuration", Config, **fields).model_json_schema(schema_generator=_Schema))
    return {"$schema": GenerateJsonSchema.schema_dialect, **schema, "patternProperties": {"^x-": {}}}
