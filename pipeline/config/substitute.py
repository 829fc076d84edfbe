"""Replaces ``${VAR}``, ``${VAR:-default}`` and ``${file:/path}`` inside one string of a configuration."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

MAX_FILE = 64 << 10
"""Bytes of a file named by ``${file:…}`` at most."""

_PLACE = re.compile(r"\$\$\{|\$\{(?:([^{}]*)\})?")
_VARIABLE = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(?::-(.*))?", re.DOTALL)

Problem = Callable[[str, str], None]
"""Called with what is wrong and how to fix it."""


def substitute(text: str, env: Mapping[str, str], problem: Problem) -> str:
    """Return ``text`` with each place replaced; a place that cannot be is reported and stays as it is.

    ``$${`` gives a literal ``${``. As in a shell, ``:-`` gives its default for a variable that is unset or empty. One line end
    at the end of a file is cut.
    """

    def replace(match: re.Match[str]) -> str:
        inside = match[1]
        if match[0] == "$${":
            return "${"
        if inside is not None and inside.startswith("file:"):
            content = _read(inside.removeprefix("file:"), problem)
            return match[0] if content is None else content
        variable = _VARIABLE.fullmatch(inside or "")
        if variable is None:
            problem(
                "this is not a substitution",
                "There are ${VAR}, ${VAR:-default} and ${file:/path}; write $${ for a literal ${.",
            )
            return match[0]
        name, default = variable[1], variable[2]
        value = env.get(name)
        if value is None and default is None:
            problem(f"the environment variable {name} is not set", f"Set it, or give a default: ${{{name}:-default}}.")
            return match[0]
        return default if default is not None and not value else value or ""

    return _PLACE.sub(replace, text)


def _read(name: str, problem: Problem) -> str | None:
    try:
        with Path(name).open("rb") as file:
            content = file.read(MAX_FILE + 1)
        if len(content) > MAX_FILE:
            problem(f"the file {name} is larger than {MAX_FILE >> 10} KiB", "Name a file that holds only the value.")
            return None
        text = content.decode()
    except (OSError, ValueError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or "it is not UTF-8 text"
        problem(f"the file {name} cannot be read: {reason}", "Check the path and its permissions.")
        return None
    return text.removesuffix("\n").removesuffix("\r")
