"""What the supervisor starts as a worker: ``python -m pipeline.cli.worker CONTROL SOCKETS`` with two inherited sockets."""

from __future__ import annotations

import asyncio
import socket
import sys

import structlog

from pipeline.cli.options import configure_log
from pipeline.cli.render import exit_code, report
from pipeline.cli.run import collect_less_often, loop_factory, share_often
from pipeline.config.load import loads
from pipeline.engine.channel import receive
from pipeline.engine.worker import work


def main() -> int:
    """Run a worker and return its exit code."""
    control, sockets = (socket.socket(fileno=int(number)) for number in sys.argv[1:3])
    debug = False
    try:
        start = receive(control)
        debug = start["options"]["debug"]
        loaded = loads(start["config"], file=start["file"])
        configure_log(start["options"], loaded.config.log)
        structlog.contextvars.bind_contextvars(worker=start["worker"])
        collect_less_often()
        share_often()
        with asyncio.Runner(loop_factory=loop_factory(loaded.config.event_loop)) as runner:
            return runner.run(work(loaded, start, control, sockets))
    except Exception as error:  # the process ends with it, and says why
        report(error, sys.stderr, debug=debug)
        return exit_code(error)


if __name__ == "__main__":
    sys.exit(main())
