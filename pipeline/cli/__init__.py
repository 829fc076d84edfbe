"""The command line. Commands are imported when they are used, so that `--help` is quick."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any, Final, Never

import click
from click.shell_completion import CompletionItem, shell_complete

from pipeline.cli.options import Options, add_to
from pipeline.cli.render import exit_code, leaves, report

NAME: Final = "lc-pipeline"
COMPLETE_VARIABLE: Final = "_LC_PIPELINE_COMPLETE"

COMMANDS: Final = {
    "run": ("pipeline.cli.run", "Run the pipelines of a configuration."),
    "tail": ("pipeline.cli.tail", "Watch detections, events or audit records; needs no configuration."),
    "task": ("pipeline.cli.task", "Send commands to sensors, online or not."),
    "session": ("pipeline.cli.session", "AI sessions: begin, follow, speak, end."),
    "validate": ("pipeline.cli.validate", "Check a configuration, and with --connect what it connects to."),
    "explain": ("pipeline.cli.explain", "Show how each route decides about records, and why so."),
    "replay": ("pipeline.cli.replay", "Feed dead letters, a log of the spool, files or a gap back in."),
    "emulate": ("pipeline.cli.emulate", "Run a local LimaCharlie."),
    "demo": ("pipeline.cli.demo", "See it work, with a local LimaCharlie."),
    "spool": ("pipeline.cli.spool", "Look into a disk spool, verify it, drop a lane."),
    "gaps": ("pipeline.cli.gaps", "List the intervals in which records may be missing, or fill them."),
    "list": ("pipeline.cli.components", "List sources, filters and sinks, or describe one."),
    "schema": ("pipeline.cli.schema", "Print the JSON Schema of configurations, for editors."),
    "completion": ("pipeline.cli.completion", "Print a completion script for bash, zsh or fish."),
}
"""Command -> the module that has it as ``command``, and its line in the list of commands."""


class Commands(click.Group):
    """Finds commands in `COMMANDS` and imports the one that is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's signature
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = import_module(COMMANDS[cmd_name][0]).command
        add_to(command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            from difflib import get_close_matches

            near = get_close_matches(args[0], COMMANDS, n=1)
            ctx.fail(f"There is no command {args[0]!r}." + (f" Did you mean {near[0]}?" if near else ""))
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - click's signature
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in COMMANDS.items()])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        if incomplete.startswith("-"):
            return click.Command.shell_complete(self, ctx, incomplete)
        return [CompletionItem(name, help=text) for name, (_, text) in COMMANDS.items() if name.startswith(incomplete)]


def _version(ctx: click.Context, _parameter: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        from pipeline import __version__

        click.echo(f"{NAME} {__version__} (Python {sys.version.split()[0]})")
        ctx.exit()


@click.group(
    NAME,
    cls=Commands,
    invoke_without_command=True,
    epilog="""\b
Examples:
  lc-pipeline demo                    see it work, without an account
  lc-pipeline tail detections         watch your detections
  lc-pipeline validate lc.yaml        check a configuration
  lc-pipeline run lc.yaml             run it

\b
Exit codes: 0 ok, 1 our fault, 2 authentication, 3 not found,
4 configuration, usage or input, 5 rate limit, 130 interrupted.""",
)
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Print the version and exit."
)
@click.pass_context
def cli(ctx: click.Context) -> None:
    """Move LimaCharlie's events, detections and audit records into Kafka, files and terminals."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


add_to(cli)


def invoke(args: Sequence[str] | None = None) -> int:
    """Run a command line (default: the process's) and return its exit code. A command may return one, too."""
    options: Options = {"debug": os.environ.get("LC_PIPELINE_DEBUG", "") not in ("", "0")}
    try:
        if instruction := os.environ.get(COMPLETE_VARIABLE):
            return shell_complete(cli, {}, NAME, COMPLETE_VARIABLE, instruction)
        with cli.make_context(NAME, list(sys.argv[1:] if args is None else args), obj=options) as ctx:
            result: Any = cli.invoke(ctx)
        sys.stdout.flush()
    except click.exceptions.Exit as end:
        return end.exit_code
    except click.ClickException as error:
        error.show()
        return 4
    except SystemExit:
        raise
    except BaseException as error:  # nothing comes after this: the process ends, and says why
        return _end(error, options)
    return result if isinstance(result, int) else 0


def _end(error: BaseException, options: Options) -> int:
    ends = list(leaves(error))
    if any(isinstance(one, KeyboardInterrupt | click.Abort) for one in ends):
        return 130
    if all(isinstance(one, BrokenPipeError) for one in ends):
        # whoever read our output has gone, which is his right; the interpreter must not complain at its end either
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    report(error, sys.stderr, debug=options["debug"])
    return exit_code(error)


def main() -> Never:
    """Entry point of `lc-pipeline`."""
    sys.exit(invoke())
