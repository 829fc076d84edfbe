"""Reliable tasking: commands that wait in the cloud until their sensors come online."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.core.errors import UnavailableError, UsageError
from pipeline.limacharlie import records
from pipeline.limacharlie import selector as selectors
from pipeline.limacharlie.answers import Doc, table, text
from pipeline.limacharlie.extensions import Extensions

EXTENSION = "ext-reliable-tasking"
DEFAULT_TTL = 604_800
"""Seconds that LimaCharlie keeps a command unless told otherwise: a week."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """A command that LimaCharlie took for delivery. Numbers are None where it did not tell them."""

    task_id: str
    selector: str
    context: str | None
    total: int | None
    """Sensors that the selector means."""
    tasked: int | None
    """Those of them that were online, and got it at once."""
    queued: int | None
    """Those of them that it waits for."""


@dataclass(frozen=True, slots=True)
class Queued:
    """A command that waits."""

    task_id: str
    command: str
    context: str
    sid: str
    """The sensor that it waits for; "" where LimaCharlie lists commands and not sensors."""
    selector: str
    """The selector that it was given with, where LimaCharlie tells."""
    expires_at: float | None
    """Unix seconds."""
    doc: Doc


class ReliableTasking:
    """All raise what `Extensions.request` raises, and `UsageError` for a target that is not one.

    A target is one of ``selector``, ``sid`` and ``tag``, or ``everywhere``, which must be said: an older extension takes a request
    that names none, or one in a way it does not know, for all sensors. So all four travel as a selector, which every version knows.
    One request reaches any number of sensors.
    """

    def __init__(self, extensions: Extensions, inv_id: str | None) -> None:
        self._extensions = extensions
        self._inv_id = inv_id

    async def task(
        self,
        command: str,
        *,
        selector: str | None = None,
        sid: str | None = None,
        tag: str | None = None,
        everywhere: bool = False,
        context: str | None = None,
        ttl: float | None = None,
    ) -> Accepted:
        """Give a command to sensors, now or when they come online within ``ttl`` seconds (default: `DEFAULT_TTL`).

        ``context`` (default: the client's investigation id) comes back in ``routing/investigation_id`` of the answers. It is not
        tried again after a failure that may have come too late: look with `list` whether it is there first.
        """
        if not command.strip():
            raise UsageError("There is no command to send.")
        target = _target(selector, sid, tag, everywhere)
        context = context or self._inv_id
        data: Doc = {"task": command, "selector": target}
        if context:
            data["context"] = context
        if ttl is not None:
            if not 1 <= ttl < 1e9:
                raise UsageError("The ttl is a number of seconds, at least one.")
            data["ttl"] = int(ttl)
        answer = table(await self._extensions.request(EXTENSION, "task", data), EXTENSION)
        return Accepted(
            text(answer, "task_id"),
            target,
            context,
            *(_count(answer, f"{what}_sensors") for what in ("total", "tasked", "queued")),
        )

    async def untask(
        self,
        *,
        selector: str | None = None,
        sid: str | None = None,
        tag: str | None = None,
        everywhere: bool = False,
        task_id: str | None = None,
    ) -> int:
        """Take commands back that still wait for these sensors: one of them, or all. Returns how many there were.

        What a sensor already has cannot be taken back.
        """
        data: Doc = {"selector": _target(selector, sid, tag, everywhere)}
        if task_id:
            data["task_id"] = task_id
        answer = table(await self._extensions.request(EXTENSION, "untask", data, repeatable=True), EXTENSION)
        return _count(answer, "deleted") or 0

    async def list(
        self,
        *,
        selector: str | None = None,
        sid: str | None = None,
        tag: str | None = None,
        context: str | None = None,
    ) -> Sequence[Queued]:
        """Commands that wait, for all sensors or those of a target, and of one context where it is given.

        An older extension lists everything whatever it is asked; of that, ``sid`` leaves out what is for another sensor, and
        ``selector`` and ``tag`` what was given with another selector.
        """
        target = _target(selector, sid, tag, everywhere=selector is None and sid is None and tag is None)
        answer = await self._extensions.request(EXTENSION, "list", {"selector": target}, repeatable=True)
        return [
            task
            for task in _queued(answer)
            if (context is None or task.context == context)
            and (sid is None or not task.sid or task.sid.lower() == sid.lower())
            and (task.sid or target == selectors.ALL or not task.selector or _same(task.selector, target, sid))
        ]


def _target(selector: str | None, sid: str | None, tag: str | None, everywhere: bool) -> str:
    given = [value for value in (selector, sid, tag) if value is not None]
    if len(given) + everywhere != 1:
        raise UsageError(
            "Exactly one target is needed.", fix="Give a selector, a sensor id or a tag, or say that all are meant."
        )
    if not all(value.strip() for value in given):
        raise UsageError("The target is empty.", fix=f"Write {selectors.ALL!r} for all sensors.")
    if sid is not None:
        return selectors.sensor(sid)
    if tag is not None:
        return selectors.tagged(tag)
    return selector or selectors.ALL


def _same(given: str, wanted: str, sid: str | None) -> bool:
    """Whether a command given with one selector is for another; a sensor's id in it is enough."""
    return "".join(given.split()) == "".join(wanted.split()) or (sid is not None and sid.lower() in given.lower())


def _queued(answer: Any) -> Iterator[Queued]:
    """Read commands by sensor and id, by id, or as a list, with or without ``tasks`` around it."""
    if isinstance(answer, dict) and isinstance(answer.get("tasks"), dict | list):
        answer = answer["tasks"]
    if isinstance(answer, list):
        yield from (_parse(entry, text(entry, "sid"), text(entry, "task_id")) for entry in answer if _is_task(entry))
    elif isinstance(answer, dict):
        for key, found in answer.items():
            if _is_task(found):
                yield _parse(found, text(found, "sid"), key)
            elif isinstance(found, dict):
                yield from (_parse(entry, key, task_id) for task_id, entry in found.items() if _is_task(entry))
    else:
        raise UnavailableError("The extension did not list the commands.", where=EXTENSION)


def _is_task(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("command") or value.get("task"), str)


def _parse(doc: Doc, sid: str, task_id: str) -> Queued:
    expires = records.parse_time(doc.get("expiry"))
    return Queued(
        task_id=text(doc, "task_id") or task_id,
        command=text(doc, "command") or text(doc, "task"),
        context=text(doc, "context"),
        sid=sid,
        selector=text(doc, "sensor_selector") or text(doc, "selector"),
        expires_at=None if expires is None else expires / 1000,
        doc=doc,
    )


def _count(answer: Doc, key: str) -> int | None:
    found = answer.get(key)
    return found if isinstance(found, int) and not isinstance(found, bool) else None
