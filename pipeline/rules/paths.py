"""Paths into decoded records: ``routing/hostname``, ``event/?/FILE_PATH``, ``event/*/IP_ADDRESS``.

A name goes into an object by that key, ``?`` takes exactly one level, ``*`` takes zero or more, ``/`` alone is the whole record,
and a leading ``/`` means nothing. A list is transparent: a step that meets one goes on in each element; ``?`` and ``*`` may also
take the index as their level. Names are matched exactly, a number is a name and not an index, and a key that itself holds a ``/``
cannot be addressed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

MAX_STEPS = 64
"""Steps in one path at most."""
MAX_NODES = 200_000
"""Nodes that one evaluation may visit, over all its paths: some tens of milliseconds of work."""

Budget = list[int]
"""One number: the nodes that this evaluation may still visit."""
Resolver = Callable[[Any, Budget], Iterable[Any]]
"""Gives the values at a path in a decoded record, in the record's order; each place at most once. Raises `TooComplex`."""

_MISSING = object()
_CONTAINERS = (dict, list)


class TooComplex(ValueError):  # noqa: N818 - reads as a verdict on the record
    """Deciding about this record would visit more nodes than allowed, so it is not decided."""


def new_budget() -> Budget:
    """Return what one evaluation may spend."""
    return [MAX_NODES]


def parse_path(text: str) -> tuple[str, ...]:
    """Return the steps of a path. Raises ValueError, saying what is wrong with it."""
    if not text:
        raise ValueError("a path is keys with / between them, like routing/hostname; / is the whole record")
    if text == "/":
        return ()
    steps = tuple(text.removeprefix("/").split("/"))
    if not all(steps):
        raise ValueError(f"the path {text!r} has an empty step")
    if len(steps) > MAX_STEPS:
        raise ValueError(f"the path has {len(steps)} steps; {MAX_STEPS} are allowed")
    return steps


def compile_path(text: str, *, elements: bool = True) -> Resolver:
    """Return the resolver of a path for records as `orjson.loads` gives them. Raises ValueError, saying what is wrong with it.

    With ``elements`` a list at the end of the path stands for its elements (an empty one for nothing); without, it is itself the
    value.
    """
    steps = parse_path(text)
    walk = _walker(steps, elements=elements)
    if "?" in steps or "*" in steps:
        return walk

    def resolve(doc: Any, budget: Budget) -> Iterable[Any]:
        node = doc
        for name in steps:
            if node.__class__ is not dict:
                return walk(doc, budget) if node.__class__ is list else ()
            node = node.get(name, _MISSING)
        if node is _MISSING:
            return ()
        if elements and node.__class__ is list:
            return walk(doc, budget)
        return (node,)

    return resolve


def _walker(steps: tuple[str, ...], *, elements: bool) -> Resolver:
    """Return the general resolver: one pass over the record with a bit set of the steps that may come next.

    Bit i stands for "steps[i] comes next", the bit after the last step for "the path ends here". However many wildcards there are,
    a node is visited once, because all ways to reach it share one set.
    """
    one = star = 0
    named: dict[str, int] = {}
    for index, step in enumerate(steps):
        if step == "?":
            one |= 1 << index
        elif step == "*":
            star |= 1 << index
        else:
            named[step] = named.get(step, 0) | 1 << index
    wild = one | star
    end = 1 << len(steps)

    def close(state: int) -> int:
        # `*` may take no level at all, so the step after it may come next too; a run of them needs a turn each
        while (wider := state | (state & star) << 1) != state:
            state = wider
        return state

    start = close(1)

    def walk(doc: Any, budget: Budget) -> Iterator[Any]:
        stack = [(doc, start)]
        while stack:
            node, state = stack.pop()
            kind = node.__class__
            if state & end and not (elements and kind is list):
                yield node
            rest = state & ~end
            if kind is list:
                _spend(budget, len(node))
                if below := close((state if elements else rest) | (state & one) << 1):
                    ends = below & end
                    stack.extend((child, below) for child in reversed(node) if ends or child.__class__ in _CONTAINERS)
            elif kind is dict and rest:
                if rest & (rest - 1) or rest & wild:
                    _spend(budget, len(node))
                    other = close((rest & one) << 1 | rest & star)
                    for name, child in reversed(node.items()):
                        bits = rest & named.get(name, 0)
                        below = other | close(bits << 1) if bits else other
                        if below & end or (below and child.__class__ in _CONTAINERS):
                            stack.append((child, below))
                elif (child := node.get(steps[rest.bit_length() - 1], _MISSING)) is not _MISSING:
                    _spend(budget, 1)
                    stack.append((child, close(rest << 1)))

    return walk


def _spend(budget: Budget, nodes: int) -> None:
    budget[0] -= nodes
    if budget[0] < 0:
        raise TooComplex(f"more than {MAX_NODES} nodes to visit")
