"""`lc-pipeline task convert-rules`."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import click

from pipeline.cli.account import account_options, json_option, with_account
from pipeline.cli.options import Options
from pipeline.cli.render import coloured, printable, render

if TYPE_CHECKING:  # they import an HTTP client, and `--help` must not
    from pipeline.core.errors import PipelineError
    from pipeline.limacharlie.client import LimaCharlie
    from pipeline.limacharlie.convert_rules import Conversion

_INCOMPLETE_EXIT = 1


@click.command(
    "convert-rules",
    epilog="""\b
Examples:
  lc-pipeline task convert-rules
  lc-pipeline task convert-rules --no-dry-run""",
)
@click.option(
    "--dry-run/--no-dry-run", default=True, show_default=True, help="Only show what would change, or write it."
)
@account_options
@json_option
@click.pass_obj
def convert_rules(
    options: Options | None, /, dry_run: bool, oid: str | None, environment: str | None, as_json: bool
) -> int:
    """Convert rules that ask the old service of reliable tasking, so that they ask the extension.

    The exit code is 1 where a rule cannot be converted, or was changed by somebody else meanwhile.
    """

    async def work(account: LimaCharlie) -> int:
        from pipeline.limacharlie.convert_rules import find, write
        from pipeline.limacharlie.failures import ConflictError

        complete = True
        found = await find(account)
        for each in found:
            conflict: PipelineError | None = None
            if not dry_run and not each.problem:
                try:
                    await write(account, each)
                except ConflictError as error:
                    conflict = error
            written = not (dry_run or each.problem or conflict)
            complete = complete and not each.problem and conflict is None
            if as_json:
                click.echo(json.dumps(_facts(each, conflict, written=written)))
            else:
                _show(each, conflict, written=written)
        if not as_json:
            _conclude(found, dry_run=dry_run)
        return 0 if complete else _INCOMPLETE_EXIT

    return with_account(options, oid, environment, work)


def _facts(each: Conversion, conflict: PipelineError | None, *, written: bool) -> dict[str, Any]:
    return {
        "hive": each.hive,
        "rule": each.record.name,
        "written": written,
        "problem": each.problem or (str(conflict) if conflict else None),
        "changes": [{"before": before, "after": after} for before, after in each.changes],
    }


def _show(each: Conversion, conflict: PipelineError | None, *, written: bool) -> None:
    colour = coloured(sys.stdout)
    state = "converted" if written else "not converted" if each.problem or conflict else "would change"
    click.echo(f"Rule {printable(each.record.name)} in {each.hive}: {state}.")
    if each.problem:
        click.echo(f"  {printable(each.problem)} Convert it by hand.")
    if conflict is not None:
        click.echo(render(conflict, colour=colour))
    for pair in each.changes:
        for sign, tone, response in zip("-+", ("red", "green"), pair, strict=True):
            text = "\n".join(f"{sign} {line}" for line in json.dumps(response, indent=2).splitlines())
            click.echo(click.style(text, fg=tone) if colour else text)


def _conclude(found: list[Conversion], *, dry_run: bool) -> None:
    if not found:
        click.echo("No rule asks the old service.")
    elif dry_run and any(each.changes for each in found):
        click.echo("Nothing was written: do it with --no-dry-run.")
