"""`lc-pipeline validate`: is a configuration right, and answers what it names."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipeline.cli.options import Options, config_argument, configure_log
from pipeline.cli.render import coloured, exit_code, printable, render
from pipeline.core.errors import ConfigError, PipelineError

if TYPE_CHECKING:  # they import all of pydantic and YAML
    from pipeline.config.load import Loaded
    from pipeline.config.model import Config

Results = Sequence[tuple[str, PipelineError | None]]


@click.command(
    "validate",
    epilog="""\b
Examples:
  lc-pipeline validate lc.yaml
  lc-pipeline validate lc.yaml --connect
  lc-pipeline validate lc.yaml --json | jq .problems""",
)
@config_argument
@click.option("--connect", is_flag=True, help="Also connect to what it names, without moving a record.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object.")
@click.pass_obj
def command(options: Options, config: Path, connect: bool, as_json: bool) -> int:
    """Check the configuration file CONFIG.

    All mistakes are shown at once, each with its place in the file. Without --connect nothing is connected to and no port is
    bound.
    """
    from pipeline.config.load import load

    try:
        loaded = load(config)
    except ConfigError as error:
        if not as_json:
            raise
        _print_json(error.problems or (error,), (), ())
        return error.exit_code
    try:
        results = _connect(loaded, options) if connect else ()
    except PipelineError as error:
        if not as_json:
            raise
        _print_json((error,), loaded.warnings, ())
        return error.exit_code
    if as_json:
        _print_json((), loaded.warnings, results)
    else:
        for warning in loaded.warnings:
            click.echo(render(warning, colour=coloured(sys.stderr), label="Warning"), err=True)
        click.echo(f"{printable(str(config))} is valid.\n\n{summary(loaded.config)}")
        _print_results(results)
    failures = [error for _, error in results if error]
    return exit_code(ExceptionGroup("connect", failures)) if failures else 0


def _connect(loaded: Loaded, options: Options) -> Results:
    from pipeline.engine.check import connect

    configure_log(options, loaded.config.log)
    return asyncio.run(connect(loaded))


def summary(config: Config) -> str:
    """Return a table of sources, sinks and routes."""
    rows = [("SOURCE", "TYPE", "STREAM", "ORGS" if config.orgs else "")]
    for name, source in config.sources.items():
        orgs = source.orgs if isinstance(source.orgs, str) else ", ".join(source.orgs)
        rows.append((name, source.type, source.stream, orgs if config.orgs else ""))
    rows += [("", "", "", ""), ("SINK", "TYPE", "", "")]
    rows += [(name, sink.type, "", "") for name, sink in config.sinks.items()]
    rows += [("", "", "", ""), ("ROUTE", "FROM", "FILTERS", "TO")]
    for name, route in config.routes.items():
        filters = " → ".join(one.name or one.type for one in route.filters) or "none"
        rows.append((name, ", ".join(route.from_), filters, ", ".join(route.to)))
    return table(rows)


def table(rows: Sequence[Sequence[str]]) -> str:
    """Return rows as lines with aligned columns."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(printable(cell).ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def _print_results(results: Results) -> None:
    if results:
        click.echo()
    for name, error in results:
        if error is None:
            click.echo(f"{printable(name)}: ok")
        else:
            click.echo(f"{printable(name)}: failed")
            click.echo(render(error, colour=coloured(sys.stdout)))


def _print_json(problems: Sequence[PipelineError], warnings: Sequence[PipelineError], results: Results) -> None:
    checks = [{"component": name, "ok": error is None, **(_facts(error) if error else {})} for name, error in results]
    content = {
        "ok": not problems and all(check["ok"] for check in checks),
        "problems": [_facts(problem) for problem in problems],
        "warnings": [_facts(warning) for warning in warnings],
        "connect": checks,
    }
    click.echo(json.dumps(content, indent=2))


def _facts(error: PipelineError) -> dict[str, Any]:
    from pipeline.config.problem import ConfigProblem, show

    facts: dict[str, Any] = {"code": error.code, "what": error.what, "where": error.where, "fix": error.fix}
    if isinstance(error, ConfigProblem):
        line, column = error.mark or (None, None)
        facts |= {"file": error.file, "line": line, "column": column, "path": show(error.path)}
    return facts
