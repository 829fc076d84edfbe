"""`lc-pipeline demo`."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import orjson

from pipeline.core.errors import PipelineError, UsageError

if TYPE_CHECKING:
    from pipeline.engine.runner import Runner, Service

_EPILOG = """\b
Examples:
  lc-pipeline demo
  lc-pipeline demo --duration 10s --rate 50
  lc-pipeline demo --closed-loop
  KAFKA_BOOTSTRAP=localhost:9092 lc-pipeline demo
"""
_READY_TIMEOUT = 20.0


@click.command("demo", epilog=_EPILOG)
@click.option(
    "--path",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("demo-data"),
    show_default=True,
    help="Where its files go.",
)
@click.option(
    "--rate", type=click.FloatRange(min=0.1), default=10.0, show_default=True, help="Records per second and stream."
)
@click.option("--duration", metavar="TIME", help="End by itself after this time, like 30s.")
@click.option(
    "--kafka",
    metavar="HOST:PORT",
    envvar="KAFKA_BOOTSTRAP",
    show_envvar=True,
    help="Also send everything to this Kafka broker.",
)
@click.option(
    "--closed-loop",
    is_flag=True,
    help="A detection tasks a sensor that is offline; its answer opens an AI session. Ends by itself, in under a minute.",
)
@click.pass_context
def command(
    context: click.Context, path: Path, rate: float, duration: str | None, kafka: str | None, *, closed_loop: bool
) -> None:
    """Show the pipeline at work against a local LimaCharlie: streams, filters, files and the terminal."""
    from pipeline.cli.run import run
    from pipeline.cli.table import render
    from pipeline.config.load import load
    from pipeline.core.types import parse_duration
    from pipeline.kit import log as logs

    try:
        seconds = parse_duration(duration) if duration else None
    except ValueError as error:
        raise UsageError(str(error), where="--duration") from None
    given = context.obj or {}
    logs.configure(given.get("log_level") or "warning", given.get("log_format") or "auto")
    path = path.absolute()
    path.mkdir(parents=True, exist_ok=True)
    with _emulator(*(["--rate", "0", "--events", "0"] if closed_loop else ["--rate", str(rate)])) as ready:
        file = path / ("closed-loop.yaml" if closed_loop else "pipeline.yaml")
        services: list[Service] = [lambda runner: _stop_after(runner, seconds)]
        if closed_loop:
            from pipeline.cli import demo_loop

            file.write_text(demo_loop.config(ready, path, kafka), encoding="utf-8")
            services.append(lambda runner: demo_loop.story(runner, ready, path))
        else:
            file.write_text(_config(ready, path, kafka), encoding="utf-8")
            _introduce(ready, path, file, kafka)
        loaded = load(file, {**os.environ, "DEMO_API_KEY": ready["api_key"]})
        result = run(loaded, services=services)
    click.echo("\n" + render(result), err=True)
    click.echo(f"\nThe files are in {path}.", err=True)
    context.exit(result.exit_code)


@contextlib.contextmanager
def _emulator(*options: str) -> Iterator[dict[str, Any]]:
    """The local LimaCharlie as a process of its own; Ctrl-C must reach it after us, so it gets its own session."""
    folder = Path(tempfile.mkdtemp(prefix="lc-pipeline-demo-"))
    ready_file = folder / "ready.json"
    log = (folder / "emulator.log").open("wb")
    arguments = ["--listen", "127.0.0.1:0", *options, "--keepalive", "5", "--ready-file", str(ready_file)]
    process = subprocess.Popen(  # noqa: S603 - our own program with our own arguments
        [sys.executable, "-m", "pipeline.cli", "emulate", *arguments], stdout=log, stderr=log, start_new_session=True
    )
    try:
        end = time.monotonic() + _READY_TIMEOUT
        while not ready_file.exists():
            if process.poll() is not None or time.monotonic() > end:
                text = (folder / "emulator.log").read_text(encoding="utf-8", errors="replace")[-2000:]
                raise PipelineError(f"the local LimaCharlie did not start: {text.strip()}", where="demo")
            time.sleep(0.05)
        yield orjson.loads(ready_file.read_bytes())
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        log.close()
        shutil.rmtree(folder, ignore_errors=True)


def _config(ready: dict[str, Any], path: Path, kafka: str | None) -> str:
    """A configuration as a user would write it."""
    sink = (
        f'\n  lake: {{type: kafka, bootstrap_servers: "{kafka}", topic: "lc.{{stream}}", key: routing/sid}}'
        if kafka
        else ""
    )
    lake = ", lake" if kafka else ""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    return f"""\
# Written by `lc-pipeline demo`: this is a pipeline as you would write one.
limacharlie:
  url: {ready["url"]}          # the local LimaCharlie; leave it out for the real one
  oid: {ready["oid"]}
  api_key: "${{DEMO_API_KEY}}"

sources:
  detections: {{type: spout, stream: detect}}
  audit: {{type: spout, stream: audit}}
  telemetry:                     # LimaCharlie connects to this port and pushes
    type: firehose
    stream: event
    listen: 127.0.0.1:{port}
    output: {{name: demo, address: "127.0.0.1:{port}"}}

sinks:
  terminal: {{type: stdout, format: pretty}}
  archive: {{type: file, path: "{path}/{{stream}}/%Y-%m-%d.jsonl", batch: {{max_wait: 1s}}}}
  processes: {{type: file, path: "{path}/processes/%Y-%m-%d.jsonl.zst", batch: {{max_wait: 1s}}}}{sink}

routes:
  alerts: {{from: detections, filters: [{{type: match, op: is greater than, path: priority, value: 2}}], to: terminal}}
  everything: {{from: [telemetry, detections, audit], to: [archive{lake}]}}
  processes: {{from: telemetry, filters: [{{type: events, include: [NEW_PROCESS, EXISTING_PROCESS]}}], to: processes}}

dead_letter: {{path: "{path}/dead-letter"}}
admin: {{listen: 127.0.0.1:0}}
stop_timeout: 10s
"""


def _introduce(ready: dict[str, Any], path: Path, file: Path, kafka: str | None) -> None:
    def bold(text: str) -> str:
        return click.style(text, bold=True) if sys.stderr.isatty() else text

    lines = [
        bold("A local LimaCharlie streams events (pushed by TLS), detections and audit records (pulled by HTTP)."),
        f"  its address         {ready['url']}",
        f"  the configuration   {file}",
        f"  all records         {path}/event, detect, audit",
        f"  process starts      {path}/processes (zstd)",
        "  on this terminal    detections with a priority above 2, one line each",
    ]
    if kafka:
        lines.append(f"  Kafka               {kafka}, topics lc.event, lc.detect, lc.audit (they must exist)")
    lines.append(bold("Ctrl-C ends it and shows the counts.\n"))
    click.echo("\n".join(lines), err=True)


@contextlib.asynccontextmanager
async def _stop_after(runner: Runner, seconds: float | None) -> AsyncIterator[None]:
    timer = asyncio.get_running_loop().call_later(seconds, runner.stop, "its time is over") if seconds else None
    yield
    if timer is not None:
        timer.cancel()
