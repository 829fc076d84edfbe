"""`lc-pipeline gaps`: the intervals in which records may be missing."""

from __future__ import annotations

import dataclasses
import json
import sqlite3
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import click

from pipeline.cli.options import Number
from pipeline.cli.spool import folders
from pipeline.cli.validate import table
from pipeline.core.errors import NotFoundError, UnavailableError, UsageError
from pipeline.core.types import format_duration

if TYPE_CHECKING:  # what is behind it would make `--help` slow
    from pipeline.engine.fill_request import FillRequest
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
  lc-pipeline gaps fill lc.yaml 3

\b
SPOOL is the folder of a disk spool, or a configuration that has one. It may be in use.
A gap is open while it lasts, then closed; filled, or given up where its records cannot be had.""",
)
def command() -> None:
    """List the intervals in which records may be missing (`gaps SPOOL`), or fill them from LimaCharlie's history."""


@command.command("list", epilog="\b\nExample:\n  lc-pipeline gaps lc.yaml")
@click.argument("spool", type=click.Path(exists=True, path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def list_(spool: Path, as_json: bool) -> None:
    """List the gaps that SPOOL knows, the oldest first."""
    found = [(folder, gap) for folder in folders(spool) for gap in read(folder)]
    found.sort(key=lambda one: one[1].start)
    if as_json:
        click.echo(json.dumps([_facts(gap, folder) for folder, gap in found], indent=2))
    else:
        click.echo(_table([gap for _, gap in found]))


@command.command(
    "fill", epilog="\b\nExamples:\n  lc-pipeline gaps fill lc.yaml 3 4\n  lc-pipeline gaps fill lc.yaml --all"
)
@click.argument("spool", type=click.Path(exists=True, path_type=Path))
@click.argument("ids", metavar="[ID]...", type=click.IntRange(1), nargs=-1)
@click.option("--all", "every", is_flag=True, help="All gaps that have ended and are not filled.")
@click.option("--rate", type=Number(0, min_open=True), help="Records a second at most.")
@click.option("--dry-run", is_flag=True, help="Only say which gaps would be filled. Changes nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def fill(spool: Path, ids: tuple[int, ...], every: bool, rate: float | None, dry_run: bool, as_json: bool) -> int:
    """Fetch the records of gaps of SPOOL from LimaCharlie's history, and deliver those that are not known.

    The running pipeline does it, and this waits for it; it may be left. Where no pipeline runs on SPOOL, the gaps are filled when the
    next one does. The exit code is 1 when one cannot be filled.
    """
    import asyncio

    from pipeline.cli.replay_client import ask
    from pipeline.engine.fill_request import FillRequest
    from pipeline.engine.gaps import Gap
    from pipeline.engine.replay_server import SOCKET

    if every == bool(ids):
        raise UsageError("say which gaps", fix="Give their ids as `lc-pipeline gaps` shows them, or --all.")
    found = folders(spool)
    if len(found) > 1:
        raise UsageError(
            f"{spool} is split among workers, which have no `dedupe`", fix="Gaps are filled with `workers: 1`."
        )
    request = FillRequest(numbers=None if every else tuple(dict.fromkeys(ids)), rate=rate)
    if dry_run:
        return _show(_chosen(found[0], request.numbers), found[0], as_json=as_json)
    with _Progress(quiet=as_json) as progress:
        answer = asyncio.run(ask(found[0] / SOCKET, request, progress.show))
    if answer is None:
        wanted = _want(found[0], request)
        if as_json:
            click.echo(json.dumps([_facts(gap, found[0]) for gap in wanted], indent=2))
        else:
            click.echo(
                f"No pipeline runs on it: {len(wanted)} {'gap is' if len(wanted) == 1 else 'gaps are'} filled when one does."
            )
        return 0
    gaps = [Gap(**one) for one in answer["gaps"]]
    _show(gaps, found[0], as_json=as_json)
    return int(any(gap.state == "given_up" for gap in gaps))


class _Progress:
    """A line on a terminal that says how far it is; nothing elsewhere. How much will come, nobody knows."""

    def __init__(self, *, quiet: bool) -> None:
        self._on = not quiet and sys.stderr.isatty()
        self._begun = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._begun:
            click.echo(err=True)

    def show(self, report: dict[str, Any]) -> None:
        """Take what the running pipeline tells."""
        if self._on:
            fetched, added = (sum(gap[name] for gap in report["gaps"]) for name in ("fetched", "added"))
            done = sum(gap["state"] in ("filled", "given_up") for gap in report["gaps"])
            text = f"{done} of {len(report['gaps'])} gaps done; {fetched:,} records fetched, {added:,} added."
            click.echo(f"\r{text}\033[K", nl=False, err=True)
            self._begun = True


def _show(gaps: Sequence[Gap], folder: Path, *, as_json: bool) -> int:
    click.echo(json.dumps([_facts(gap, folder) for gap in gaps], indent=2) if as_json else _table(gaps))
    return 0


def _chosen(folder: Path, numbers: tuple[int, ...] | None) -> list[Gap]:
    """The gaps that are to be filled. Raises NotFoundError, UsageError, UnavailableError."""
    known = {gap.number: gap for gap in read(folder)}
    if numbers is None:
        return [gap for gap in known.values() if gap.state in ("closed", "filling", "given_up")]
    if strange := [str(number) for number in numbers if number not in known]:
        raise NotFoundError(f"the spool has no gap {', '.join(strange)}", fix="`lc-pipeline gaps` lists them.")
    if lasting := [number for number in numbers if known[number].state == "open"]:
        raise UsageError(f"gap {lasting[0]} still lasts")
    return [known[number] for number in numbers]


def _want(folder: Path, request: FillRequest) -> list[Gap]:
    """Note in a spool that nobody uses that gaps are to be filled. Raises NotFoundError, UsageError, UnavailableError."""
    from pipeline.engine.gaps import TABLE
    from pipeline.spool.folder import SpoolFolder
    from pipeline.spool.state import DamagedError, State

    place = SpoolFolder(folder)
    place.lock()
    try:
        chosen = _chosen(folder, request.numbers)
        for gap in chosen:
            gap.wanted, gap.rate, gap.state, gap.attempts, gap.text = True, request.rate, "closed", 0, ""
        state = State(place.state)
        try:
            state.commit({TABLE: {(gap.number,): gap.dump() for gap in chosen}})
        finally:
            state.close()
    except (sqlite3.Error, DamagedError) as error:
        raise UnavailableError(f"the spool's database cannot be changed: {error}", where=str(place.state)) from error
    finally:
        place.unlock()
    return chosen


def _table(gaps: Sequence[Gap]) -> str:
    if not gaps:
        return "No gaps."
    now = time.time()
    rows = [("ID", "LOG", "FROM", "TO", "LENGTH", "REASON", "STATE", "RECORDS")]
    rows += [
        (
            str(gap.number), str(gap.log), _when(gap.start), _when(gap.end) if gap.end is not None else "",
            format_duration(round(gap.seconds(now), 1)), gap.reason, gap.state.replace("_", " "), _records(gap),
        )
        for gap in gaps
    ]  # fmt: skip
    return table(rows)


def _facts(gap: Gap, folder: Path) -> dict[str, Any]:
    facts: dict[str, Any] = {"id": gap.number, **dataclasses.asdict(gap)}
    for internal in ("number", "progress", "counted", "rate"):
        del facts[internal]
    facts["start"] = _when(gap.start)
    facts["end"] = _when(gap.end) if gap.end is not None else None
    return {**facts, "seconds": round(gap.seconds(time.time()), 3), "spool": str(folder)}


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
