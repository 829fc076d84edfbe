"""`lc-pipeline list`: which components there are, and what one takes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click
from click.shell_completion import CompletionItem

from pipeline.cli.validate import table
from pipeline.core.errors import ConfigError, NotFoundError

if TYPE_CHECKING:  # the models behind it would make `--help` slow
    from pipeline.config.registry import Kind, Registry


def _complete(_ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    from pipeline.config.registry import KINDS, Registry

    registry = Registry()
    names = {f"{kind}.{name}" for kind in KINDS for name in registry.names(kind)}
    names |= {name.partition(".")[2] for name in names}
    return [CompletionItem(name) for name in sorted(names) if name.startswith(incomplete)]


@click.command(
    "list",
    epilog="""\b
Examples:
  lc-pipeline list
  lc-pipeline list --json | jq -r '.[].type'
  lc-pipeline list kafka
  lc-pipeline list sources.file""",
)
@click.argument("component", required=False, shell_complete=_complete)
@click.option("--json", "as_json", is_flag=True, help="Print JSON; of COMPONENT, the JSON Schema of its keys.")
def command(component: str | None, as_json: bool) -> None:
    """List all sources, filters and sinks, or describe COMPONENT with all its keys."""
    from pipeline.config.reference import component_page, component_schema
    from pipeline.config.registry import KINDS, Registry
    from pipeline.config.suggest import did_you_mean

    registry = Registry()
    if component is None:
        rows = [(kind, name, _describe(registry, kind, name)) for kind in KINDS for name in registry.names(kind)]
        if as_json:
            keys = ("kind", "type", "summary")
            click.echo(json.dumps([dict(zip(keys, row, strict=True)) for row in rows], indent=2))
        else:
            click.echo(table([("KIND", "TYPE", "WHAT IT DOES"), *rows]))
        return
    kinds = [kind for kind in KINDS if component.removeprefix(f"{kind}.") in registry.names(kind)]
    if not kinds:
        names = [name for kind in KINDS for name in registry.names(kind)]
        raise NotFoundError(
            f"there is no component {component!r}", fix=f"{did_you_mean(component, names)}`lc-pipeline list` shows all."
        )
    found = [(kind, component.removeprefix(f"{kind}.")) for kind in kinds]
    if as_json:
        schemas = [
            {"kind": kind, "type": name, "summary": _describe(registry, kind, name)}
            | {"schema": component_schema(registry, kind, name)}
            for kind, name in found
        ]
        click.echo(json.dumps(schemas, indent=2))
    else:
        click.echo("\n".join(component_page(registry, kind, name) for kind, name in found))


def _describe(registry: Registry, kind: Kind, name: str) -> str:
    from pipeline.config.reference import summary

    try:
        return summary(registry, kind, name)
    except ConfigError as error:  # one broken package must not hide the others
        return f"Unusable: {error.what}."
