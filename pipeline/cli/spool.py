"""`lc-pipeline spool`: look into a disk spool, check it, and give up what a lane that is gone still holds."""

from __future__ import annotations

import json
import sqlite3
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipeline.cli.render import printable
from pipeline.cli.validate import table
from pipeline.core.batch import Batch, LogId
from pipeline.core.errors import ConfigError, NotFoundError, UnavailableError
from pipeline.core.types import format_size

if TYPE_CHECKING:  # what is behind it would make `--help` slow
    from pipeline.spool.inspection import LogSurvey, Survey

_DAMAGED_EXIT = 1


@click.group(
    "spool",
    epilog="""\b
Examples:
  lc-pipeline spool ls lc.yaml
  lc-pipeline spool stat /data/spool
  lc-pipeline spool cat /data/spool detections | jq .cat
  lc-pipeline spool verify /data/spool
  lc-pipeline spool drop-lane /data/spool old-route/kafka

\b
SPOOL is the folder of a disk spool, or a configuration that has one. All but drop-lane only read,
and may be used beside a running pipeline.""",
)
def command() -> None:
    """Look into a disk spool, check it, or drop what an old lane holds."""


_spool = click.argument("spool", type=click.Path(exists=True, path_type=Path))
_json = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")


@command.command("ls", epilog="\b\nExample:\n  lc-pipeline spool ls /data/spool")
@_spool
@_json
def ls(spool: Path, as_json: bool) -> None:
    """List the logs of SPOOL with what they hold."""
    found = _survey(spool)
    facts = [
        {
            "log": str(log.name),
            "start": log.start,
            "end": log.end,
            "segments": len(log.segments),
            "bytes": log.size,
            "waiting": max(map(log.waiting, log.lanes), default=0),
        }
        for log in found.logs.values()
    ]
    if as_json:
        click.echo(json.dumps(facts, indent=2))
        return
    rows = [("LOG", "WAITING", "FROM", "TO", "SEGMENTS", "SIZE")]
    rows += [
        (
            str(one["log"]), f"{one['waiting']:,}", str(one["start"]), str(one["end"]), str(one["segments"]),
            format_size(int(str(one["bytes"]))),
        )
        for one in facts
    ]  # fmt: skip
    click.echo(table(rows))


@command.command("stat", epilog="\b\nExample:\n  lc-pipeline spool stat lc.yaml")
@_spool
@_json
def stat(spool: Path, as_json: bool) -> None:
    """Show the lanes of SPOOL with their positions, its size, and what was set aside as damaged.

    With a configuration, lanes that it no longer has are marked as orphans.
    """
    found = _survey(spool)
    known = _lanes(spool)
    total = found.state_size + sum(found.damaged.values()) + sum(log.size for log in found.logs.values())
    lanes = [
        {
            "lane": lane,
            "log": str(log.name),
            "position": position,
            "waiting": log.waiting(lane),
            "orphan": None if known is None else not _is_known(lane, log.name, known),
        }
        for log in found.logs.values()
        for lane, position in sorted(log.lanes.items())
    ]
    if as_json:
        facts = {
            "path": str(found.path), "process": found.owner or None, "bytes": total, "state_problem": found.state_problem or None,
            "damaged": dict(found.damaged), "lanes": lanes,
        }  # fmt: skip
        click.echo(json.dumps(facts, indent=2))
        return
    click.echo(f"{printable(str(found.path))}: {format_size(total)}, {_use(found)}.")
    if found.state_problem:
        click.echo(f"Its database is damaged: {printable(found.state_problem)}. Positions are unknown.")
    if found.damaged:
        size = format_size(sum(found.damaged.values()))
        click.echo(
            f"Set aside as damaged: {len(found.damaged)} files, {size}, in {printable(str(found.path))}/damaged."
        )
    rows = [("LANE", "LOG", "POSITION", "WAITING", "")]
    rows += [
        (
            str(one["lane"]),
            str(one["log"]),
            str(one["position"]),
            f"{one['waiting']:,}",
            "orphan" if one["orphan"] else "",
        )
        for one in lanes
    ]
    click.echo("\n" + table(rows))


@command.command("cat", epilog="\b\nExample:\n  lc-pipeline spool cat /data/spool telemetry/acme --count 10 --meta")
@_spool
@click.argument("log")
@click.option(
    "--from", "start", type=click.IntRange(0), help="The number of the first record; default: the oldest kept."
)
@click.option("--count", type=click.IntRange(1), help="How many records at most.")
@click.option("--meta", is_flag=True, help="Wrap each record in an object with its number, stream, origin and time.")
def cat(spool: Path, log: str, start: int | None, count: int | None, meta: bool) -> None:
    """Print the records of LOG (as `ls` names it), one a line, as they came in."""
    from pipeline.spool.inspection import batches

    found = _survey(spool)
    one = _log(found, log)
    out = sys.stdout.buffer
    left = count if count is not None else -1
    for number, batch, record in _records(batches(one, start or 0), start or 0):
        if left == 0:
            break
        left -= 1
        if meta:
            facts = {
                "number": number, "stream": batch.stream, "org": batch.org, "origin": batch.origin,
                "received_at": datetime.fromtimestamp(batch.received_at, UTC).isoformat(),
                "record": record.decode(errors="replace"),
            }  # fmt: skip
            record = json.dumps(facts).encode()  # noqa: PLW2901 - what is printed for it
        out.write(record + b"\n")
    out.flush()


@command.command("verify", epilog="\b\nExample:\n  lc-pipeline spool verify /data/spool && echo whole")
@_spool
def verify(spool: Path) -> int:
    """Read all of SPOOL and check it against its checksums. The exit code is 1 when something is damaged or missing."""
    from pipeline.spool.inspection import verify as findings

    found = _survey(spool)
    lost = 0
    whole = not found.state_problem
    if found.state_problem:
        click.echo(f"{printable(str(found.path))}/state.db: {printable(found.state_problem)}")
    for log in found.logs.values():
        for one in findings(log):
            click.echo(f"{one.log}: {one.text}{' (harmless)' if one.harmless else ''}")
            whole = whole and one.harmless
            lost += one.lost
    logs = len(found.logs)
    click.echo(f"{logs} log{'s' * (logs != 1)}: {'whole' if whole else f'damaged, {lost:,} records are lost'}.")
    return 0 if whole else _DAMAGED_EXIT


@command.command("drop-lane", epilog="\b\nExample:\n  lc-pipeline spool drop-lane /data/spool old-route/kafka")
@_spool
@click.argument("lane")
@click.option("--log", "log", help="Only its place in this log; default: in all.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def drop_lane(spool: Path, lane: str, log: str | None, yes: bool) -> None:
    """Forget LANE (ROUTE/SINK as `stat` shows it), so that SPOOL keeps nothing for it any more.

    No pipeline may be running on the spool. Records that only this lane waits for are deleted at the next start; a lane
    of this name begins anew.
    """
    from pipeline.spool.folder import SpoolFolder
    from pipeline.spool.state import DamagedError, State

    found = _survey(spool)
    held = {
        one.name: one.waiting(lane) for one in found.logs.values() if lane in one.lanes and log in (None, str(one.name))
    }
    if not held:
        lanes = sorted({name for one in found.logs.values() for name in one.lanes})
        raise NotFoundError(f"the spool has no lane {lane!r}", fix=f"There are: {', '.join(lanes) or 'none'}.")
    waiting = sum(held.values())
    if waiting and not yes:
        click.confirm(f"{waiting:,} records wait for it and will not be delivered by it. Drop it?", abort=True)
    folder = SpoolFolder(found.path)
    folder.lock()
    try:
        state = State(folder.state)
        try:
            state.commit({"positions": {(lane, *name.key): None for name in held}})
        finally:
            state.close()
    except (sqlite3.Error, DamagedError) as error:
        raise UnavailableError(f"the spool's database cannot be changed: {error}", where=str(folder.state)) from error
    finally:
        folder.unlock()
    click.echo(f"Dropped {printable(lane)} from {', '.join(str(name) for name in held)}.")


def _survey(spool: Path) -> Survey:
    from pipeline.spool.inspection import survey

    return survey(spool if spool.is_dir() else _configured(spool))


def folders(spool: Path) -> list[Path]:
    """The folders of a spool that is given by its folder or by a configuration: one, or one for each worker."""
    from pipeline.spool.folder import LOCK

    path = spool if spool.is_dir() else _configured(spool)
    found = [lock.parent for lock in (path / LOCK, *sorted(path.glob(f"w[1-9]*/{LOCK}"))) if lock.exists()]
    if not found:
        raise NotFoundError(
            f"there is no spool in {path}", fix="Give the folder of `spool.path`, or the configuration."
        )
    return found


def _configured(config: Path) -> Path:
    """The folder of the disk spool that a configuration names."""
    from pipeline.config.load import load
    from pipeline.spool.disk import DiskSpoolConfig

    section = load(config).config.spool
    if not isinstance(section, DiskSpoolConfig):
        raise ConfigError(
            "this configuration has no disk spool", where=str(config), fix="Give one with `spool: {type: disk}`."
        )
    return section.path


def _lanes(spool: Path) -> set[tuple[str, str]] | None:
    """Lanes and the sources that they read, of a configuration; None where only a folder is given."""
    if spool.is_dir():
        return None
    from pipeline.config.load import load

    routes = load(spool).config.routes
    return {(f"{name}/{sink}", source) for name, route in routes.items() for sink in route.to for source in route.from_}


def _is_known(lane: str, log: LogId, known: set[tuple[str, str]]) -> bool:
    """Whether a lane of the configuration reads a log; one of replayed records may be of any source."""
    return (lane, log.source) in known or (bool(log.replay) and lane in {name for name, _ in known})


def _log(found: Survey, name: str) -> LogSurvey:
    for log in found.logs.values():
        if str(log.name) == name:
            return log
    raise NotFoundError(
        f"the spool has no log {name!r}", fix=f"There are: {', '.join(map(str, found.logs)) or 'none'}."
    )


def _records(batches: Iterator[Batch], start: int) -> Iterator[tuple[int, Batch, bytes]]:
    for batch in batches:
        for number, record in enumerate(batch.records, batch.first):
            if number >= start:
                yield number, batch, record


def _use(found: Survey) -> str:
    return f"used by process {printable(found.owner)}" if found.owner else "not in use"
