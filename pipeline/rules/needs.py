"""What a rule must know of a record, so that no more than that needs to be decoded."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.core.filter import Needs, Place
from pipeline.rules.eventtype import IMPLIED, LOOKED_AT, READ
from pipeline.rules.paths import MAX_NODES, parse_path
from pipeline.rules.values import number_of

_MARKS = 8
"""Alternatives at most that are told. How many of them are worth looking for depends on what is spared."""
_SMALL = 16 << 10
"""Bytes up to which no search of a regular expression can be refused as too complex."""
_PLAIN = re.compile(r"[ !#-.0-\[\]-~]+")
"""Characters that JSON text holds as they are, or as ``\\u00``."""
_OF_NUMBERS = re.compile(r"[-+.0-9aefilnrstuEIN]*")
"""What the text of a number or of a boolean may be made of: its bytes in the record may be others."""
_EVERYWHERE = frozenset({"routing", "event", "detect"})
"""Keys that nearly every record of a stream has; those within the first are the same ones, too."""


def needs_of(rule: Mapping[str, Any]) -> Needs:
    """Return what a rule without mistakes needs."""
    conditions = list(_conditions(rule))
    values: set[Place] = set()
    presence: set[Place] = set()
    whole = False
    if _asks_type(rule):
        values |= READ
        presence |= LOOKED_AT
    for condition in conditions:
        steps = parse_path(condition["path"])
        if not steps or "?" in steps or "*" in steps:
            whole = True
        elif condition["op"] == "exists" or condition.get("length of"):
            presence.add(steps)
        else:
            values.add(steps)
    # One evaluation visits no more nodes than half the record's bytes for each condition, so small records are never too complex:
    # then no order of looking matters.
    most = 2 * MAX_NODES // max(1, len(conditions))
    return Needs(
        frozenset(values),
        frozenset(presence - values),
        whole,
        sequence=False,
        marks=_marks(rule),
        marks_up_to=min(_SMALL, most) if any(condition["op"] == "matches" for condition in conditions) else most,
    )


def _conditions(rule: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    if "rules" not in rule:
        return [rule]
    return [one for each in rule["rules"] for one in _conditions(each)]


def _event_types(rule: Mapping[str, Any]) -> tuple[str, ...]:
    """The types that one condition is for; () for all."""
    one = rule.get("event")
    return (one,) if one is not None else tuple(rule.get("events") or ())


def _asks_type(rule: Mapping[str, Any]) -> bool:
    return bool(_event_types(rule)) or any(map(_asks_type, rule.get("rules", ())))


def _marks(rule: Mapping[str, Any]) -> tuple[bytes, ...]:
    """Bytes one of which a small record that satisfies the rule holds, unless with escapes; () where there are none to look for."""
    return _marks_of_operator(rule) or marks_of_types(_event_types(rule))


def marks_of_types(types: Sequence[str]) -> tuple[bytes, ...]:
    """Bytes one of which a record of one of these types holds, unless with escapes; () where there are none to look for."""
    if len(types) > _MARKS or IMPLIED in types or not all(map(_PLAIN.fullmatch, types)):
        return ()
    return tuple(b'"%b"' % name.encode() for name in types)


def _marks_of_operator(rule: Mapping[str, Any]) -> tuple[bytes, ...]:
    # it turns the operator around, and leaves alone which types the condition is for
    if rule.get("not"):
        return ()
    if rule["op"] == "and":
        found = [(len(marks), _by_key(one), marks) for one in rule["rules"] if (marks := _marks(one))]
        return min(found, key=lambda one: one[:2], default=(0, False, ()))[2]
    if rule["op"] == "or":
        each = [_marks(one) for one in rule["rules"]]
        every = tuple(dict.fromkeys(mark for marks in each for mark in marks))
        return every if all(each) and len(every) <= _MARKS else ()
    return _value(rule) or _key(rule)


def _value(rule: Mapping[str, Any]) -> tuple[bytes, ...]:
    """The bytes of the value that is looked for, where they can be in the record in one form only."""
    text = rule.get("value")
    if not isinstance(text, str) or rule.get("case sensitive") is False:
        return ()
    if number_of(text) is not None or _OF_NUMBERS.fullmatch(text) or not _PLAIN.fullmatch(text):
        return ()
    match rule["op"]:
        case "is":
            return (b'"%b"' % text.encode(),)
        case "starts with":
            return (b'"%b' % text.encode(),)
        case "ends with":
            return (b'%b"' % text.encode(),)
        case "contains":
            return (text.encode(),)
    return ()


def _by_key(rule: Mapping[str, Any]) -> bool:
    """Whether only a key is looked for, which more records have than any one value."""
    return "path" in rule and not rule.get("not") and not _value(rule)


def _key(rule: Mapping[str, Any]) -> tuple[bytes, ...]:
    """The key that the record must have, where not nearly every record has it."""
    steps = parse_path(rule["path"])
    names = [step for step in steps if step not in ("?", "*")]
    if not names or len(steps) < 2 or names[0] == "routing" or names[-1] in _EVERYWHERE:
        return ()
    return (b'"%b"' % names[-1].encode(),) if _PLAIN.fullmatch(names[-1]) else ()
