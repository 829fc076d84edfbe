"""Decodes no more of a record than a few of its values."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Annotated, Any, TypedDict

from msgspec import Meta
from msgspec.json import Decoder

from pipeline.core.filter import Place

MAX_PLACES = 64
"""With more of them it is little quicker than decoding everything."""

_Int = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
_Value = str | _Int | float | bool | None | list[str]
"""What both decoders turn into the same object. Anything else is an error here, and then the record is decoded fully."""

Projection = Callable[[bytes], dict[str, Any]]


class Unfit(ValueError):  # noqa: N818 - states what the places are
    """These places cannot be decoded alone; the text says why."""


def projection(values: Iterable[Place], presence: Iterable[Place]) -> Projection:
    """Return a function that decodes a record without all that is at none of these places. Raises `Unfit`.

    At ``values`` is what `orjson.loads` gives; at ``presence`` something of the same kind and length. The function raises some
    exception where it cannot say that: then only a full decode can. Of JSON that no full decode takes it may see nothing wrong:
    it skips invalid UTF-8 and numbers beyond the range of a double. A last key wins over an earlier one of the same name, as in
    `orjson.loads`.
    """
    tree: dict[str, Any] = {}
    places: dict[Place, Any] = {**dict.fromkeys(presence, Any), **dict.fromkeys(values, _Value)}
    if len(places) > MAX_PLACES:
        raise Unfit(f"{len(places)} fields are too many to pick them out")
    for place, kind in places.items():
        node = tree
        for key in place[:-1]:
            node = node.setdefault(key, {})
            if not isinstance(node, dict):
                raise Unfit(f"{'/'.join(place)} is inside of another field that is needed")
        if place[-1] in node:
            raise Unfit(f"{'/'.join(place)} has another field that is needed inside")
        node[place[-1]] = kind
    return Decoder(_type(tree)).decode


def _type(node: Any) -> Any:
    if not isinstance(node, dict):
        return node
    make: Any = TypedDict
    return make("Record", {key: _type(inner) for key, inner in node.items()}, total=False)
