"""Commands to sensors that are connected. For one that is not, see `reliable_tasking`."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from pipeline.core.errors import UnavailableError, UsageError
from pipeline.limacharlie.answers import sensor_id
from pipeline.limacharlie.paths import Paths
from pipeline.limacharlie.sensors import Sensors
from pipeline.limacharlie.transport import Transport


class OfflineError(UnavailableError):
    """The sensor is not connected, so that nobody would hear the command."""


@dataclass(frozen=True, slots=True)
class Sent:
    """Commands that LimaCharlie took; their answers come in the event stream."""

    sid: str
    tasks: tuple[str, ...]
    investigation_id: str | None
    """What ``routing/investigation_id`` of the answers is."""
    online: bool | None
    """Whether the sensor was connected a moment before; None where that was not asked."""


class Tasks:
    """Needs ``sensor.task``, and ``sensor.get`` to see who is connected. All raise what `Transport.request` raises."""

    def __init__(self, transport: Transport, oid: str, paths: Paths, sensors: Sensors, inv_id: str | None) -> None:
        self._transport = transport
        self._oid = oid
        self._paths = paths
        self._sensors = sensors
        self._inv_id = inv_id

    async def send(
        self,
        sid: str,
        *tasks: str,
        inv_id: str | None = None,
        context: str | None = None,
        if_offline: Literal["refuse", "send", "unchecked"] = "refuse",
        key: str | None = None,
    ) -> Sent:
        """Send commands like ``os_processes`` or ``file_get /etc/hosts`` to a sensor.

        The answers carry the investigation id ``inv_id`` (default: the client's), followed by ``/context`` where one is given. With
        ``if_offline`` one chooses what happens when the sensor is not connected: an `OfflineError`, or sending all the same; it is
        not asked at all with ``unchecked``. ``key`` names this request, so that LimaCharlie runs a repeated one once; a fresh one
        is made unless given.
        """
        if not tasks or not all(task.strip() for task in tasks):
            raise UsageError("There is no command to send.")
        online: bool | None = None
        if if_offline != "unchecked":
            sensor = await self._sensors.get(sid)
            online = sensor.online
            if not online and if_offline == "refuse":
                raise OfflineError(
                    f"The sensor {sensor.hostname or sid} is offline.",
                    where=sid,
                    fix="Use reliable tasking, which waits until it comes online.",
                )
        investigation = investigation_id(inv_id or self._inv_id, context)
        form: dict[str, str | Sequence[str]] = {"tasks": tasks}
        if investigation:
            form["investigation_id"] = investigation
        # The key is what makes it safe to try again after an answer was lost.
        await self._transport.request(
            "POST",
            self._paths.of(self._paths.task, self._oid, sensor_id(sid)),
            form=form,
            headers={"x-idempotent-key": _header(key) if key else str(uuid.uuid4())},
            repeatable=True,
        )
        return Sent(sid, tasks, investigation, online)


def investigation_id(inv_id: str | None, context: str | None) -> str | None:
    """``inv_id/context``: a stream asked for ``inv_id`` gets it too, for the part before the slash decides."""
    return "/".join(part for part in (inv_id, context) if part) or None


def _header(value: str) -> str:
    if not value.isascii() or not value.isprintable():
        raise UsageError("A request's key is printable ASCII text.")
    return value
