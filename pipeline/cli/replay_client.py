"""Asks a running pipeline to replay or to fill gaps."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson

from pipeline.core.errors import PipelineError, UnavailableError
from pipeline.engine.fill_request import FillRequest
from pipeline.engine.replay import Request
from pipeline.engine.replay_server import LONGEST, PATIENCE
from pipeline.kit import unix


class _ToldError(PipelineError):
    """What went wrong over there."""

    def __init__(self, told: dict[str, Any]) -> None:
        super().__init__(str(told["what"]), where=str(told["where"]), fix=str(told["fix"]))
        self.exit_code = int(told["exit_code"])  # type: ignore[misc]  # this one is told


async def ask(
    path: Path, request: Request | FillRequest, tell: Callable[[dict[str, Any]], None]
) -> dict[str, Any] | None:
    """Let the process that listens at ``path`` do what is asked, and return its report; None where there is no process.

    Raises PipelineError.
    """
    try:
        sock = unix.connect(path, PATIENCE)
    except (FileNotFoundError, NotADirectoryError, ConnectionRefusedError):
        return None
    except OSError as error:
        raise UnavailableError(
            f"the running pipeline cannot be reached: {error.strerror or error}", where=str(path),
            fix="Run this as the user that runs the pipeline.",
        ) from error  # fmt: skip
    reader, writer = await asyncio.open_unix_connection(sock=sock, limit=LONGEST)
    try:
        writer.write(request.model_dump_json().encode() + b"\n")
        await writer.drain()
        while line := await reader.readline():
            answer = orjson.loads(line)
            if "progress" in answer:
                tell(answer["progress"])
            elif "report" in answer:
                report: dict[str, Any] = answer["report"]
                return report
            else:
                raise _ToldError(answer["error"])
    except (ConnectionError, ValueError) as error:
        raise UnavailableError(f"the running pipeline does not answer: {error}", where=str(path)) from error
    finally:
        writer.close()
    raise UnavailableError(
        "the pipeline ended before it was done", where=str(path),
        fix="What it accepted is in its spool; replay again what is still in the dead letter. Gaps are filled once it runs.",
    )  # fmt: skip
