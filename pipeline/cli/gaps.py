"""`lc-pipeline gaps`: the intervals in which records may be missing."""

from __future__ import annotations

import dataclasses
import json
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipeline.cli.spool import folders
from pipeline.cli.validate import table
from pipeline.core.types import format_duration

if TYPE_CHECKING:  # what is behind it would make `--help` slow
    from pipeline.engine.gaps import Gap


class _ListUnlessTold(click.Group):
    """`gaps SPOOL` is `gaps list SPOOL`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and args[0] not in (*self.commands, "--help", "-h"):
            args = ["list", *args]
        return super().parse_args(ctx, args)


@click.group(
    "gaps",
    cls=_ListUnlessTold,
    epilog="""\b
Examples:
  lc-pipeline gaps lc.yaml
  lc-pipeline gaps /data/spool --json

\b
SPOOL is the folder of a disk spool, or a configuration that has one. It may be in use.
A gap is open while it lasts, then closed.""",
)
def command() -> None:
    """List the intervals in which records may be missing: `gaps SPOOL`."""


@command.command("list", epilog="\b\nExample:\n  lc-pipeline gaps lc.yaml")
@click.argument("spool", type=click.Path(exists=True, path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def list_(spool: Path, as_json: bool) -> None:
    """List the gaps that SPOOL knows, the oldest first."""
    found = [(folder, gap) for folder in folders(spool) for gap in read(folder)]
    found.sort(key=lambda one: one[1].start)
    now = time.time()
    if as_json:
        facts = [
            {
                **dataclasses.asdict(gap), "id": gap.number, "start": _when(gap.start),
                "end": _when(gap.end) if gap.end is not None else None,
                "seconds": round(gap.seconds(now), 3), "spool": str(folder),
            }
            for folder, gap in found
        ]  # fmt: skip
        for one in facts:
            del one["number"]
        click.echo(json.dumps(facts, indent=2))
        return
    rows = [("ID", "LOG", "FROM", "TO", "LENGTH", "REASON", "STATE", "RECORDS")]
    rows += [
        (
            str(gap.number), str(gap.log), _when(gap.start), _when(gap.end) if gap.end is not None else "",
            format_duration(round(gap.seconds(now), 1)), gap.reason, gap.state.replace("_", " "), _records(gap),
        )
        for _, gap in found
    ]  # fmt: skip
    click.echo(table(rows) if found else "No gaps.")


def read(folder: Path) -> list[Gap]:
    """The gaps in the folder of a spool."""
    from pipeline.engine.gaps import TABLE, Gap
    from pipeline.spool.inspection import facts

    return [Gap.parse(text) for text in facts(folder, TABLE).values()]


def _when(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _records(gap: Gap) -> str:
    """What is known of the records of a gap."""
    parts = [f"{gap.records:,} missing"] if gap.records else []
    if gap.state in ("filled", "filling") or gap.fetched:
        parts.append(f"{gap.fetched:,} fetched, {gap.known:,} known, {gap.added:,} added")
    if gap.text:
        parts.append(gap.text)
    return "; ".join(parts)
