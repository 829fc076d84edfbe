"""`lc-pipeline schema`: the JSON Schema of configurations."""

from __future__ import annotations

import json

import click


@click.command(
    "schema",
    epilog="""\b
Examples:
  lc-pipeline schema > lc-pipeline.schema.json
\b
In an editor that speaks YAML's language server, begin a configuration with
  # yaml-language-server: $schema=lc-pipeline.schema.json""",
)
def command() -> None:
    """Print the JSON Schema of configurations, with all components that are installed."""
    from pipeline.config.reference import json_schema
    from pipeline.config.registry import Registry

    click.echo(json.dumps(json_schema(Registry()), indent=2))
