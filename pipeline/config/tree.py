"""A configuration as plain data that knows where each value stands."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.config.problem import ConfigProblem, Mark, Path


class Tree:
    """Plain data, as a parser found it or as a program made it; then nothing has a place."""

    def __init__(self, file: str, data: Mapping[str, Any] | None = None) -> None:
        self.file = file
        self.data: dict[str, Any] = dict(data or {})
        self.problems: list[ConfigProblem] = []
        """What the parser had to say."""
        self.substituted: dict[Path, str] = {}
        """The result of each leaf that had a substitution; it is a secret until shown otherwise."""
        self.keys: dict[Path, Mark] = {}
        self.values: dict[Path, Mark] = {}

    def key(self, path: Path) -> Mark | None:
        """Where the key of a value stands, or of the nearest value around it."""
        while path and path not in self.keys:
            path = path[:-1]
        return self.keys.get(path)

    def value(self, path: Path) -> Mark | None:
        """Where a value stands, or the nearest value around it."""
        while path and path not in self.values:
            path = path[:-1]
        return self.values.get(path)
