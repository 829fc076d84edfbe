"""`lc-pipeline run`."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipeline.cli.options import Options, configure_log
from pipeline.core.errors import ConfigError

if TYPE_CHECKING:  # they import all of pydantic, YAML and the engine
    import asyncio

    from pipeline.config.load import Loaded
    from pipeline.engine.runner import Service
    from pipeline.engine.summary import Summary

_EPILOG = """\b
Examples:
  lc-pipeline run pipeline.yaml
  LC_OID=... LC_API_KEY=... lc-pipeline run examples/spout-to-files.yaml
  lc-pipeline --log-level debug run pipeline.yaml

\b
Stop with Ctrl-C or SIGTERM: what was received is delivered first (at most stop_timeout),
or with a disk spool stays there for the next start. A second signal stops at once.
Exit codes: 0 fine, 1 records were given up or a fault of ours, 2 no source can authenticate,
4 the configuration is wrong.
"""


@click.command("run", epilog=_EPILOG)
@click.argument("config", type=click.Path(dir_okay=False, path_type=Path))
@click.option(
    "--summary/--no-summary", default=None, help="Print the table of counts at the end (default: on a terminal)."
)
@click.pass_context
def command(context: click.Context, config: Path, *, summary: bool | None) -> None:
    """Run the pipeline that CONFIG describes, until stopped."""
    from pipeline.cli.table import render
    from pipeline.config.load import load
    from pipeline.kit import log as logs

    loaded = load(config)
    configure_log(context.obj, loaded.config.log)
    for warning in loaded.warnings:
        logs.get(component="config").warning(str(warning))
    result = supervise(loaded, context.obj) if several(loaded) else run(loaded)
    if summary if summary is not None else sys.stderr.isatty():
        click.echo("\n" + render(result), err=True)
    context.exit(result.exit_code)


def run(loaded: Loaded, *, admin: bool = True, services: Sequence[Service] = ()) -> Summary:
    """Run a configuration to its end in a fresh event loop. Soon after that the process has to end (`engine.ending`)."""
    import asyncio

    async def main() -> Summary:
        from pipeline.engine.accounts import accounts
        from pipeline.engine.build import build
        from pipeline.engine.ending import bounded
        from pipeline.engine.runner import Runner
        from pipeline.kit.clock import SystemClock

        all_services = list(services)
        if admin:
            from pipeline.admin.server import serve
            from pipeline.engine import replay_server

            section = loaded.config.admin
            all_services[:0] = [serve(section.listen if section else None), replay_server.serve]
        async with accounts(loaded.config, loaded.registry) as orgs:
            plan = build(loaded.config, orgs, SystemClock(), loaded.registry)
            return await Runner(plan, [*all_services, bounded]).run()

    collect_less_often()
    share_often()
    with asyncio.Runner(loop_factory=loop_factory(loaded.config.event_loop)) as runner:
        return runner.run(main())


def several(loaded: Loaded) -> bool:
    """Whether a configuration runs in several processes, or finds folders of such a run that are not empty."""
    from pipeline.engine import placement

    return loaded.config.processes > 1 or bool(placement.left_over(loaded.config))


def supervise(loaded: Loaded, options: Options) -> Summary:
    """Run a configuration to its end in several processes."""
    import asyncio

    async def main() -> Summary:
        from pipeline.admin.server import pages
        from pipeline.engine.supervisor import Supervisor

        section = loaded.config.admin
        supervisor = Supervisor(loaded, [sys.executable, "-m", "pipeline.cli.worker"], {"debug": False, **options})
        return await supervisor.run([lambda observed: pages(observed, section.listen if section else None)])

    return asyncio.run(main())


def collect_less_often() -> None:
    """Let the cycle collector start after 10,000 new containers, not 700.

    A decoded batch holds thousands of them, and none is in a cycle: with 700 the collector walks over them again and again (13 % of
    the CPU time where every record is decoded and kept). `gc.freeze` gained nothing on top of it.
    """
    gc.set_threshold(10_000, 20, 20)


def share_often() -> None:
    """Let a thread that waits for the interpreter have it after 1 ms, not 5.

    A write of the file sink needs it several times. Beside a busy event loop on two busy cores one took 96 ms with 5 ms, 69 ms with
    1 ms, at the same CPU time.
    """
    sys.setswitchinterval(0.001)


def loop_factory(name: str) -> Callable[[], asyncio.AbstractEventLoop] | None:
    if name == "asyncio":
        return None
    try:
        import uvloop
    except ImportError:
        raise ConfigError(
            "uvloop is not installed", where="event_loop", fix="Install it: pip install 'lc-pipeline[uvloop]'."
        ) from None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory
