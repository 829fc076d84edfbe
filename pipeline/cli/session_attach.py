"""A live AI session on a terminal: the transcript, and what is typed as prompts and answers."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator
from typing import TYPE_CHECKING, Any

import click

from pipeline.cli.render import coloured, sentence
from pipeline.cli.session_view import View, answer_of, as_line
from pipeline.core.errors import PipelineError

if TYPE_CHECKING:
    from pipeline.limacharlie.ai.live import LiveSession
    from pipeline.limacharlie.ai.message import Message
    from pipeline.limacharlie.client import LimaCharlie

_YES = {"y": ("once", True), "yes": ("once", True), "a": ("session", True), "always": ("session", True)}
_NO = ("n", "no")
MAX_LINE = 1 << 20
"""Bytes of a line from the keyboard, a pipe or a file."""
PIECE = 1 << 16
GIVE_UP = 120.0
"""Seconds without a connection after which it is no use to wait on."""

PATIENCE = 2.0
"""Seconds for which it is not said that a prompt waits."""


async def attach(
    account: LimaCharlie,
    session_id: str,
    *,
    org: bool = False,
    prompts: tuple[str, ...] = (),
    history: bool = True,
    as_json: bool = False,
    unfold: bool = False,
    stay: bool = True,
) -> int:
    """Show a session until it ends or the user leaves; return the exit code.

    Where the session is somebody else's, and ``org`` was not asked for, the organization's read-only view is taken. ``stay``
    False: leave once the prompts are said.
    """
    from pipeline.limacharlie.ai.errors import ForeignSessionError
    from pipeline.limacharlie.ai.socket import SocketOptions

    views: list[Any] = ["org"] if org else ["owner", "org"]
    for view in views:
        live = account.ai.attach(session_id, SocketOptions(view=view), history=history and stay, give_up=GIVE_UP)
        desk = _Desk(live, as_json=as_json, unfold=unfold, speaks=view == "owner")
        try:
            return await desk.work(prompts, stay=stay)
        except ForeignSessionError:
            if view == views[-1] or desk.shown or prompts:
                raise
            _tell("The session is not yours: you can look on, but not speak.")
    raise AssertionError


class _Desk:
    def __init__(self, live: LiveSession, *, as_json: bool, unfold: bool, speaks: bool) -> None:
        self.shown = 0
        """Messages that were shown."""
        self._live = live
        self._json = as_json
        self._speaks = speaks
        self._view = View(colour=coloured(sys.stdout), unfold=unfold)
        self._said: deque[str] = deque(maxlen=64)
        """What we said and the terminal shows already."""
        self._asked: deque[tuple[Message, dict[str, Any]]] = deque()
        """Approvals and questions that wait for an answer, each with the answers so far."""
        self._interrupted = False
        """The assistant was interrupted since we last spoke, or has nothing to do yet."""
        self._leave = asyncio.Event()
        self._interrupting: asyncio.Task[None] | None = None

    async def work(self, prompts: tuple[str, ...], *, stay: bool) -> int:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGINT, self._ctrl_c)
        try:
            async with self._live, asyncio.TaskGroup() as group:
                leaving = group.create_task(self._leave.wait())
                saying = group.create_task(self._say(prompts))
                await asyncio.wait([saying, leaving], return_when=asyncio.FIRST_COMPLETED)
                tasks: list[asyncio.Task[Any]] = [leaving, saying]
                if stay and not self._leave.is_set():
                    reading = group.create_task(self._read())
                    tasks += [reading, *([group.create_task(self._listen())] if self._speaks else [])]
                    await asyncio.wait([reading, leaving], return_when=asyncio.FIRST_COMPLETED)
                for task in tasks:
                    task.cancel()
        except BaseExceptionGroup as several:
            raise several.exceptions[0] from None
        finally:
            loop.remove_signal_handler(signal.SIGINT)
        if saying.cancelled():
            _tell(f"You left before the session ran; it was told nothing: {self._live.session_id}")
            return 1
        if not stay:
            return 0
        ended = self._live.ended
        if ended is None:
            _tell(f"You left; the session goes on. Come back with: lc-pipeline session attach {self._live.session_id}")
            return 0
        return 1 if ended.exit_code else 0

    async def _say(self, prompts: tuple[str, ...]) -> None:
        self._interrupted = True
        telling = asyncio.get_running_loop().call_later(PATIENCE, _tell, "The session does not run yet; waiting …")
        try:
            for words in prompts:
                await self._live.prompt(words)
        finally:
            telling.cancel()
        self._interrupted = False

    async def _read(self) -> None:
        async for message in self._live.messages():
            self._show(message)
        if self._live.ended is not None and not self.shown:
            _tell("The session has ended.")

    def _show(self, message: Message) -> None:
        self.shown += 1
        waited = len(self._asked)
        self._settle(message)
        if message.type in ("tool_approval_request", "ask_user_question"):
            self._asked.append((message, {}))
        if self._json:
            click.echo(as_line(message, terminal=sys.stdout.isatty()))
        elif message.type == "user" and self._said and message.text == self._said[0]:
            self._said.popleft()
        elif text := self._view.show(message):
            click.echo(text)
        if (len(self._asked) == 1 and message is self._asked[0][0]) or 0 < len(self._asked) < waited:
            self._ask()

    def _settle(self, message: Message) -> None:
        """Forget what needs no answer any more: somebody gave one before, or the assistant was interrupted."""
        if message.type in ("assistant", "result", "session_end"):
            self._asked.clear()
        elif message.type == "tool_result":
            use = message.payload.get("tool_use_id")
            waiting = [entry for entry in self._asked if entry[0].payload.get("tool_use_id", "") != use]
            self._asked = deque(waiting)

    def _ask(self) -> None:
        """Say what the first of those that wait is to be told."""
        if not self._asked or not self._speaks or self._json:
            return
        message, answers = self._asked[0]
        if message.type == "tool_approval_request":
            _tell(
                "Type y to allow it, a to allow it in this session, n to deny it; words after n tell the assistant why."
            )
        elif (question := _next(message, answers)) is not None:
            click.echo(self._view.question(question))

    async def _listen(self) -> None:
        """Take what is typed until it ends: on a terminal that means to leave, from a pipe to look on."""
        terminal = sys.stdin is not None and sys.stdin.isatty()
        if terminal and not self._json:
            _tell("Type to speak. Ctrl-C interrupts the assistant, and again leaves; Ctrl-D leaves.")
        async for line in _typed():
            words = line.strip()
            if not words:
                continue
            try:
                await self._take(words, terminal=terminal)
            except PipelineError as error:
                _tell(str(error))
        if terminal:
            self._leave.set()

    async def _take(self, words: str, *, terminal: bool) -> None:
        if not self._asked:
            if terminal:
                self._said.append(words)
            self._interrupted = False
            await self._live.prompt(words)
            return
        message, answers = self._asked[0]
        if message.type == "tool_approval_request":
            first, _, rest = words.partition(" ")
            if first.lower() not in (*_YES, *_NO):
                if terminal:
                    _tell("Please answer y, a or n.")
                else:  # nobody is there to say it again
                    await self._live.prompt(words)
                return
            scope, approved = _YES.get(first.lower(), ("once", False))
            use = str(message.payload.get("tool_use_id", ""))
            await self._live.approve(
                use, approved, scope="session" if scope == "session" else "once", message=rest or None
            )
        else:
            question = _next(message, answers)
            if question is not None:
                answers[str(question.get("question", ""))] = answer_of(question, words)
                if _next(message, answers) is not None:
                    self._ask()
                    return
            await self._live.answer(str(message.payload.get("question_id", "")), answers)
        # It may be settled meanwhile, by what came in answer.
        if self._asked and self._asked[0][0] is message:
            self._asked.popleft()
            self._ask()

    def _ctrl_c(self) -> None:
        if self._interrupted or not self._speaks:
            self._leave.set()
            return
        self._interrupted = True
        _tell("The assistant is interrupted; Ctrl-C again leaves.")
        self._interrupting = asyncio.get_running_loop().create_task(self._interrupt())

    async def _interrupt(self) -> None:
        with contextlib.suppress(PipelineError):
            await self._live.interrupt()


async def _typed() -> AsyncIterator[str]:
    """Lines of the standard input; one that is too long is left out, and said to be."""
    if sys.stdin is None or sys.stdin.closed:
        return
    rest, skipping = b"", False
    async with contextlib.aclosing(_pieces(sys.stdin.fileno())) as pieces:
        async for data in pieces:
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                if not skipping:
                    yield line.decode(errors="replace")
                skipping = False
            if len(rest) > MAX_LINE:
                if not skipping:
                    _tell(
                        f"A line of more than {MAX_LINE:,} bytes is left out. Upload it as a file, and name the file."
                    )
                rest, skipping = b"", True
    if rest and not skipping:
        yield rest.decode(errors="replace")


async def _pieces(fd: int) -> AsyncGenerator[bytes, None]:
    """What can be read, as it comes, until its end."""
    loop = asyncio.get_running_loop()
    ready: asyncio.Queue[bytes] = asyncio.Queue()

    def read() -> None:
        # Here, where it is known that it does not block; and one piece only, until it is taken.
        loop.remove_reader(fd)
        ready.put_nowait(os.read(fd, PIECE))

    try:
        loop.add_reader(fd, read)
    except (OSError, ValueError):  # a file is always ready, and cannot be waited for
        while data := await asyncio.to_thread(os.read, fd, PIECE):
            yield data
        return
    try:
        while data := await ready.get():
            yield data
            loop.add_reader(fd, read)
    finally:
        loop.remove_reader(fd)


def _next(message: Message, answers: dict[str, Any]) -> dict[str, Any] | None:
    """The first question that has no answer yet."""
    questions = message.payload.get("questions")
    for question in questions if isinstance(questions, list) else ():
        one = question if isinstance(question, dict) else {"question": str(question)}
        if str(one.get("question", "")) not in answers:
            return one
    return None


def _tell(text: str) -> None:
    """Say something of our own, beside the transcript."""
    click.echo(click.style(sentence(text), dim=True) if coloured(sys.stderr) else sentence(text), err=True)
