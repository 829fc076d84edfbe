"""`lc-pipeline tail`."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import AsyncIterator, MutableMapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from pipeline.engine.runner import Runner
    from pipeline.engine.status import Status

_STREAMS = {"detections": "detect", "events": "event", "audit": "audit"}
_EPILOG = """\b
Examples:
  lc-pipeline tail
  lc-pipeline tail detections --filter 'priority>4' --filter 'cat~mimikatz'
  lc-pipeline tail events --tag production --fields routing/hostname,event/COMMAND_LINE
  lc-pipeline tail audit --json | jq .msg

\b
Filters are PATH then one of = != > < ~ (regular expression) then a value; all must hold.
Credentials: LC_OID and LC_API_KEY, else what `limacharlie login` stored (see --env, --oid).
"""


@click.command("tail", epilog=_EPILOG)
@click.argument("what", type=click.Choice(list(_STREAMS)), default="detections")
@click.option(
    "--filter",
    "-f",
    "filters",
    multiple=True,
    metavar="EXPR",
    help="Show only records for which this holds, like 'priority>4'.",
)
@click.option("--fields", metavar="PATH,PATH", help="Show only these fields, like routing/hostname,cat.")
@click.option("--json", "as_json", is_flag=True, help="JSON lines, as in a pipe.")
@click.option("--cat", help="Only this detection category (chosen in the cloud).")
@click.option("--tag", help="Only sensors with this tag (chosen in the cloud).")
@click.option("--sid", help="Only this sensor (chosen in the cloud).")
@click.option("--inv-id", help="Only this investigation (chosen in the cloud).")
@click.option("--oid", help="The organization, instead of the configured one.")
@click.option("--env", "environment", help="A named environment of the stored credentials.")
@click.option(
    "--host",
    type=click.Choice(["stream-tmp", "stream"]),
    default="stream-tmp",
    show_default=True,
    help="Which of LimaCharlie's stream services.",
)
@click.pass_context
def command(context: click.Context, /, what: str, **options: Any) -> None:
    """Show detections (default), events or audit records as they happen. Needs no configuration file."""
    from pipeline.cli.run import run
    from pipeline.config.load import made
    from pipeline.kit import log as logs

    given = context.obj or {}
    terminal = sys.stderr.isatty()
    logs.configure(given.get("log_level") or "warning", given.get("log_format") or ("console" if terminal else "auto"))
    loaded = made(_config(what, options), file="the command line")
    plain = "log_level" not in given
    result = run(loaded, admin=False, services=[lambda runner: _announce(runner, what, plain=plain)])
    context.exit(result.exit_code)


def _config(what: str, options: dict[str, Any]) -> dict[str, Any]:
    from pipeline.rules.expression import parse_expression

    source = {"type": "spout", "stream": _STREAMS[what], "host": options["host"]}
    source |= {key: options[key] for key in ("cat", "tag", "sid", "inv_id") if options[key]}
    pretty = sys.stdout.isatty() and not options["as_json"]
    # Somebody is waiting: do not collect records for better writes.
    sink: dict[str, Any] = {
        "type": "stdout",
        "format": "pretty" if pretty else "json",
        "batch": {"max_wait": 0.01},
    }
    if options["fields"]:
        sink["fields"] = [field.strip() for field in options["fields"].split(",") if field.strip()]
    return {
        "limacharlie": {key: options[key] for key in ("oid", "environment") if options[key]},
        "sources": {"tail": source},
        "sinks": {"terminal": sink},
        "routes": {
            "tail": {
                "from": "tail",
                "filters": [{"type": "match", **parse_expression(text)} for text in options["filters"]],
                "to": "terminal",
            }
        },
        "dead_letter": {"path": str(_state_folder() / "tail-dead-letter")},
        "stop_timeout": 2,
    }


def _state_folder() -> Path:
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "lc-pipeline"


@contextlib.asynccontextmanager
async def _announce(runner: Runner, what: str, *, plain: bool) -> AsyncIterator[None]:
    """Say on stderr when the stream is connected, and when it is lost. With ``plain`` the log does not say it again."""
    import structlog

    said = ""
    board = runner.plan.board

    def changed(status: Status) -> None:
        nonlocal said
        if status.kind != "source":
            return
        text = ""
        if status.current == "ok":
            text = f"Connected, waiting for {what}." if not said else "Connected again."
        elif status.current in ("degraded", "failed") and status.text:
            text = status.text
        if text and text != said:
            said = text
            click.echo(click.style(text, dim=True) if sys.stderr.isatty() else text, err=True)

    def drop_said(_logger: Any, _method: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        unexpected = line.get("exc_info")
        if not unexpected and any(status.text and status.text == line.get("error") for status in board.of("source")):
            raise structlog.DropEvent
        return line

    board.listeners.append(changed)
    if plain:
        structlog.configure(processors=[drop_said, *structlog.get_config()["processors"]])
    yield
