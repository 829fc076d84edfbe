"""`lc-pipeline session`: AI sessions, begun, followed and spoken in from a terminal."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import click

from pipeline.cli.account import account_options, json_option, with_account
from pipeline.cli.options import Options, add_to
from pipeline.cli.render import coloured, printable
from pipeline.core.errors import UsageError

if TYPE_CHECKING:  # they import an HTTP client, and `--help` must not
    from pipeline.limacharlie.ai.sessions import OrgSessions, SessionInfo, Sessions
    from pipeline.limacharlie.client import LimaCharlie

_STATUSES = ("starting", "running", "ended")

_org = click.option("--org", is_flag=True, help="The organization's sessions, as rules and keys begin them.")
_unfold = click.option("--full", "unfold", is_flag=True, help="Show tool calls and their results whole.")


@click.group(
    "session",
    epilog="""\b
Examples:
  lc-pipeline session start 'Who logged in to web-1 last night?'
  lc-pipeline session start --agent triage 'Look at detection 1234'
  lc-pipeline session attach ID
  lc-pipeline session list --org --status running
  lc-pipeline session history ID --full
  lc-pipeline session end ID

\b
Your own sessions need a user API key (LC_UID, LC_API_KEY) that is registered for AI sessions; --org takes the
organization's key. Credentials: the environment, else what `limacharlie login` stored (see --env, --oid).""",
)
def command() -> None:
    """Begin AI sessions, follow them live, speak in them, and end them."""


@command.command(
    "start",
    epilog="""\b
Examples:
  lc-pipeline session start
  lc-pipeline session start --allow Read --allow 'Bash(ls:*)' 'List the files'
  lc-pipeline session start --agent triage --detach 'Look at detection 1234'""",
)
@click.argument("prompt", required=False)
@click.option(
    "--agent", metavar="NAME", help="Begin a session of the organization from this definition (hive ai_agent)."
)
@click.option("--name", help="What the session is called.")
@click.option("--profile", metavar="ID", help="The profile to begin with; default: your default one.")
@click.option(
    "--allow", "allowed", multiple=True, metavar="TOOL", help="A tool that needs no approval; may be repeated."
)
@click.option("--deny", "denied", multiple=True, metavar="TOOL", help="A tool that is never used; may be repeated.")
@click.option("--model", help="The model.")
@click.option("--max-turns", type=click.IntRange(1), help="Turns of the assistant at most.")
@click.option("--max-budget", type=click.FloatRange(0, min_open=True), metavar="USD", help="What it may cost at most.")
@click.option("--idempotent-key", metavar="KEY", help="Asked again with the same key, the same session is meant.")
@click.option("--detach", is_flag=True, help="Print the session's id and leave it to itself.")
@_unfold
@account_options
@json_option
@click.pass_obj
def start(
    options: Options | None,
    /,
    prompt: str | None,
    agent: str | None,
    detach: bool,
    unfold: bool,
    as_json: bool,
    **given: Any,
) -> int:
    """Begin a session, say PROMPT, and follow it.

    Without --agent it is your own session; with it the organization's, in which you can only look on.
    """
    from pipeline.cli.session_attach import attach

    limits: dict[str, Any] = {
        "model": given["model"],
        "max_turns": given["max_turns"],
        "max_budget_usd": given["max_budget"],
    }
    tools: dict[str, Any] = {
        "allowed_tools": list(given["allowed"]) or None,
        "denied_tools": list(given["denied"]) or None,
    }
    shared: dict[str, Any] = {"name": given["name"], "idempotent_key": given["idempotent_key"]}
    if agent is not None and given["profile"] is not None:
        raise UsageError("An agent's definition has its own profile.", where="--profile")

    async def begin(account: LimaCharlie) -> int:
        if agent is not None:
            info = await account.ai.agents.start(agent, prompt=prompt, **shared, **tools, **limits)
        else:
            info = await account.ai.sessions.create(**shared, **tools, **limits, profile_id=given["profile"])
        if detach:
            code = 0
            if agent is None and prompt is not None:
                code = await attach(account, info.id, prompts=(prompt,), stay=False)
            click.echo(json.dumps(_facts(info)) if as_json else printable(info.id))
            return code
        click.echo(f"Session {printable(info.id)}.", err=True)
        said = (prompt,) if agent is None and prompt is not None else ()
        return await attach(account, info.id, org=agent is not None, prompts=said, as_json=as_json, unfold=unfold)

    return with_account(options, given["oid"], given["environment"], begin)


@command.command(
    "attach",
    epilog="""\b
Examples:
  lc-pipeline session attach ID
  lc-pipeline session attach ID --json | jq -r 'select(.type == "result").payload.summary'
  echo 'And the day before?' | lc-pipeline session attach ID

\b
Type to speak; answer y, a or n where a tool needs your approval, and with a number or words where you are asked.
Ctrl-C interrupts the assistant, and again leaves the session, which goes on; Ctrl-D leaves.""",
)
@click.argument("session_id")
@_org
@click.option("--history/--no-history", default=True, help="Begin with what was said before.  [default: history]")
@_unfold
@account_options
@json_option
@click.pass_obj
def attach_(
    options: Options | None, /, session_id: str, org: bool, history: bool, unfold: bool, as_json: bool, **given: Any
) -> int:
    """Follow the session SESSION_ID as it goes on, and speak in it."""
    from pipeline.cli.session_attach import attach

    async def follow(account: LimaCharlie) -> int:
        return await attach(account, session_id, org=org, history=history, as_json=as_json, unfold=unfold)

    return with_account(options, given["oid"], given["environment"], follow)


@command.command(
    "list",
    epilog="""\b
Examples:
  lc-pipeline session list
  lc-pipeline session list --org --status running --json | jq -r '.[].id'""",
)
@_org
@click.option("--status", type=click.Choice(_STATUSES), help="Only sessions that are so.")
@click.option(
    "--limit", type=click.IntRange(1), default=50, show_default=True, help="So many at most, the newest first."
)
@account_options
@json_option
@click.pass_obj
def list_(options: Options | None, /, org: bool, status: Any, limit: int, as_json: bool, **given: Any) -> None:
    """List sessions: your own, or the organization's."""
    from pipeline.cli.validate import table

    async def show(account: LimaCharlie) -> None:
        found = [info async for info in _sessions(account, org=org).list(status=status, limit=limit)]
        if as_json:
            click.echo(json.dumps([_facts(info) for info in found], indent=2))
        elif found:
            rows = [("SESSION", "STATUS", "CREATED", "ENDED", "NAME")]
            rows += [(info.id, info.status, info.created_at, info.end_reason, info.name) for info in found]
            click.echo(table(rows))
        else:
            click.echo("There is no session.", err=True)

    with_account(options, given["oid"], given["environment"], show)


@command.command("end", epilog="\b\nExample:\n  lc-pipeline session end ID")
@click.argument("session_id")
@_org
@click.option("--delete", is_flag=True, help="Remove it from the list as well, with its history.")
@account_options
@json_option
@click.pass_obj
def end(options: Options | None, /, session_id: str, org: bool, delete: bool, as_json: bool, **given: Any) -> None:
    """End the session SESSION_ID."""
    if org and delete:
        raise UsageError("Only records of your own sessions can be deleted.", where="--delete")

    async def terminate(account: LimaCharlie) -> None:
        sessions = _sessions(account, org=org)
        await sessions.terminate(session_id)
        if delete:
            await account.ai.sessions.delete_record(session_id)
        if as_json:
            click.echo(json.dumps({"id": session_id, "ended": True, "deleted": delete}))
        else:
            click.echo(f"Ended{' and deleted' * delete}: {printable(session_id)}.")

    with_account(options, given["oid"], given["environment"], terminate)


@command.command(
    "fork",
    epilog="""\b
Examples:
  lc-pipeline session fork ID 'Now look at the other host'
  lc-pipeline session fork ID --acknowledge virustotal --detach""",
)
@click.argument("session_id")
@click.argument("prompt", required=False)
@click.option("--name", help="What the new session is called.")
@click.option("--profile", metavar="ID", help="The profile of the new session; default: your default one.")
@click.option(
    "--acknowledge",
    "tools",
    multiple=True,
    metavar="TOOL",
    help="An MCP server that the profile lacks; may be repeated.",
)
@click.option("--detach", is_flag=True, help="Print the new session's id and leave it to itself.")
@_unfold
@account_options
@json_option
@click.pass_obj
def fork(
    options: Options | None,
    /,
    session_id: str,
    prompt: str | None,
    tools: tuple[str, ...],
    detach: bool,
    unfold: bool,
    as_json: bool,
    **given: Any,
) -> int:
    """Begin a session that goes on where SESSION_ID ended, say PROMPT, and follow it."""
    from pipeline.cli.session_attach import attach
    from pipeline.limacharlie.ai.errors import MissingToolsError, NotForkableError

    async def branch(account: LimaCharlie) -> int:
        sessions = account.ai.sessions
        look = await sessions.preflight(session_id, profile_id=given["profile"])
        if not look.is_forkable:
            reason = f" ({look.reason})" if look.reason else ""
            raise NotForkableError(f"The session cannot be forked{reason}.", where=session_id, fix="End it first.")
        if missing := [tool for tool in look.missing_tools if tool not in tools]:
            raise MissingToolsError(
                f"The profile lacks MCP servers of the session: {', '.join(missing)}.",
                where=session_id,
                fix=f"Go on without: {' '.join(f'--acknowledge {tool}' for tool in missing)}.",
            )
        info = await sessions.fork(
            session_id,
            name=given["name"],
            profile_id=given["profile"],
            initial_prompt=prompt,
            acknowledge_missing_tools=tools,
        )
        if detach:
            click.echo(json.dumps(_facts(info)) if as_json else printable(info.id))
            return 0
        click.echo(f"Session {printable(info.id)}.", err=True)
        return await attach(account, info.id, as_json=as_json, unfold=unfold)

    return with_account(options, given["oid"], given["environment"], branch)


@command.command(
    "history",
    epilog="""\b
Examples:
  lc-pipeline session history ID
  lc-pipeline session history ID --json > transcript.jsonl""",
)
@click.argument("session_id")
@_org
@_unfold
@account_options
@json_option
@click.pass_obj
def history(options: Options | None, /, session_id: str, org: bool, unfold: bool, as_json: bool, **given: Any) -> None:
    """Print what was said in the session SESSION_ID so far."""
    from pipeline.cli.session_view import View, as_line

    async def show(account: LimaCharlie) -> None:
        view = View(colour=coloured(sys.stdout), unfold=unfold)
        for message in await _sessions(account, org=org).history(session_id):
            if as_json:
                click.echo(as_line(message, terminal=sys.stdout.isatty()))
            elif text := view.show(message):
                click.echo(text)

    with_account(options, given["oid"], given["environment"], show)


for _each in command.commands.values():
    add_to(_each)


def _sessions(account: LimaCharlie, *, org: bool) -> Sessions | OrgSessions:
    return account.ai.org_sessions if org else account.ai.sessions


def _facts(info: SessionInfo) -> dict[str, Any]:
    return {
        "id": info.id, "status": info.status, "name": info.name, "created_at": info.created_at, "started_at": info.started_at,
        "terminated_at": info.terminated_at, "end_reason": info.end_reason, "exit_code": info.exit_code,
        "error_message": info.error_message, "forked_from": info.forked_from,
    }  # fmt: skip
