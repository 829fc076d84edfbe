"""A rule that was read and found right: what its conditions are, before it is made into a function."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

Holds = Callable[[Any], bool]
"""Decides about one value."""


@dataclass(frozen=True, slots=True)
class Leaf:
    """Holds when any value at a path does."""

    path: str
    holds: Holds
    elements: bool = True
    """Whether a list at the end of the path stands for its elements."""
    text: str = ""
    """What `holds` says of a text, as a Python expression of ``found`` and ``wanted``, where it can be told so."""
    wanted: str = ""


@dataclass(frozen=True, slots=True)
class Group:
    """Holds when every one of its rules does, or any; those after the one that settles it are not looked at."""

    every: bool
    rules: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Node:
    """One condition."""

    what: Leaf | Group
    negated: bool = False
    types: frozenset[str] | None = None
    """Event types outside of which it does not hold, negated or not."""


def anything(_: Any) -> bool:
    """Holds for each value."""
    return True


class Rule(Protocol):
    """Says whether a record satisfies a rule."""

    def __call__(self, doc: Any, sequence: int = 0, /) -> bool:
        """``doc`` is as `orjson.loads` gives it; ``sequence`` makes no difference. Raises `TooComplex`, and nothing else."""
        ...
