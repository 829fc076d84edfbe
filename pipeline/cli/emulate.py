"""`lc-pipeline emulate`."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import socket
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipeline.cli.options import Number, Options, configure_log
from pipeline.core.errors import UsageError

if TYPE_CHECKING:  # the emulator takes a while to load, and `--help` must not
    from pipeline.emulator.state import Settings

_CHECK = "Check the path and its permissions."
_EPILOG = """\b
Examples:
  lc-pipeline emulate
  lc-pipeline emulate --tls --orgs 3 --rate 100
  lc-pipeline emulate --rate 0 --events 100000 --ledger ledger
  lc-pipeline emulate --scenario faults.yaml --ready-file emulator.json

\b
Faults: GET /_emulator/ lists the knobs. Each is a POST with a JSON object,
and a line {"at": SECONDS, "fault": NAME, …} of a scenario.
"""


@click.command("emulate", epilog=_EPILOG)
@click.option(
    "--listen",
    metavar="HOST:PORT",
    default="127.0.0.1:9400",
    show_default=True,
    help="Where all services listen; port 0 picks one.",
)
@click.option("--tls", is_flag=True, help="Serve HTTPS, with an authority of its own.")
@click.option("--orgs", type=click.IntRange(1, 1000), default=1, show_default=True, help="How many organizations.")
@click.option("--seed", type=int, default=7, show_default=True, help="Another seed gives other keys and records.")
@click.option(
    "--rate",
    type=Number(0, 1e6),
    default=10.0,
    show_default=True,
    help="Records per second and stream; with 0 each connection gets a run of its own, as fast as it reads.",
)
@click.option("--events", type=click.IntRange(0), help="Only keep-alives after so many records.  [default: no end]")
@click.option(
    "--keepalive",
    metavar="SECONDS",
    type=Number(0, min_open=True),
    default=60.0,
    show_default=True,
    help="Silence before a keep-alive.",
)
@click.option("--scenario", type=click.Path(dir_okay=False, path_type=Path), help="Faults and their times.")
@click.option("--ledger", type=click.Path(file_okay=False, path_type=Path), help="A folder that gets all that is sent.")
@click.option(
    "--ready-file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="A file that gets the address and the keys as JSON, once it listens.",
)
@click.pass_obj
def command(
    options: Options | None,
    listen: str,
    tls: bool,
    orgs: int,
    seed: int,
    rate: float,
    events: int | None,
    keepalive: float,
    scenario: Path | None,
    ledger: Path | None,
    ready_file: Path | None,
) -> None:
    """Run a local LimaCharlie: tokens, API, streams and outputs, with generated records and faults on request."""
    from pipeline.emulator.state import Settings

    host, port = _address(listen)
    settings = Settings(
        host=host,
        port=port,
        tls=tls,
        orgs=orgs,
        seed=seed,
        rate=rate,
        events=events,
        keepalive=keepalive,
        scenario=scenario,
        ledger=ledger,
        ready_file=ready_file,
    )
    configure_log(options or {})
    asyncio.run(_serve(settings))


async def _serve(settings: Settings) -> None:
    from pipeline.emulator.server import Emulator

    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        with suppress(NotImplementedError):  # Windows has no signal handlers on loops
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
    try:
        emulator = Emulator(settings)
    except ValueError as error:
        cause = error.__cause__
        what = (
            f"The file {settings.scenario} cannot be read: {_reason(cause)}."
            if isinstance(cause, OSError)
            else str(error)
        )
        raise UsageError(what, where="--scenario", fix=_CHECK if isinstance(cause, OSError) else "") from error
    except OSError as error:
        what = f"The folder {settings.ledger} cannot be used: {_reason(error)}."
        raise UsageError(what, where="--ledger", fix=_CHECK) from error
    try:
        try:
            await emulator.start()
        except OSError as error:
            raise _cannot_start(error, settings) from error
        ready = emulator.ready()
        click.echo(f"LC_URL={ready['url']} LC_OID={ready['oid']} LC_API_KEY={ready['api_key']}", err=True)
        await emulator.work(stop)
    finally:
        await emulator.stop()


def _cannot_start(error: OSError, settings: Settings) -> UsageError:
    if settings.ready_file is not None and str(error.filename).startswith(str(settings.ready_file)):
        what = f"The file {settings.ready_file} cannot be written: {_reason(error)}."
        return UsageError(what, where="--ready-file", fix=_CHECK)
    what = f"Cannot listen on {settings.host}:{settings.port}: {_reason(error)}."
    return UsageError(what, where="--listen", fix="Choose another address; port 0 picks a free port.")


def _reason(error: OSError) -> str:
    """The system's words for it; asyncio's own text for a port that is taken has its number and address in it again."""
    if error.errno is not None and error.errno in errno.errorcode and not isinstance(error, socket.gaierror):
        return os.strerror(error.errno)
    return error.strerror or str(error)


def _address(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdecimal() or int(port) > 65535:
        raise UsageError(f"{text!r} is not an address.", where="--listen", fix="Write HOST:PORT, like 127.0.0.1:9400.")
    return host.removeprefix("[").removesuffix("]") or "127.0.0.1", int(port)
