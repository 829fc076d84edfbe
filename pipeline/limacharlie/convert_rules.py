"""Rules that ask the service of reliable tasking, which is gone, made to ask the extension instead."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from pipeline.core.errors import UsageError
from pipeline.limacharlie.answers import Doc
from pipeline.limacharlie.client import LimaCharlie
from pipeline.limacharlie.extensions import NotSubscribedError
from pipeline.limacharlie.hive import HiveRecord
from pipeline.limacharlie.reliable_tasking import EXTENSION

HIVES = ("dr-general", "dr-managed")
"""Where an organization's rules are that it may change."""

_SERVICE = EXTENSION.removeprefix("ext-")
_FIELDS = {
    "task": frozenset({"task", "sid", "tag", "selector", "context", "task_id", "ttl"}),
    "untask": frozenset({"sid", "tag", "selector", "task_id"}),
    "list": frozenset({"sid", "tag", "selector"}),
    "signal_attempt": frozenset({"sid"}),
    "signal_received": frozenset({"sid", "inv_id"}),
}
"""What each action of the extension takes."""
_PATH = re.compile(r"<<(.*?)>>")
_PLAIN = re.compile(r"[A-Za-z_]\w*", re.ASCII)


class _NoCounterpart(Exception):  # noqa: N818 - a finding about a rule, not a fault
    """The extension cannot be asked this."""


@dataclass(frozen=True, slots=True)
class Conversion:
    """A rule that asks the service, and what becomes of it."""

    hive: str
    record: HiveRecord
    """The rule as it is."""
    changes: tuple[tuple[Doc, Doc], ...] = ()
    """Each response that changes: before and after."""
    data: Doc | None = None
    """The rule as it shall be."""
    problem: str = ""
    """Why it cannot be converted, and is left alone, as a sentence."""


async def find(account: LimaCharlie) -> list[Conversion]:
    """Find all rules that ask the service, and convert them without writing.

    Needs ``dr.list`` and ``dr.list.managed``. Raises `NotSubscribedError` where nobody would hear a converted rule, and what
    `Transport.request` raises.
    """
    if EXTENSION not in await account.extensions.subscriptions():
        raise NotSubscribedError(
            "The organization is not subscribed to the extension.",
            where=EXTENSION,
            fix="Subscribe it in the marketplace at https://app.limacharlie.io/add-ons.",
        )
    found = []
    for hive in HIVES:
        for _, record in sorted((await account.hive(hive).list()).items()):
            respond = (record.data or {}).get("respond")
            if isinstance(respond, list) and any(map(_asks_service, respond)):
                found.append(_convert(hive, record, respond))
    return found


async def write(account: LimaCharlie, conversion: Conversion) -> None:
    """Write a converted rule; its other parts, tags and metadata stay. Needs ``dr.set`` or ``dr.set.managed``.

    Raises `UsageError` for one that has a problem, `ConflictError` where the rule is not the one that was found, and what
    `Transport.request` raises.
    """
    if conversion.data is None:
        raise UsageError(conversion.problem, where=conversion.record.name)
    await account.hive(conversion.hive).put(replace(conversion.record, data=conversion.data))


def _convert(hive: str, record: HiveRecord, respond: Sequence[Any]) -> Conversion:
    try:
        after = [_convert_response(each) if _asks_service(each) else each for each in respond]
    except _NoCounterpart as error:
        return Conversion(hive, record, problem=str(error))
    changes = tuple((old, new) for old, new in zip(respond, after, strict=True) if old is not new)
    return Conversion(hive, record, changes, {**(record.data or {}), "respond": after})


def _asks_service(response: Any) -> bool:
    return (
        isinstance(response, dict) and response.get("action") == "service request" and response.get("name") == _SERVICE
    )


def _convert_response(response: Doc) -> Doc:
    """Raises `_NoCounterpart`."""
    request = response.get("request")
    if not isinstance(request, dict):
        raise _NoCounterpart("The service request has no request.")
    action = request.get("action")
    if not isinstance(action, str) or action not in _FIELDS:
        raise _NoCounterpart(f"The extension has no action {action!r}.")
    given = {key: value for key, value in request.items() if key != "action" and value is not None}
    if action == "task" and "inv_id" in given and "context" not in given:
        # The service's name for it.
        given["context"] = given.pop("inv_id")
    if unknown := given.keys() - _FIELDS[action]:
        raise _NoCounterpart(f"The extension's action {action} takes no {', '.join(sorted(unknown))}.")
    if action == "task" and "task" not in given:
        raise _NoCounterpart("The service request has no task.")
    return {
        **{key: value for key, value in response.items() if key not in ("action", "name", "request")},
        "action": "extension request",
        "extension name": EXTENSION,
        "extension action": action,
        "extension request": {key: _template(value) for key, value in given.items()},
    }


def _template(value: Any) -> Any:
    """Write a value as extension requests have it: ``<<routing/sid>>`` → ``{{ .routing.sid }}``, ``x`` → ``{{ "x" }}``.

    Numbers stay, and what is a template already. Raises `_NoCounterpart`.
    """
    if isinstance(value, int | float):
        return value
    if not isinstance(value, str):
        raise _NoCounterpart(f"A value of a service request is a text or a number, not {type(value).__name__}.")
    pieces = _PATH.split(value)
    if "{{" in value:
        if len(pieces) > 1:
            raise _NoCounterpart(f"{value!r} has both forms of templates.")
        return value
    if len(pieces) == 1:
        return _literal(value)
    return "".join(
        _lookup(piece) if index % 2 else _literal(piece) if "{" in piece else piece
        for index, piece in enumerate(pieces)
    )


def _literal(text: str) -> str:
    return f"{{{{ {json.dumps(text, ensure_ascii=False)} }}}}"


def _lookup(path: str) -> str:
    parts = path.strip().strip("/").split("/")
    if not all(parts) or any(part in ("*", "?") for part in parts):
        raise _NoCounterpart(f"<<{path}>> is no path to one value.")
    if all(map(_PLAIN.fullmatch, parts)):
        return f"{{{{ .{'.'.join(parts)} }}}}"
    quoted = " ".join(json.dumps(part, ensure_ascii=False) for part in parts)
    return f"{{{{ index . {quoted} }}}}"
