"""A sensor's command line: how it is split into words, and which options a command takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

MAX_LENGTH = 64 << 10


class TaskError(ValueError):
    """The cloud refuses a task."""


def split(text: str) -> list[str]:
    r"""Return the words of a command line; raises `TaskError`.

    Spaces separate. ``'…'`` is literal; in ``"…"`` a backslash escapes a quote or itself and is literal before anything else, as it
    is outside quotes, so that ``C:\x`` needs none. ``#`` at the start of a word begins a comment.
    """
    if len(text) > MAX_LENGTH:
        raise TaskError(f"a task has at most {MAX_LENGTH} characters")
    words: list[str] = []
    word: str | None = None
    quote = ""
    chars = iter(range(len(text)))
    for at in chars:
        char = text[at]
        if quote:
            if char == quote:
                quote = ""
            elif char == "\\" and quote == '"' and text[at + 1 : at + 2] in ('"', "\\"):
                word = (word or "") + text[next(chars)]
            else:
                word = (word or "") + char
        elif char in "'\"":
            quote, word = char, word or ""
        elif char.isspace():
            if word is not None:
                words.append(word)
            word = None
        elif char == "#" and word is None:
            break
        else:
            word = (word or "") + char
    if quote:
        raise TaskError("the task has a quote that is not closed")
    return words if word is None else [*words, word]


@dataclass(frozen=True)
class Syntax:
    """What follows a command: options with a value, options without, and words by their place."""

    options: Mapping[str, str] = field(default_factory=dict)
    """``-p`` and ``--pid`` → ``pid``."""
    flags: frozenset[str] = frozenset()
    words: tuple[str, ...] = ()
    """Names of the words that are no options; each may also be given as an option of that name."""
    rest: bool = False
    """More words are taken and left alone."""

    def parse(self, command: str, given: list[str]) -> dict[str, str]:
        """Return the values by name; raises `TaskError` for what the command does not know."""
        values: dict[str, str] = {}
        places = list(self.words)
        words = iter(given)
        for word in words:
            name, equals, value = word.partition("=")
            if word in self.flags:
                values[word] = "true"
            elif word in self.options or (equals and name in self.options):
                taken = value if word not in self.options else next(words, None)
                if taken is None:
                    raise TaskError(f"{command}: argument {word}: expected one argument")
                values[self.options[name if word not in self.options else word]] = taken
            elif places and not _is_option(word):
                values[places.pop(0)] = word
            elif not self.rest:
                raise TaskError(f"{command}: unrecognized arguments: {word[:80]}")
        return values


def _is_option(word: str) -> bool:
    return word.startswith("-") and not word[1:].isdecimal()
