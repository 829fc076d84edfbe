"""A mistake in a configuration, with its place in the file."""

from __future__ import annotations

from typing import NamedTuple

from pipeline.core.errors import ConfigError

Path = tuple[str | int, ...]
"""Keys and list indexes from the top of a configuration to one of its values."""


class Mark(NamedTuple):
    """A place in a file; both numbers begin with 1."""

    line: int
    column: int


class ConfigProblem(ConfigError):  # noqa: N818 - one of several, and a warning may be one too
    """One mistake, or one warning. ``where`` reads ``lc.yaml:12:7 sinks.lake.topic``."""

    def __init__(self, what: str, *, fix: str = "", file: str = "", mark: Mark | None = None, path: Path = ()) -> None:
        place = f"{file}:{mark.line}:{mark.column}" if mark else file
        super().__init__(what, where=" ".join(filter(None, (place, show(path)))), fix=fix)
        self.file = file
        self.mark = mark
        self.path = path


def show(path: Path) -> str:
    """Write a path as people do: ``routes.alerts.filters[0].op``."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text
