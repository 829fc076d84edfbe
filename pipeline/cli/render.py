"""Shows errors to people: what is wrong, where, and how to fix it."""

from __future__ import annotations

import os
import re
import traceback
from collections.abc import Iterator
from typing import TextIO

import click

from pipeline.core.errors import ConfigError, PipelineError


def coloured(stream: TextIO) -> bool:
    """Whether colours are wanted: a terminal, unless NO_COLOR is set."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def printable(text: str) -> str:
    """Escape control and bidirectional characters: texts of others must not steer the terminal."""
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text)


_WORD = re.compile(r"[a-z]+(?![\w./=-])")
"""A first word that may be capitalised; `max_record` and `lc.yaml` are names."""
_TWO_PERIODS = re.compile(r"(?<!\.)\.\.$")


def sentence(text: str) -> str:
    """Capitalise a text, unless it begins with a name, and end it with one period."""
    text = _TWO_PERIODS.sub(".", printable(text.strip()))
    if _WORD.match(text):
        text = text[:1].upper() + text[1:]
    return text + ("" if text.endswith((".", "!", "?", ":")) else ".")


def render(error: PipelineError, *, colour: bool = False, label: str = "Error") -> str:
    """Return an error, or each of the mistakes that it has, as lines for a terminal."""

    def style(text: str, **how: str | bool) -> str:
        return click.style(text, **how) if colour else text  # type: ignore[arg-type]  # click's own keywords

    tone = "yellow" if label == "Warning" else "red"
    head = style(f"{label}:", fg=tone, bold=True)
    problems = error.problems if isinstance(error, ConfigError) else ()
    if problems:
        where = f" in {error.where}" if error.where else ""
        lines = [f"{head} {sentence(error.what.removesuffix('.') + where)}"]
        for problem in problems:
            lines += ["", f"  {style(printable(problem.where), bold=True)}", f"    {sentence(problem.what)}"]
            lines += [f"    {style(sentence(problem.fix), fg='cyan')}"] if problem.fix else []
        return "\n".join(lines)
    lines = [f"{head} {sentence(error.what)}"]
    lines += [f"  {style('Where:', bold=True)} {printable(error.where)}"] if error.where else []
    lines += [f"  {style('Fix:', bold=True)}   {style(sentence(error.fix), fg='cyan')}"] if error.fix else []
    return "\n".join(lines)


def leaves(error: BaseException) -> Iterator[BaseException]:
    """The error itself, or all that a group of errors holds."""
    if isinstance(error, BaseExceptionGroup):
        for one in error.exceptions:
            yield from leaves(one)
    else:
        yield error


def exit_code(error: BaseException) -> int:
    """The exit code of an error; of a group that its errors share, else 1."""
    codes = {one.exit_code if isinstance(one, PipelineError) else 1 for one in leaves(error)}
    return codes.pop() if len(codes) == 1 else 1


def report(error: BaseException, stream: TextIO, *, debug: bool = False) -> None:
    """Write an error that ends the process. What we did not expect is one line, or a traceback with ``debug``."""
    colour = coloured(stream)
    for one in leaves(error):
        if debug:
            stream.write("".join(traceback.format_exception(one)))
        if isinstance(one, PipelineError):
            stream.write(render(one, colour=colour) + "\n")
            continue
        text = printable(" ".join(f"{type(one).__name__}: {one}".split()))[:500]
        fix = (
            "Please report it, with the traceback above."
            if debug
            else ("This is a bug: run the same command with --debug and report what it prints.")
        )
        stream.write(render(PipelineError(f"unexpected {text}", fix=fix), colour=colour) + "\n")
    stream.flush()
