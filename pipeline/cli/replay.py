"""`lc-pipeline replay`: feed records back, beside a running pipeline or without one."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from pipeline.cli.options import Number, Options
from pipeline.cli.render import printable
from pipeline.core.errors import UnavailableError, UsageError

if TYPE_CHECKING:  # what is behind it would make `--help` slow
    from pipeline.config.load import Loaded
    from pipeline.engine.placement import Place
    from pipeline.engine.replay import Request

_REASONS = {
    "changed": "filters had changed them, and would see their own work",
    "gone": "the spool does not keep them any more, or they are damaged",
    "live_only": "their sink acts on live records only (`origins: [live, replay]` lets it act on these)",
    "no_lane": "the configuration does not have their route or sink any more",
    "other_reason": "they were refused for another reason",
    "oversize": "they are larger than the source or the spool (a quarter of `max_size`) takes",
    "stranger": "they may be anybody's (--reason stranger replays them)",
    "truncated": "only their beginning was kept",
    "unknown_source": "the configuration does not have their source or organization any more",
    "unreadable": "they are no dead letters",
}
"""Why records are left out, where the word alone does not say it."""
_CHOSEN = frozenset({"live_only", "other_reason", "stranger"})
"""Reasons to leave records out that are somebody's choice: they are no failure of the replay."""


@click.group(
    "replay",
    epilog="""\b
Examples:
  lc-pipeline replay letters lc.yaml all/lake --dry-run
  lc-pipeline replay letters lc.yaml all/lake
  lc-pipeline replay log lc.yaml detections --from 1000 --to 2000 --route alerts
  lc-pipeline replay files lc.yaml --source telemetry archive/*.jsonl.zst --rate 5000
  lc-pipeline replay gap lc.yaml 3

\b
Where the pipeline of CONFIG runs, it does the work; else this command takes its spool and delivers.
Records that are replayed have `origin: replay`. Exit codes: 0 all is done, 1 something could not be replayed or was refused again.""",
)
def command() -> None:
    """Feed dead letters, a log of the spool, files of records or what was missed in a gap back in."""


def _complete_letters(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    del parameter
    return [CompletionItem(name) for name in _known(ctx)[0] if name.startswith(incomplete)] or [
        CompletionItem(incomplete, type="file")
    ]


def _complete_routes(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    del parameter
    return [CompletionItem(name) for name in _known(ctx)[1] if name.startswith(incomplete)]


def _complete_sources(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    del parameter
    return [CompletionItem(name) for name in _known(ctx)[2] if name.startswith(incomplete)]


def _known(ctx: click.Context) -> tuple[list[str], list[str], list[str]]:
    """Lanes and sources, routes, and sources of the configuration that the command line names; nothing where it is wrong."""
    from pipeline.config.load import load
    from pipeline.core.errors import PipelineError

    try:
        # While an option has no value yet, what stands before it is not taken as arguments.
        config = load(ctx.params.get("config") or ctx.args[0]).config
    except (PipelineError, IndexError):
        return [], [], []
    lanes = [f"{name}/{sink}" for name, route in config.routes.items() for sink in route.to]
    return [*lanes, *config.sources], list(config.routes), list(config.sources)


_config = click.argument("config", type=click.Path(exists=True, dir_okay=False, path_type=Path))


def _shared(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options that all of them have."""
    for option in (
        click.option("--json", "as_json", is_flag=True, help="Print the outcome as JSON."),
        click.option(
            "--worker",
            type=click.IntRange(1),
            help="Only what this worker keeps, of a configuration with several; files go to it.",
        ),
        click.option("--dry-run", is_flag=True, help="Only say what would go where. Changes nothing."),
        click.option("--rate", type=Number(0, min_open=True), help="Records a second at most."),
        click.option(
            "--route",
            "routes",
            multiple=True,
            shell_complete=_complete_routes,
            help="Through this route only, filters included; may be given again.",
        ),
    ):
        function = option(function)
    return function


@command.command(
    "letters",
    epilog="\b\nExamples:\n  lc-pipeline replay letters lc.yaml all/lake\n  lc-pipeline replay letters lc.yaml /backup/all.lake",
)
@_config
@click.argument("names", nargs=-1, metavar="[NAME|PATH]...", shell_complete=_complete_letters)
@click.option("--all", "everything", is_flag=True, help="All dead letters of the configuration.")
@click.option("--reason", "reasons", multiple=True, help="Only letters with this reason; may be given again.")
@click.option("--keep", is_flag=True, help="Leave the letters where they are.")
@_shared
@click.pass_obj
def letters(
    options: Options,
    /,
    config: Path,
    names: tuple[str, ...],
    everything: bool,
    reasons: tuple[str, ...],
    keep: bool,
    **shared: Any,
) -> int:
    """Replay dead letters: of a lane (ROUTE/SINK), of a source, or of a file or folder.

    What a sink refused goes to that sink again, without the filters. What a filter refused goes through that route again, and what
    a source refused through all routes. A letter leaves the dead letter when its record is safe.
    """
    if bool(names) == everything:
        raise UsageError("name the dead letters to replay", fix="Give ROUTE/SINK, SOURCE or a path; or --all.")
    return _run(options, config, shared, kind="letters", names=names, reasons=reasons, keep=keep)


@command.command("log", epilog="\b\nExample:\n  lc-pipeline replay log lc.yaml detections --from 1000 --to 2000")
@_config
@click.argument("log", shell_complete=_complete_sources)
@click.option("--from", "start", type=click.IntRange(0), help="The first record's number; default: the oldest kept.")
@click.option("--to", "end", type=click.IntRange(0), help="The number after the last one; default: all there are.")
@_shared
@click.pass_obj
def log(options: Options, /, config: Path, log: str, start: int | None, end: int | None, **shared: Any) -> int:
    """Replay records that LOG of the disk spool still keeps, delivered or not.

    LOG and the numbers are as `lc-pipeline spool ls` shows them: SOURCE, or SOURCE/ORG.
    """
    if start is not None and end is not None and start >= end:
        raise UsageError(f"there is nothing from {start} to {end}", fix="--to is the number after the last record.")
    source, _, org = log.partition("/")
    return _run(options, config, shared, kind="log", source=source, org=org, start=start, end=end)


@command.command(
    "files", epilog="\b\nExample:\n  lc-pipeline replay files lc.yaml --source detections detect-2026-*.jsonl.gz"
)
@_config
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--source",
    shell_complete=_complete_sources,
    help="The source that they stand for; needed where there are several.",
)
@click.option("--org", default="", help="The organization that they belong to, where there are several.")
@click.option("--stream", help="Their stream; default: the source's.")
@_shared
@click.pass_obj
def files(
    options: Options,
    /,
    config: Path,
    files: tuple[Path, ...],
    source: str | None,
    org: str,
    stream: str | None,
    **shared: Any,
) -> int:
    """Replay FILES of records, one a line: plain, .gz or .zst."""
    return _run(
        options, config, shared, kind="files", source=source, org=org, stream=stream,
        names=tuple(_to_all(path) for path in files),
    )  # fmt: skip


def _to_all(path: Path) -> str:
    """The path of a file as every process means it. Raises UsageError for what only this one can read, like a pipe."""
    if not path.is_file():
        raise UsageError(
            "this is not a regular file",
            where=str(path),
            fix="Write its records into one: the running pipeline reads it.",
        )
    return str(path.resolve())  # `/dev/stdin` is another file in another process


@command.command("gap", epilog="\b\nExample:\n  lc-pipeline replay gap lc.yaml 3")
@_config
@click.argument("ids", metavar="[ID]...", type=click.IntRange(1), nargs=-1)
@click.option("--all", "every", is_flag=True, help="All gaps that have ended and are not filled.")
@click.option("--rate", type=Number(0, min_open=True), help="Records a second at most.")
@click.option("--dry-run", is_flag=True, help="Only say which gaps would be filled. Changes nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
@click.pass_context
def gap(context: click.Context, /, config: Path, **given: Any) -> int:
    """Fetch what was missed in gaps from LimaCharlie's history; the same as `lc-pipeline gaps fill`."""
    from pipeline.cli.gaps import fill

    code: int = context.invoke(fill, spool=config, **given)
    return code


def _letters_at(path: Path) -> Path:
    """Not resolved: letters that are being written are known by this path. Raises UsageError."""
    if not (path.is_file() or path.is_dir()):
        raise UsageError("this is neither a file nor a folder of dead letters", where=str(path))
    return path.absolute()


def _run(options: Options, path: Path, shared: dict[str, Any], **what: Any) -> int:
    from pydantic import ValidationError
    from pydantic_core import PydanticSerializationError

    from pipeline.cli.options import configure_log
    from pipeline.config.load import load
    from pipeline.engine.replay import Request

    loaded = load(path)
    config = loaded.config
    configure_log({"log_level": "warning", **options}, config.log)
    if what["kind"] == "letters":
        known = {*config.sources} | {
            name
            for route, one in config.routes.items()
            for sink in one.to
            for name in (f"{route}/{sink}", f"{route}.{sink}")
        }
        what["names"] = tuple(
            name if name in known or not Path(name).exists() else str(_letters_at(Path(name))) for name in what["names"]
        )
    elif what["source"] is None:
        if len(config.sources) > 1:
            raise UsageError("say which source the files stand for", fix=f"Give --source: {', '.join(config.sources)}.")
        what["source"] = next(iter(config.sources))
    as_json = shared.pop("as_json")
    places = _places(loaded, shared.pop("worker"), what)
    try:
        request = Request.model_validate({**shared, **what})
        request.model_dump_json()  # as the running pipeline would get it
    except ValidationError as error:
        first = error.errors()[0]
        raise UsageError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    except PydanticSerializationError:
        raise UsageError("a name that was given is not UTF-8", fix="Rename the file.") from None
    reports = [asyncio.run(_at(loaded, place, places, request, _Bar(quiet=as_json))) for place in places]
    return _show(_together(reports), request, as_json=as_json)


def _places(loaded: Loaded, worker: int | None, what: dict[str, Any]) -> Sequence[Place]:
    """The processes that have to do with it."""
    from pipeline.engine import placement

    several = loaded.config.processes > 1
    numbers = list(placement.members(loaded.config))
    if worker is not None:
        if worker not in numbers:
            raise UsageError(f"there is no worker {worker}", fix=f"workers: {loaded.config.processes}.")
        numbers = [worker]
    elif several and what["kind"] == "log":
        raise UsageError("each worker has a log of its own", fix="Say which one: --worker N.")
    elif what["kind"] == "files" or any(name.startswith("/") for name in what.get("names", ())):
        numbers = numbers[:1]
    workers = loaded.config.processes if several else 1
    return [placement.Place(number, workers, drains=True) for number in numbers]


async def _at(loaded: Loaded, place: Place, places: Sequence[Place], request: Request, bar: _Bar) -> dict[str, Any]:
    from pipeline.engine.replay_alone import look, replay

    with bar:
        if request.dry_run:
            return (await look(loaded, place, request)).body()
        from pipeline.cli.replay_client import ask
        from pipeline.engine.replay_server import address

        found = await ask(address(place.of(loaded.config)), request, bar.show)
        if found is not None:
            return found
        if any(address(one.of(loaded.config)).exists() for one in places if one is not place):
            raise UnavailableError(
                f"worker {place.worker} cannot be reached, while others run", fix="Try again when all run, or none."
            )
        return (await replay(loaded, place, request, lambda report: bar.show(report.body()))).body()


class _Bar:
    """A progress bar on a terminal; nothing elsewhere."""

    def __init__(self, *, quiet: bool) -> None:
        self._on = not quiet and sys.stderr.isatty()
        self._bar: Any = None
        self._waits = ""

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.render_finish()

    def show(self, report: dict[str, Any]) -> None:
        waits = "; ".join(report["waits_for"])
        if waits and waits != self._waits and self._on:
            click.echo(f"\nWaiting for {printable(waits)}.", err=True)
        self._waits = waits
        if not self._on:
            return
        if self._bar is None:
            self._bar = click.progressbar(length=max(1, report["total"]), label="Replaying", file=sys.stderr)
        self._bar.length = max(1, report["total"])
        self._bar.update(max(0, report["read"] - self._bar.pos))


def _together(reports: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The reports of several processes as one."""
    total: dict[str, Any] = dict(reports[0])
    for report in reports[1:]:
        for name in ("total", "read", "accepted"):
            total[name] += report[name]
        for name in ("targets", "skipped", "outcomes"):
            total[name] = {
                key: total[name].get(key, 0) + report[name].get(key, 0) for key in {**total[name], **report[name]}
            }
        total["problems"] = [*total["problems"], *report["problems"]]
        total["seconds"] = max(total["seconds"], report["seconds"])
        total["complete"] = total["complete"] and report["complete"]
    return total


def _show(report: dict[str, Any], request: Request, *, as_json: bool) -> int:
    outcomes = report["outcomes"]
    refused = outcomes.get("rejected", 0) + outcomes.get("discarded", 0)
    left = report["skipped"].keys() - _CHOSEN
    code = 0 if report["complete"] and not refused and not left and not report["problems"] else 1
    if as_json:
        del report["waits_for"]
        click.echo(json.dumps({"dry_run": request.dry_run, **report}, indent=2))
        return code
    if not report["targets"]:
        click.echo("Nothing to replay.")
    for way, count in report["targets"].items():
        click.echo(f"{count:,} {'would go' if request.dry_run else 'replayed'}: {printable(way)}")
    for reason, count in sorted(report["skipped"].items()):
        text = _REASONS.get(reason, "their form is not what the source takes")
        click.echo(f"{count:,} left out ({printable(reason)}): {text}.")
    for problem in report["problems"]:
        click.echo(printable(problem), err=True)
    if request.dry_run:
        return code
    if any(outcomes.values()):
        parts = [f"{count:,} {name}" for name, count in outcomes.items() if count]
        click.echo(f"Outcome: {', '.join(parts)}{' (again in the dead letter)' if outcomes['rejected'] else ''}.")
    if not report["complete"]:
        click.echo("Ended before its end: what was accepted stays in the spool, the rest is where it was.", err=True)
    return code
