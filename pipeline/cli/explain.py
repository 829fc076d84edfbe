"""`lc-pipeline explain`: how each route decides about its records, and why in this way."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipeline.cli.options import config_argument
from pipeline.cli.render import printable

if TYPE_CHECKING:  # they import all of pydantic and YAML
    from pipeline.config.load import Loaded
    from pipeline.engine.plan import DecodePlan, Phase


@click.command(
    "explain",
    epilog="""\b
Examples:
  lc-pipeline explain lc.yaml
  lc-pipeline explain lc.yaml --json | jq '.routes[].steps[].way'

\b
The ways, cheapest first:
  byte test    what lacks certain bytes is dropped from the block in which it came; what has them goes to the next step
  place        the record's number is enough; nothing is decoded
  projection   only the fields named are decoded
  full decode  the whole record is
  events       like full decode, with one object more for each record, for filters of other packages

\b
Sinks that look into records (stdout in `pretty`, those that act) decode them for themselves.""",
)
@config_argument
@click.option("--json", "as_json", is_flag=True, help="Print it as one JSON object.")
def command(config: Path, as_json: bool) -> None:
    """Show how the routes of CONFIG decide: which fields are decoded, by which filters, and why.

    Nothing is connected to and no port is bound.
    """
    from pipeline.config.load import load

    loaded = load(config)
    plans = decode_plans(loaded)
    deduped = {name for name, route in loaded.config.routes.items() if route.dedupe}
    if as_json:
        routes = {
            name: {"steps": [asdict(phase) for phase in plan.phases], "dedupe": name in deduped}
            for name, plan in plans.items()
        }
        click.echo(json.dumps({"routes": routes}, indent=2))
    else:
        click.echo("\n\n".join(_text(name, plan, dedupes=name in deduped) for name, plan in plans.items()))


def decode_plans(loaded: Loaded) -> Mapping[str, DecodePlan]:
    """Make the decode plan of each route."""
    from pipeline.engine.build import build
    from pipeline.kit.clock import SystemClock

    # Sources have no part in it, and may need an account.
    config = loaded.config.model_copy(update={"sources": {}})
    return {route.name: route.plan for route in build(config, {}, SystemClock(), loaded.registry).routes}


def _text(name: str, plan: DecodePlan, *, dedupes: bool) -> str:
    lines = [f"{printable(name)}:"]
    if not plan.phases:
        lines.append(
            f"  nothing to decide: every record goes on as it came{'' if dedupes else ', and the route decodes none'}"
        )
    for number, phase in enumerate(plan.phases, 1):
        lines.append(f"  {number}. {phase.way}: {phase.why}")
        lines += [f"     {label:<10} {text}" for label, text in _facts(phase)]
    if dedupes:
        lines.append(
            "  then dedupe: the id of each record that is left is decoded, or the record is hashed where it has none"
        )
    return "\n".join(lines)


def _facts(phase: Phase) -> list[tuple[str, str]]:
    rows: list[tuple[str, Any]] = [
        ("filters", phase.filters),
        ("decodes", phase.fields),
        ("looks for", [" or ".join(phase.marks)] if phase.marks else ()),
        ("for sinks", phase.values),
    ]
    return [(label, printable(", ".join(found))) for label, found in rows if found]
