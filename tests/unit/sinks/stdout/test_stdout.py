"""The stdout sink and its pretty lines."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from typing import Any, cast

import orjson
import pytest
import structlog
from pydantic import ValidationError

from pipeline.core.batch import LogId
from pipeline.core.component import Context, Report
from pipeline.core.errors import NotFoundError, RetryLater
from pipeline.core.items import Items, Part
from pipeline.kit.clock import SystemClock
from pipeline.sinks.pretty import escape, line
from pipeline.sinks.stdout import ClosedPipe, StdoutConfig, StdoutSink

EVENT = {
    "routing": {"event_type": "NEW_PROCESS", "hostname": "web-1", "event_time": 1_800_000_000_000},
    "event": {"FILE_PATH": "C:\\a.exe", "COMMAND_LINE": "a.exe /x", "PROCESS_ID": 4},
}
DETECT = {
    "cat": "Ransom",
    "source_rule": "general.ransom",
    "priority": 7,
    "routing": EVENT["routing"],
    "detect": {"event": EVENT["event"], "routing": EVENT["routing"]},
}
AUDIT = {"etype": "hive_set", "ident": "ann@example.com", "msg": "rule changed", "time": 1_800_000_000, "oid": "o"}


class Reported:
    def __init__(self) -> None:
        self.states: list[tuple[str, str, str]] = []

    def state(self, state: str, text: str = "", code: str = "") -> None:
        self.states.append((state, text, code))


class Terminal:
    """A sink on one end of a pipe or a terminal, and the other end."""

    def __init__(self) -> None:
        self.report = Reported()
        self.sinks: list[StdoutSink] = []
        self.fds: list[int] = []

    async def sink(self, ends: tuple[int, int], **config: Any) -> StdoutSink:
        self.fds += ends
        context = Context(
            "console", structlog.get_logger(), SystemClock(), cast("Report", self.report), asyncio.Event()
        )
        sink = StdoutSink(StdoutConfig.model_validate({"type": "stdout", **config}), context)
        cast("Any", sink).fd = ends[1]
        self.sinks.append(sink)
        await sink.open({})
        return sink


@pytest.fixture
async def terminal() -> AsyncIterator[Terminal]:
    terminal = Terminal()
    yield terminal
    for sink in terminal.sinks:
        await sink.close()
    for fd in terminal.fds:
        if fd >= 0:
            os.close(fd)


def items(*payloads: bytes, stream: str = "event", values: Any = None) -> Items:
    return Items([Part(payloads, stream, LogId("source"), 1_800_000_000.0, values=values)])


@pytest.mark.parametrize(
    ("doc", "stream", "expected"),
    [
        (EVENT, "event", "2027-01-15 08:00:00 event   - NEW_PROCESS              web-1            a.exe /x"),
        (
            DETECT,
            "detect",
            "2027-01-15 08:00:00 detect  7 Ransom                   web-1            general.ransom  NEW_PROCESS  a.exe /x",
        ),
        (
            AUDIT,
            "audit",
            "2027-01-15 08:00:00 audit   - hive_set                 -                ann@example.com  rule changed",
        ),
    ],
)
def test_pretty_says_what_matters(doc: Any, stream: str, expected: str) -> None:
    """A line has time, stream, priority, category, host and the most telling field."""
    assert line(orjson.dumps(doc), stream, 0.0) == expected


def test_pretty_finds_what_is_deeper() -> None:
    """Without a telling field at the top, one in a table within is shown, else the first plain values."""
    address = {"routing": {}, "event": {"DESTINATION": {"IP_ADDRESS": "203.0.113.9"}, "STATE": 1}}
    plain = {"routing": {}, "event": {"A": 1, "B": "x", "C": {}}}
    assert line(orjson.dumps(address), "event", 0.0).endswith(" 203.0.113.9")
    assert line(orjson.dumps(plain), "event", 0.0).endswith(" A=1 B=x")


@pytest.mark.parametrize("text", ["\x1b[2J", "a\nb", "\u202eexe.txt", "\u200b", "\x9b31m", "\U000e0041", "\x7f"])
def test_pretty_escapes_what_a_terminal_acts_on(text: str) -> None:
    """Controls, bidi marks and invisible characters, wherever a record has them, arrive as escapes."""
    routing = {"event_type": text, "hostname": text}
    detect = {"cat": text, "source_rule": text, "routing": routing, "detect": {"COMMAND_LINE": text}}
    shown = line(orjson.dumps(detect), text, 0.0)
    assert escape(shown) == shown
    assert "\\" in shown


def test_pretty_shows_what_is_no_record() -> None:
    """Text, a torn record and a list are shown as they are, with the time of receipt."""
    for payload in (b"plain text", b'{"torn', b"[1]", b"\xff\x1b"):
        shown = line(payload, "event", 0.0)
        assert shown.startswith("1970-01-01 00:00:00 event")
        assert "\x1b" not in shown


def test_pretty_is_bounded() -> None:
    """A record of any size makes a line of readable length."""
    doc = {"cat": "c" * 9999, "source_rule": "\u202e" * 9999, "routing": {"hostname": "h" * 9999}, "detect": {}}
    assert len(line(orjson.dumps(doc), "s" * 9999, 0.0)) < 500


async def test_json_in_a_pipe_is_the_record(terminal: Terminal) -> None:
    """In a pipe `json` writes each payload as it is, with a line end."""
    ends = os.pipe()
    sink = await terminal.sink(ends, format="json")
    await sink.write(items(b'{"a":"\xe2\x80\xae"}', b"{}"))
    assert os.read(ends[0], 100) == b'{"a":"\xe2\x80\xae"}\n{}\n'


async def test_json_on_a_terminal_is_escaped(terminal: Terminal) -> None:
    """On a terminal `json` stays valid JSON of the same value, but cannot act on the terminal."""
    ends = os.openpty()
    sink = await terminal.sink(ends, format="json")
    await sink.write(items(b'{"a":"\xe2\x80\xae"}'))
    assert os.read(ends[0], 100) == b'{"a":"\\u202e"}\r\n'


async def test_template(terminal: Terminal) -> None:
    """A template gets its values escaped, and a dash for what a record lacks."""
    ends = os.pipe()
    sink = await terminal.sink(ends, format="template", template="{stream}: {routing/hostname} {cat}!")
    assert list(sink.paths) == ["routing/hostname", "cat"]
    await sink.write(items(b"{}", values=[{"routing/hostname": "a\x1bb"}]))
    assert os.read(ends[0], 100) == b"event: a\\u001bb -!\n"


@pytest.mark.parametrize(
    "config", [{"format": "template"}, {"template": "{cat}"}, {"format": "template", "template": "{a"}]
)
def test_template_mistakes(config: Any) -> None:
    """A template without its format, a format without its template and an open brace are mistakes."""
    with pytest.raises(ValidationError):
        StdoutConfig.model_validate({"type": "stdout", **config})


@pytest.mark.parametrize(
    ("colour", "pty", "no_colour", "coloured"),
    [
        ("auto", True, "", True),
        ("auto", True, "1", False),
        ("auto", False, "", False),
        ("always", False, "1", True),
        ("never", True, "", False),
    ],
)
async def test_colour(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch, colour: str, pty: bool, no_colour: str, coloured: bool
) -> None:
    """`auto` colours on a terminal only, unless NO_COLOR is set; always and never mean what they say."""
    monkeypatch.setenv("NO_COLOR", no_colour)
    monkeypatch.setenv("TERM", "xterm")
    ends = os.openpty() if pty else os.pipe()
    sink = await terminal.sink(ends, colour=colour)
    await sink.write(items(orjson.dumps(DETECT), stream="detect"))
    assert (b"\x1b[" in os.read(ends[0], 1000)) == coloured


async def test_a_closed_pipe_is_told_as_such(terminal: Terminal) -> None:
    """When the reader has gone, the write says `ClosedPipe` and the state carries its code."""
    ends = os.pipe()
    sink = await terminal.sink(ends)
    os.close(ends[0])
    terminal.fds.remove(ends[0])
    with pytest.raises(ClosedPipe):
        await sink.write(items(b"{}"))
    assert terminal.report.states == [("failed", "console: the reader of the standard output has gone", "closed_pipe")]


async def test_a_stalled_reader_blocks_nobody_else(terminal: Terminal) -> None:
    """While the reader takes nothing, the loop runs on; all lines arrive whole and in order once it reads."""
    ends = os.pipe()
    sink = await terminal.sink(ends, format="json")
    lines = [b'{"n":%d,"pad":"%b"}' % (number, b"x" * 500) for number in range(2000)]
    writing = asyncio.ensure_future(sink.write(items(*lines)))
    started = time.monotonic()
    for _ in range(20):
        await asyncio.sleep(0.005)
    assert time.monotonic() - started < 1.0
    assert not writing.done()
    expected = b"\n".join([*lines, b""])
    found = b""
    while len(found) < len(expected):
        found += await asyncio.to_thread(os.read, ends[0], 65536)
    await writing
    assert found == expected


async def test_closing_ends_a_stalled_write(terminal: Terminal) -> None:
    """A write that a stalled reader holds ends when the sink is closed, and does not claim to have stored."""
    sink = await terminal.sink(os.pipe(), format="json")
    writing = asyncio.ensure_future(sink.write(items(b"x" * 1_000_000)))
    await asyncio.sleep(0)
    await sink.close()
    with pytest.raises(RetryLater):
        await writing


async def test_check_misses_a_closed_output(terminal: Terminal) -> None:
    """`check` tells when there is nothing to write to."""
    ends = os.pipe()
    sink = await terminal.sink(ends)
    await sink.check()
    for fd in ends:
        os.close(fd)
    terminal.fds.clear()
    with pytest.raises(NotFoundError):
        await sink.check()
