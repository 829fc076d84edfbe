"""The reference is complete and up to date."""

import importlib.util
import typing
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import click
import pytest
from pydantic import BaseModel

from pipeline.cli import COMMANDS, cli
from pipeline.config.docstrings import meanings
from pipeline.config.load import load
from pipeline.config.model import Config
from pipeline.config.registry import KINDS, Registry, config_class

ROOT = Path(__file__).parents[2]
REGISTRY = Registry(installed=False)


def models(model: type[BaseModel], seen: set[type[BaseModel]]) -> Iterator[type[BaseModel]]:
    """The model and all that its fields hold."""
    if model in seen:
        return
    seen.add(model)
    yield model
    pending = [field.annotation for field in model.model_fields.values()]
    while pending:
        annotation = pending.pop()
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            yield from models(annotation, seen)
        pending += typing.get_args(annotation)


def all_models() -> list[type[BaseModel]]:
    """All sections of a configuration and all configs of components."""
    seen: set[type[BaseModel]] = set()
    tops = [config_class(REGISTRY.component(kind, name)) for kind in KINDS for name in REGISTRY.names(kind)]
    return [model for top in [Config, *tops] for model in models(top, seen)]


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    """The script that makes the reference."""
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_field_is_documented() -> None:
    """Each section says what it is for, and each of its fields what it means."""
    assert [model.__name__ for model in all_models() if not model.__dict__.get("__doc__")] == []
    assert [
        f"{model.__name__}.{name}"
        for model in all_models()
        for name in model.model_fields
        if not meanings(model).get(name) and name != "type"  # the reference has it as a heading
    ] == []


def test_the_reference_is_up_to_date(generate: ModuleType) -> None:
    """docs/reference is what `make docs` writes."""
    for name, content in generate.pages().items():
        assert (ROOT / "docs" / "reference" / name).read_text(encoding="utf-8") == content, f"Run `make docs`: {name}"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_is_documented(name: str) -> None:
    """Each command has a summary, examples, and help for each of its options."""
    context = click.Context(cli)
    command = cli.get_command(context, name)
    assert command
    assert [option.name for option in command.params if isinstance(option, click.Option) and not option.help] == []
    assert "Example" in command.get_help(click.Context(command, parent=context, info_name=name))
    assert command.help


def commands(group: click.Group, before: str = "") -> Iterator[tuple[str, click.Command]]:
    """All commands below a group, with their full names."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command
        yield f"{before}{name}", command
        if isinstance(command, click.Group):
            yield from commands(command, f"{before}{name} ")


def test_what_lists_prints_json_too() -> None:
    """Each command that lists something has `--json`."""
    listing = {name: command for name, command in commands(cli) if name.split()[-1] in ("list", "ls")}
    assert {"list", "task list", "spool ls"} <= set(listing)
    assert [name for name, one in listing.items() if "--json" not in {opt for p in one.params for opt in p.opts}] == []


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.yaml")), ids=lambda path: path.name)
def test_examples_are_valid(path: Path) -> None:
    """Each example loads without a mistake and without a warning."""
    env = {"LC_OID": "8cbe27f4-bfa1-4afb-ba19-138cd51389cd", "LC_API_KEY": "k", "LC_UID": "u", "ADDRESS": "a:4443"}
    assert load(path, env | {"INITECH_API_KEY": "k"}).warnings == ()
