"""Sink `stdout`: records on the standard output, for a person or for the next program in a pipe."""

from __future__ import annotations

import asyncio
import errno
import os
import re
import select
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar, Literal, Self

import orjson
from pydantic import model_validator

from pipeline.core.component import Context
from pipeline.core.config import Field, SinkConfig
from pipeline.core.errors import NotFoundError, PermanentError, RetryLater
from pipeline.core.items import NO_VALUES, Items, Part
from pipeline.core.sink import Sink
from pipeline.core.types import Duration, RecordPath
from pipeline.sinks.pretty import escape, line

_PLACE = re.compile(r"\{([^{}]*)\}")


class ClosedPipe(PermanentError):  # noqa: N818 - states what happened to the pipe
    """Whoever read our standard output has gone; that is how a pipe ends, not a fault."""

    code = "closed_pipe"
    exit_code = 0


class StdoutConfig(SinkConfig):
    """Write each record as one line to the standard output."""

    format: Literal["pretty", "json", "template"] = "pretty"
    """`pretty`: time, stream, priority, category, host, what. `json`: the record. `template`: the line that `template` describes."""
    template: str | None = None
    """A line with record paths in braces, like `{routing/hostname} {cat}`; `{stream}` and `{org}` too. What a record lacks is `-`."""
    fields: list[RecordPath] = Field(default_factory=list)
    """Only these fields of a record: in `pretty` their values with a tab between them, in `json` an object of them."""
    colour: Literal["auto", "always", "never"] = "auto"
    """Colours in `pretty`; auto: on a terminal, unless NO_COLOR is set."""
    timeout: Duration = Field(86_400.0, gt=0)
    """A write that takes longer counts as failed and is tried again. Long, because a pager that waits for its reader is no failure."""

    @model_validator(mode="after")
    def _check_template(self) -> Self:
        if (self.format == "template") != (self.template is not None):
            raise ValueError("`format: template` and `template` belong together")
        if self.fields and self.template is not None:
            raise ValueError("`fields` and `template` exclude each other: name the fields in the template")
        places(self.template or "")
        return self


def places(template: str) -> list[str | RecordPath]:
    """What stands in the braces of a template. Raises ValueError for what is no record path."""
    if "{" in (rest := _PLACE.sub("", template)) or "}" in rest:
        raise ValueError("a brace in the template is left open")
    names = [name.strip() for name in _PLACE.findall(template)]
    return [name if name in ("stream", "org") else RecordPath(name) for name in names]


class StdoutSink(Sink[StdoutConfig]):
    alone: ClassVar[bool] = True
    fd: ClassVar[int] = 1

    def __init__(self, config: StdoutConfig, context: Context) -> None:
        super().__init__(config, context)
        self._literals = _PLACE.split(config.template or "")[::2]
        self._places = places(config.template or "")
        self._colour = False
        self._terminal = False
        self._writing: asyncio.Future[None] | None = None
        self._closed = threading.Event()

    @property
    def paths(self) -> Iterable[RecordPath]:
        return [place for place in self._places if isinstance(place, RecordPath)]

    async def open(self, marks: Mapping[str, Any]) -> None:
        del marks
        self._terminal = os.isatty(self.fd)
        auto = self._terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
        self._colour = self.config.colour == "always" or (self.config.colour == "auto" and auto)

    async def check(self) -> None:
        """Raises `NotFoundError` when the process has no standard output."""
        try:
            os.fstat(self.fd)
        except OSError:
            raise NotFoundError(
                "there is no standard output", where=self.id, fix="Start the process with one."
            ) from None

    async def write(self, items: Items) -> None:
        """Write all lines. Raises `ClosedPipe`."""
        if self._writing is not None:
            # One that was given up still stands in the way of the terminal.
            await asyncio.wait([self._writing])
        self._writing = _in_thread(lambda: self._put(b"".join(map(self._lines, items.parts))))
        try:
            await asyncio.shield(self._writing)
        except BrokenPipeError:
            error = ClosedPipe("the reader of the standard output has gone", where=self.id)
            self.report.state("failed", str(error), code=error.code)
            raise error from None

    async def close(self) -> None:
        self._closed.set()

    def _lines(self, part: Part) -> bytes:
        if self.config.fields:
            return b"".join(map(self._pick, part.payloads))
        if self.config.format == "json" and not self._terminal:
            return part.block()
        if self.config.format == "json":
            lines = [escape(payload.decode(errors="replace")) for payload in part.payloads]
        elif self.config.format == "pretty":
            lines = [line(payload, part.stream, part.received_at, colour=self._colour) for payload in part.payloads]
        else:
            lines = [self._fill(part, values) for values in part.values or [NO_VALUES] * len(part.payloads)]
        return "\n".join([*lines, ""]).encode(errors="replace")

    def _pick(self, payload: bytes) -> bytes:
        """One line of the chosen fields; a payload that is no JSON object has none of them."""
        try:
            doc = orjson.loads(payload)
        except ValueError:
            doc = None
        found = {path: path.value(doc) for path in self.config.fields}
        if self.config.format == "json":
            text = orjson.dumps(found, option=orjson.OPT_NON_STR_KEYS).decode()
            return f"{escape(text) if self._terminal else text}\n".encode(errors="replace")
        shown = (
            "-" if value is None else value if isinstance(value, str) else orjson.dumps(value).decode()
            for value in found.values()
        )
        return ("\t".join(map(escape, shown)) + "\n").encode(errors="replace")

    def _fill(self, part: Part, values: Mapping[str, str]) -> str:
        known = {"stream": part.stream, "org": part.org}
        text = self._literals[0]
        for place, literal in zip(self._places, self._literals[1:], strict=True):
            value = values.get(place) if isinstance(place, RecordPath) else known[place]
            text += escape(value or "-") + literal
        return text

    def _put(self, data: bytes) -> None:
        """Write whatever the reader takes, as it takes it, until all is written or the sink is closed."""
        view = memoryview(data)
        while view and not self._closed.is_set():
            # A pipe that can be written to takes PIPE_BUF bytes without blocking, and reports itself writable when it is broken.
            if select.select([], [self.fd], [], 0.1)[1]:
                try:
                    view = view[os.write(self.fd, view[: select.PIPE_BUF]) :]
                except BlockingIOError:
                    continue
                except OSError as error:
                    # A terminal that was hung up says EIO.
                    if error.errno in (errno.EPIPE, errno.EIO):
                        raise BrokenPipeError from None
                    raise
        if view:
            raise RetryLater("the standard output was closed before all was written", where=self.id)


def _in_thread(work: Callable[[], None]) -> asyncio.Future[None]:
    """Run blocking work in a thread that cannot keep the process from ending."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()

    def settle(error: BaseException | None) -> None:
        if done.cancelled():
            return
        if error is None:
            done.set_result(None)
        else:
            done.set_exception(error)
            # Whoever waited may have given up.
            done.exception()

    def run() -> None:
        error: BaseException | None = None
        try:
            work()
        except Exception as raised:
            error = raised
        try:
            loop.call_soon_threadsafe(settle, error)
        except RuntimeError:
            # The loop has closed: nobody waits any more.
            return

    threading.Thread(target=run, name="stdout", daemon=True).start()
    return done
