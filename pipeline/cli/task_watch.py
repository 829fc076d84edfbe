"""`lc-pipeline task watch`: the answers of sensors as they come."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from pipeline.cli.account import account_options, json_option, with_account
from pipeline.cli.options import Options, Seconds
from pipeline.cli.render import printable
from pipeline.core.errors import NotFoundError, UnavailableError, UsageError

if TYPE_CHECKING:  # they import an HTTP client, and `--help` must not
    from pipeline.limacharlie.client import LimaCharlie
    from pipeline.limacharlie.task_watch import Progress, TaskWatch


@click.command(
    "watch",
    epilog="""\b
Examples:
  lc-pipeline task watch incident-7
  lc-pipeline task watch triage --timeout 1h --json | jq .event

\b
Ends with 0 when all have answered, 1 when some have not in time, 3 when no command with this context waits.""",
)
@click.argument("context")
@click.option("--timeout", type=Seconds(), help="How long to watch, like 1h.  [default: until the commands expire]")
@click.option("--answers", type=click.IntRange(1), help="Wait for so many answers, even if no command waits now.")
@account_options
@json_option
@click.pass_obj
def watch(
    options: Options | None,
    /,
    context: str,
    timeout: float | None,
    answers: int | None,
    as_json: bool,
    oid: str | None,
    environment: str | None,
) -> None:
    """Print the answers to commands with CONTEXT as they come, until all sensors have answered or the commands expire.

    CONTEXT stands for all contexts that begin with it and a slash, too. With --json each answer is one line.
    """
    if not context.strip():
        raise UsageError("The context is empty.", where="CONTEXT")

    async def work(account: LimaCharlie) -> None:
        from pipeline.limacharlie.task_watch import TaskWatch

        async with TaskWatch(account, context, total=answers) as watched:
            progress = await watched.look()
            if progress.wanted == 0:
                raise NotFoundError(
                    f"No command with the context {context!r} waits.",
                    fix="Sensors that were online have answered already: send with --watch, or give --answers.",
                )
            number = _number(progress)
            click.echo(f"Waiting for {f'{number} of' if progress.wanted is None else number} answers.", err=True)
            await follow(watched, timeout, as_json=as_json)

    with_account(options, oid, environment, work)


async def follow(watched: TaskWatch, timeout: float | None, *, as_json: bool) -> None:
    """Print answers as they come. Raises `UnavailableError` unless all did."""
    from pipeline.limacharlie import records

    async for doc in watched.answers(timeout):
        if as_json:
            click.echo(json.dumps(doc))
            continue
        routing = records.routing(doc)
        head = f"{routing.get('hostname') or '?'} ({routing.get('sid') or '?'}): {records.event_type(doc) or '?'}"
        click.echo(printable(head))
        # ASCII only: what a sensor sends must not steer the terminal.
        click.echo(json.dumps(records.payload(doc), indent=2))
    progress = watched.progress
    told = f"Answers: {progress.answered:,} of {_number(progress)}"
    if progress.gone:
        told += f"; {progress.gone:,} commands wait no more and were not confirmed"
    if progress.gaps:
        told += f"; the stream was lost {progress.gaps:,} times meanwhile"
    if progress.gone or not progress.complete:
        raise UnavailableError(f"{told}.")
    click.echo(f"{told}.", err=True)


def _number(progress: Progress) -> str:
    return "an unknown number" if progress.wanted is None else f"{progress.wanted + progress.gone:,}"
