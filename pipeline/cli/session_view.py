"""How messages of an AI session look on a terminal and in a pipe."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from pipeline.cli.render import printable

if TYPE_CHECKING:
    from pipeline.limacharlie.ai.message import Message

WIDTH = 160
"""Characters of a folded line."""
_QUIET = frozenset({"history", "heartbeat", "sdk_session_id", "usage_delta"})
"""Messages that say nothing to a person."""


class View:
    """Turns messages into text: ``colour`` for a terminal, ``unfold`` to show tools and their results whole."""

    def __init__(self, *, colour: bool, unfold: bool = False) -> None:
        self._colour = colour
        self._unfold = unfold

    def show(self, message: Message) -> str:
        """The lines for a message; "" for one that says nothing to a person."""
        payload = message.payload
        match message.type:
            case kind if kind in _QUIET:
                return ""
            case "assistant":
                return self._lines(message.text)
            case "user":
                return self._lines(f"> {message.text}", bold=True)
            case "tool_use":
                return self._tool(str(payload.get("name", "?")), payload.get("input"))
            case "tool_result":
                return self._result(payload)
            case "tool_approval_request":
                return self._style(
                    self._call("May it use", payload.get("tool_name"), payload.get("tool_input")), fg="yellow"
                )
            case "ask_user_question":
                return ""  # whoever can answer is asked question by question
            case "result":
                good = payload.get("success") is not False
                return self._lines(f"{'✓' if good else '✗'} {message.text}", fg="green" if good else "red")
            case "session_status":
                return self._lines(f"The session is {payload.get('status', '?')}.", dim=True)
            case "session_end":
                return self._lines(f"The session has ended: {_reason(payload)}.", bold=True)
            case "session_error" | "error":
                return self._lines(f"Error: {message.text or payload.get('code', '?')}", fg="red")
            case "system":
                return self._lines(message.text, dim=True)
        return self._style(f"{printable(message.type)} {_folded(_plain(payload))}", dim=True)

    def question(self, question: dict[str, Any]) -> str:
        """A question with its options, numbered."""
        options = _labels(question)
        lines = [
            str(question.get("question", "?")),
            *(f"  {number}. {label}" for number, label in enumerate(options, 1)),
        ]
        return self._lines("\n".join(lines), fg="yellow")

    def _tool(self, name: str, given: Any) -> str:
        return self._style(self._call("·", name, given), fg="cyan")

    def _call(self, before: str, name: object, given: Any) -> str:
        values = given if isinstance(given, dict) else {"": given} if given is not None else {}
        # A tool with one thing given is read quicker without its name.
        shown = str(next(iter(values.values()))) if len(values) == 1 else _plain(values) if values else ""
        if self._unfold:
            return printable(f"{before} {name}") + "\n" + _safe(json.dumps(values, indent=2, ensure_ascii=False))
        return f"{printable(f'{before} {name}')} {_folded(shown)}".rstrip()

    def _result(self, payload: dict[str, Any]) -> str:
        content = payload.get("content")
        text = content if isinstance(content, str) else _plain(content)
        colour = {"fg": "red"} if payload.get("is_error") else {"dim": True}
        if self._unfold:
            return self._style(_safe(text), **colour)
        lines = text.strip().splitlines() or [""]
        more = f" … {len(lines) - 1} more line{'s' * (len(lines) > 2)}" if len(lines) > 1 else ""
        return self._style(f"  {_folded(lines[0])}{more}", **colour)

    def _lines(self, text: str, **how: Any) -> str:
        return self._style(_safe(text.strip()), **how)

    def _style(self, text: str, **how: Any) -> str:
        return click.style(text, **how) if self._colour and how else text


def as_line(message: Message, *, terminal: bool) -> str:
    """A message as one line of JSON: as it came, but on a terminal in ASCII only, since what somebody says must not steer it."""
    if terminal:
        return json.dumps(json.loads(message.raw))
    # A line end inside of a JSON text stands between its tokens only.
    return message.raw.decode(errors="replace").replace("\r", " ").replace("\n", " ")


def answer_of(question: dict[str, Any], words: str) -> str:
    """What a typed line means: an option by its number, else the words themselves."""
    options = _labels(question)
    if words.strip().isdecimal() and 0 < int(words) <= len(options):
        return options[int(words) - 1]
    return words


def _labels(question: dict[str, Any]) -> list[str]:
    options = question.get("options")
    return [
        str(option.get("label", "?") if isinstance(option, dict) else option)
        for option in (options if isinstance(options, list) else ())
    ]


def _reason(payload: dict[str, Any]) -> str:
    code = payload.get("exit_code")
    return str(payload.get("reason") or "no reason is given") + (f" (exit code {code})" if code else "")


def _plain(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)


def _folded(text: str) -> str:
    line = printable(" ".join(text.split()))
    return line if len(line) <= WIDTH else line[: WIDTH - 1] + "…"


def _safe(text: str) -> str:
    return "\n".join(printable(line.replace("\t", "    ")) for line in text.split("\n"))
