"""Lets `lc-pipeline replay` and `gaps fill` reach a running process: a UNIX socket beside what it keeps on disk.

One line of JSON asks, lines of JSON answer: ``{"progress": …}`` a few times a second, then ``{"report": …}`` or ``{"error": …}``.
Whoever hangs up ends his replay.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Annotated, Any

import orjson
from pydantic import Field, TypeAdapter, ValidationError

from pipeline.config.model import Config
from pipeline.core.errors import PipelineError, UnavailableError, UsageError
from pipeline.engine.build import Plan
from pipeline.engine.fill_request import FillReport, FillRequest
from pipeline.engine.replay import Replayer, Report, Request
from pipeline.engine.runner import Runner
from pipeline.kit import log as logs
from pipeline.kit import unix
from pipeline.spool.disk import DiskSpoolConfig

SOCKET = "replay.sock"
LONGEST = 4 << 20
"""Bytes of one line at most."""
PATIENCE = 10.0
"""Seconds in which whoever connects must have asked."""
INTERVAL = 0.25
"""Seconds between two lines on how far it is."""
_REQUEST: TypeAdapter[Request | FillRequest] = TypeAdapter(
    Annotated[Request | FillRequest, Field(discriminator="kind")]
)
_VISITORS = 8
"""Connections at once; as many more are told that there are too many."""
FAREWELL = 1.0
"""Seconds in which whoever is sent away must have asked."""


def address(config: Config) -> Path:
    """Where a process with this configuration listens; with several processes, with the configuration of its place."""
    folder = config.spool.path if isinstance(config.spool, DiskSpoolConfig) else config.dead_letter.path
    return folder / SOCKET


def serve(runner: Runner) -> AbstractAsyncContextManager[None]:
    """A service for `Runner`. Without the socket the pipeline runs all the same, and says so."""
    return _serve(runner.plan)


@contextlib.asynccontextmanager
async def _serve(plan: Plan) -> AsyncIterator[None]:
    path = address(plan.config)
    log = logs.get(component="replay")
    made = not path.parent.exists()
    try:
        path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
        if not plan.spool.durable:
            _refuse_second(path)
        sock = unix.listen(path)
    except OSError as error:
        log.warning("A replay cannot reach this process.", path=str(path), error=error.strerror or str(error))
        yield
        return
    server = _Server(plan)
    listening = await asyncio.start_unix_server(server.visit, sock=sock, limit=LONGEST)
    try:
        yield
    finally:
        listening.close()
        await server.close()
        with contextlib.suppress(OSError):
            path.unlink()
            if made:
                path.parent.rmdir()


def _refuse_second(path: Path) -> None:
    """Raises OSError where another process listens there: nothing else tells that it lives."""
    try:
        unix.connect(path, 1.0).close()
    except (FileNotFoundError, ConnectionRefusedError):
        return
    raise FileExistsError(17, "another process has it")


class _Server:
    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._replayer = Replayer(plan)
        self._visits: set[asyncio.Task[Any]] = set()

    async def visit(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        task = asyncio.current_task()
        if task is None or len(self._visits) >= 2 * _VISITORS:
            writer.close()
            return
        crowded = len(self._visits) >= _VISITORS
        self._visits.add(task)
        try:
            with contextlib.suppress(ConnectionError, TimeoutError):
                await (_send_away if crowded else self._answer)(reader, writer)
        except asyncio.CancelledError:
            pass  # the process stops
        finally:
            self._visits.discard(task)
            writer.close()

    async def close(self) -> None:
        """End what is under way."""
        visits = list(self._visits)
        for task in visits:
            task.cancel()
        await asyncio.gather(*visits, return_exceptions=True)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(PATIENCE):
                line = await reader.readline()
            request = _REQUEST.validate_json(line)
        except (ValidationError, ValueError):
            await _say(
                writer, error=_plain(UsageError("this is not a request", fix="Use the same version everywhere."))
            )
            return
        if not line.endswith(b"\n"):
            return
        report: Report | FillReport
        try:
            if isinstance(request, FillRequest):
                report = FillReport(self._plan, request)
                await self._accompany(asyncio.ensure_future(report.run()), report, reader, writer)
                await _say(writer, report=report.body())
                return
            supply = request.supply(self._plan)
            report = Report(supply.unit, supply.total)
            work = asyncio.ensure_future(self._replayer.run(request, report, supply))
            await self._accompany(work, report, reader, writer)
            await _say(writer, report=report.body())
        except PipelineError as error:
            await _say(writer, error=_plain(error))
        except OSError as error:
            await _say(writer, error=_plain(PipelineError(str(error))))

    async def _accompany(
        self,
        work: asyncio.Future[None],
        report: Report | FillReport,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        """Tell how far it is until it is over; end it when the other side hangs up or the process stops."""
        left = asyncio.ensure_future(reader.read(1))
        stop = asyncio.ensure_future(self._plan.stopping.wait())
        ends: set[asyncio.Future[Any]] = {work, left, stop}
        try:
            while True:
                await asyncio.wait(ends, timeout=INTERVAL, return_when=asyncio.FIRST_COMPLETED)
                if work.done() or left.done() or stop.done():
                    break
                await _say(writer, progress=report.body())
        finally:
            for one in ends:
                one.cancel()
            await asyncio.wait(ends)
        if not work.cancelled():
            work.result()


async def _send_away(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Say that there are too many already. What was asked is read first: a connection that ends before that loses the answer."""
    async with asyncio.timeout(FAREWELL):
        with contextlib.suppress(ValueError):  # a longer line than any request's
            await reader.readline()
        fix = "Try again when one of them is over."
        await _say(
            writer,
            error=_plain(UnavailableError(f"the pipeline serves {_VISITORS} replays and fills already", fix=fix)),
        )


async def _say(writer: asyncio.StreamWriter, **line: Any) -> None:
    writer.write(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE))
    await writer.drain()


def _plain(error: PipelineError) -> dict[str, Any]:
    return {
        "code": error.code, "exit_code": error.exit_code, "what": error.what, "where": error.where, "fix": error.fix,
    }  # fmt: skip
