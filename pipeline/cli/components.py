"""`lc-pipeline list`: which components there are, and what one takes."""

from __future__ import annotations

import click
from click.shell_completion import CompletionItem

from pipeline.cli.validate import table
from pipeline.core.errors import ConfigError, NotFoundError


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
  lc-pipeline list kafka
  lc-pipeline list sources.file""",
)
@click.argument("component", required=False, shell_complete=_complete)
def command(component: str | None) -> None:
    """List all sources, filters and sinks, or describe COMPONENT with all its keys."""
    from pipeline.config.reference import component_page, summary
    from pipeline.config.registry import KINDS, Registry
    from pipeline.config.suggest import did_you_mean

    registry = Registry()
    if component is None:
        rows = [("KIND", "TYPE", "WHAT IT DOES")]
        for kind in KINDS:
            for name in registry.names(kind):
                try:
                    rows.append((kind, name, summary(registry, kind, name)))
                except ConfigError as error:  # one broken package must not hide the others
                    rows.append((kind, name, f"Unusable: {error.what}."))
        click.echo(table(rows))
        return
    kinds = [kind for kind in KINDS if component.removeprefix(f"{kind}.") in registry.names(kind)]
    if not kinds:
        names = [name for kind in KINDS for name in registry.names(kind)]
        raise NotFoundError(
            f"there is no component {component!r}", fix=f"{did_you_mean(component, names)}`lc-pipeline list` shows all."
        )
    click.echo("\n".join(component_page(registry, kind, component.removeprefix(f"{kind}.")) for kind in kinds))
