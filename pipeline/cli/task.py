"""`lc-pipeline task`: commands to sensors, whether they are online or not."""

from __future__ import annotations

import json
import uuid
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from pipeline.cli.account import Decorated, account_options, json_option, with_account
from pipeline.cli.options import Options, Seconds, add_to
from pipeline.cli.render import printable
from pipeline.cli.task_rules import convert_rules
from pipeline.cli.task_watch import follow, watch
from pipeline.core.errors import NotFoundError, UsageError

if TYPE_CHECKING:  # they import an HTTP client, and `--help` must not
    from pipeline.limacharlie.client import LimaCharlie
    from pipeline.limacharlie.reliable_tasking import Accepted

_TARGETS = ("selector", "sid", "tag")


def _complete(_ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    from pipeline.limacharlie.sensor_commands import SENSOR_COMMANDS

    return [
        CompletionItem(name, help=f"{command.summary}: {name} {command.usage}".rstrip())
        for name, command in SENSOR_COMMANDS.items()
        if name.startswith(incomplete)
    ]


def _target(command: Decorated) -> Decorated:
    for name, metavar, text in (
        ("--selector", "EXPR", "Sensors of this selector, like 'plat == windows'."),
        ("--tag", "TAG", "Sensors with this tag."),
        ("--sid", "ID", "This sensor."),
    ):
        command = click.option(name, metavar=metavar, help=text)(command)
    return command


_all = click.option("--all", "everywhere", is_flag=True, help="All sensors of the organization.")


@click.group(
    "task",
    epilog="""\b
Examples:
  lc-pipeline task send --tag production os_version
  lc-pipeline task send --sid ID --now 'file_hash /bin/ls'
  lc-pipeline task list --context incident-7
  lc-pipeline task watch incident-7
  lc-pipeline task cancel --all
  lc-pipeline task convert-rules

\b
Credentials: LC_OID and LC_API_KEY, else what `limacharlie login` stored (see --env, --oid).""",
)
def command() -> None:
    """Send commands to sensors, see which ones wait, watch their answers, and take them back."""


@command.command(
    "send",
    epilog="""\b
Examples:
  lc-pipeline task send --tag production os_version
  lc-pipeline task send --selector 'plat == linux' --ttl 2d --context incident-7 'file_get /etc/passwd'
  lc-pipeline task send --tag production --watch os_version
  lc-pipeline task send --sid ID --now os_processes netstat
  lc-pipeline task send --sid ID --now --until-done 'hidden_module_scan -1'""",
)
@click.argument("commands", metavar="COMMAND...", nargs=-1, required=True, shell_complete=_complete)
@_target
@_all
@click.option("--context", help="Comes back in routing/investigation_id of the answers.")
@click.option("--ttl", type=Seconds(), help="How long to wait for sensors that are offline, like 2d.  [default: 7d]")
@click.option("--watch", "stay", is_flag=True, help="Stay and print the answers as they come, as `task watch` does.")
@click.option("--now", is_flag=True, help="Send to one sensor that is online, and print its answers.")
@click.option("--answers", type=click.IntRange(0), help="With --now: so many answers.  [default: one for each command]")
@click.option("--until-done", is_flag=True, help="With --now: all answers until the commands are done, as scans tell.")
@click.option(
    "--timeout",
    type=Seconds(),
    help="With --now or --watch: how long the answers may take.  [default: 30s, or until the commands expire]",
)
@click.option("--unchecked", is_flag=True, help="Send commands that this program does not know, as they are.")
@account_options
@json_option
@click.pass_obj
def send(
    options: Options | None,
    /,
    commands: tuple[str, ...],
    context: str | None,
    ttl: float | None,
    stay: bool,
    now: bool,
    answers: int | None,
    until_done: bool,
    timeout: float | None,
    unchecked: bool,
    as_json: bool,
    **given: Any,
) -> None:
    """Send each COMMAND, with its arguments in the same quotes, to sensors.

    Those that are offline get it when they come online; --watch prints all answers. With --now one sensor that is online gets it at
    once, and its answers are printed.
    """
    from pipeline.limacharlie.sensor_commands import as_sensors_know

    if not unchecked:
        given_commands, commands = commands, tuple(map(as_sensors_know, commands))
        for before, after in zip(given_commands, commands, strict=True):
            if before != after:
                click.echo(printable(f"Sent as {after!r}, which is how sensors know {before!r}."), err=True)
    if context is not None and not context.strip():
        # Most likely a variable that is not set: the answers could not be told from others.
        raise UsageError("The context is empty.", where="--context")
    target = _read_target(given)
    _refuse_together(
        now,
        {"--ttl": ttl is not None, "--watch": stay, "--tag, --selector or --all": target["sid"] is None},
        "A command that is sent now goes to one sensor and does not wait.",
    )
    _refuse_together(
        not now,
        {"--answers": answers is not None, "--until-done": until_done},
        "Answers are only waited for with --now.",
    )
    _refuse_together(
        not (now or stay), {"--timeout": timeout is not None}, "Answers are only waited for with --now or --watch."
    )
    _refuse_together(until_done, {"--answers": answers is not None}, "Answers end by number or when all is done.")

    async def queue(account: LimaCharlie) -> None:
        for text in commands:
            accepted = await account.reliable_tasking.task(text, **target, context=context, ttl=ttl)
            # Each as soon as it is there: the next one may fail.
            click.echo(json.dumps({"command": text, **asdict(accepted)}) if as_json else _describe(text, accepted))
            _refuse_nobody(accepted)

    async def queue_and_watch(account: LimaCharlie) -> None:
        from pipeline.limacharlie.task_watch import TaskWatch

        name = context or str(uuid.uuid4())
        # The stream first: a sensor that is online answers at once.
        async with TaskWatch(account, name, commands=len(commands), total=0) as watched:
            for text in commands:
                accepted = await account.reliable_tasking.task(text, **target, context=name, ttl=ttl)
                click.echo(_describe(text, accepted), err=True)
                _refuse_nobody(accepted)
                watched.expect(accepted.total)
            await watched.look()
            await follow(watched, timeout, as_json=as_json)

    async def converse(account: LimaCharlie) -> None:
        from pipeline.limacharlie.simple_request import NoAnswerError, SimpleRequests
        from pipeline.limacharlie.tasks import OfflineError

        async with SimpleRequests(account, inv_id=context) as requests:
            try:
                docs = await requests.send(
                    target["sid"], *commands, answers=answers, until_done=until_done, timeout=timeout or 30.0
                )
            except OfflineError as error:
                error.fix = "Leave --now out, and it gets the commands when it comes online."
                raise
            except NoAnswerError as error:
                _print_answers(error.answers, as_json)
                raise
        _print_answers(docs, as_json)

    work = converse if now else queue_and_watch if stay else queue
    with_account(options, given["oid"], given["environment"], work)


@command.command(
    "list",
    epilog="""\b
Examples:
  lc-pipeline task list
  lc-pipeline task list --context incident-7 --json | jq '.[].sid'""",
)
@_target
@click.option("--context", help="Only commands with this context.")
@account_options
@json_option
@click.pass_obj
def list_(options: Options | None, /, context: str | None, as_json: bool, **given: Any) -> None:
    """List the commands that wait for sensors: all, or those for some sensors."""
    from pipeline.cli.validate import table

    target = {key: given[key] for key in _TARGETS}
    if sum(value is not None for value in target.values()) > 1:
        raise UsageError("More than one target is given.", fix="Give one of --sid, --tag and --selector, or none.")

    async def show(account: LimaCharlie) -> None:
        waiting = await account.reliable_tasking.list(**target, context=context)
        if as_json:
            tasks = [{key: value for key, value in asdict(task).items() if key != "doc"} for task in waiting]
            click.echo(json.dumps(tasks, indent=2))
        elif waiting:
            rows = [("TASK", "SENSOR", "EXPIRES", "CONTEXT", "COMMAND")]
            rows += [(t.task_id, t.sid or t.selector, _when(t.expires_at), t.context, t.command) for t in waiting]
            click.echo(table(rows))
        else:
            click.echo("No command waits.", err=True)

    with_account(options, given["oid"], given["environment"], show)


@command.command(
    "cancel",
    epilog="""\b
Examples:
  lc-pipeline task cancel TASK_ID
  lc-pipeline task cancel --tag production
  lc-pipeline task cancel --all""",
)
@click.argument("task_id", required=False)
@_target
@_all
@account_options
@json_option
@click.pass_obj
def cancel(options: Options | None, /, task_id: str | None, as_json: bool, **given: Any) -> None:
    """Take back the command TASK_ID, or all commands, that still wait for sensors.

    What a sensor already has cannot be taken back.
    """
    if task_id is not None and not task_id.strip():
        # It would be understood as all commands.
        raise UsageError("The task's id is empty.", where="TASK_ID")
    # A task's id says enough: without a target it is taken back for all its sensors.
    target = _read_target(given | {"everywhere": given["everywhere"] or (task_id is not None and not _named(given))})

    async def take_back(account: LimaCharlie) -> None:
        deleted = await account.reliable_tasking.untask(**target, task_id=task_id)
        click.echo(json.dumps({"deleted": deleted}) if as_json else f"Commands taken back: {deleted:,}.")

    with_account(options, given["oid"], given["environment"], take_back)


command.add_command(watch)
command.add_command(convert_rules)
for _each in command.commands.values():
    add_to(_each)


def _named(given: dict[str, Any]) -> bool:
    return any(given[key] is not None for key in _TARGETS)


def _read_target(given: dict[str, Any]) -> dict[str, Any]:
    """The target as `ReliableTasking` takes it. Raises `UsageError` unless there is exactly one; all sensors have a flag."""
    target = {key: given[key] for key in (*_TARGETS, "everywhere")}
    if (target["selector"] or "").strip() == "*":
        raise UsageError("The selector means all sensors.", where="--selector", fix="Write --all if you want that.")
    for key in _TARGETS:
        if target[key] is not None and not target[key].strip():
            raise UsageError("The target is empty.", where=f"--{key}", fix="Write --all if you mean all sensors.")
    if sum(value not in (None, False) for value in target.values()) != 1:
        what = "More than one target is given." if _named(given) else "It is not said which sensors are meant."
        raise UsageError(what, fix="Give --sid, --tag or --selector, or --all for all sensors.")
    return target


def _refuse_nobody(accepted: Accepted) -> None:
    """Raise `NotFoundError` for a command that no sensor will ever get: sensors that join later are not meant."""
    if accepted.total == 0:
        raise NotFoundError("No sensor is meant, so nobody gets the command.", where=printable(accepted.selector))


def _refuse_together(when: bool, present: dict[str, bool], reason: str) -> None:
    for name, is_present in present.items():
        if when and is_present:
            raise UsageError(reason, where=name)


def _describe(text: str, accepted: Accepted) -> str:
    line = f"{accepted.task_id}: {text}"
    counts = (("sensors", accepted.total), ("have it", accepted.tasked), ("wait", accepted.queued))
    told = ", ".join(f"{count:,} {what}" for what, count in counts if count is not None)
    return printable(f"{line} ({told})" if told else line)


def _print_answers(docs: list[dict[str, Any]], as_json: bool) -> None:
    from pipeline.limacharlie import records

    for doc in docs:
        if as_json:
            click.echo(json.dumps(doc))
            continue
        # ASCII only: what a sensor sends must not steer the terminal.
        click.echo(printable(records.event_type(doc) or "?"))
        click.echo(json.dumps(records.payload(doc), indent=2))


def _when(seconds: float | None) -> str:
    return "" if seconds is None else f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M}Z"
