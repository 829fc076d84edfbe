"""The extension ``ext-reliable-tasking``: a queue of tasks for each sensor, delivered when the sensor is there."""

from __future__ import annotations

import time
import uuid
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.emulator.agents import Agents, adapter_event
from pipeline.emulator.commandline import TaskError
from pipeline.emulator.comparisons import SelectorError
from pipeline.emulator.extensions import ActionError
from pipeline.emulator.live import Live
from pipeline.emulator.roster import Station
from pipeline.emulator.selector import compile_selector
from pipeline.emulator.state import Org

WEEK = 604_800
"""Seconds that a task is kept if its request does not say."""

MAX_QUEUE = 10_000
"""Tasks that may wait for one sensor."""

TARGETS = ("sid", "tag", "selector")
_TARGET_FIELDS = {name: {"data_type": "string", "is_required": False} for name in TARGETS}


@dataclass
class Row:
    """One task for one sensor. `expiry` is Unix seconds, looked at when the task would be delivered."""

    task_id: str
    command: str
    context: str
    expiry: float
    selector: str

    def shown(self) -> dict[str, Any]:
        return {
            "task_id": self.task_id,
            "command": self.command,
            "context": self.context,
            "expiry": int(self.expiry),
            "sensor_selector": self.selector,
        }


class ReliableTasking:
    """At least once: a task leaves its queue when the sensor has confirmed it, and is sent again until then.

    With `one_target` a request must name exactly one of sid, tag and selector; without, none of them means all sensors.
    """

    name = "ext-reliable-tasking"
    label = "Reliable Tasking"
    actions: dict[str, dict[str, dict[str, Any]]] = {  # noqa: RUF012 - never changed
        "task": {
            "task": {"data_type": "string", "is_required": True},
            "context": {"data_type": "string", "is_required": False},
            "ttl": {"data_type": "integer", "is_required": False},
            **_TARGET_FIELDS,
        },
        "list": _TARGET_FIELDS,
        "untask": {"task_id": {"data_type": "string", "is_required": False}, **_TARGET_FIELDS},
    }

    def __init__(self, agents: Agents, live: Live) -> None:
        self.one_target = False
        self._agents = agents
        self._live = live
        self._queues: dict[str, dict[str, Row]] = defaultdict(dict)
        """By sid and task id; a sid is unique over all organizations."""
        agents.on_arrival(self._arrived)

    def request(self, org: Org, action: str, data: dict[str, Any]) -> Any:
        if action == "task":
            return self._task(org, data)
        if action == "untask":
            return self._untask(org, data)
        stations = self._targets(org, data, needed=False)
        return {
            station.sid: {row.task_id: row.shown() for row in rows}
            for station in stations
            if (rows := self._waiting(station))
        }

    def _task(self, org: Org, data: Mapping[str, Any]) -> dict[str, Any]:
        command, ttl = data.get("task"), data.get("ttl") or WEEK
        if not isinstance(command, str) or not command.strip():
            raise ActionError("missing parameter task")
        if isinstance(ttl, bool) or not isinstance(ttl, int | float) or ttl < 0:
            raise ActionError("ttl is not a number of seconds")
        stations = [station for station in self._targets(org, data, needed=self.one_target) if station.taskable]
        for one in {station.sensor.platform: station for station in stations}.values():
            self._understand(one, command)
        if any(len(self._queues[station.sid]) >= MAX_QUEUE for station in stations):
            raise ActionError(f"a sensor has {MAX_QUEUE} tasks waiting")
        row = Row(
            str(uuid.uuid4()),
            command,
            str(data.get("context") or ""),
            time.time() + ttl,
            str(data.get("selector") or ""),
        )
        targets = {name: data[name] for name in TARGETS if data.get(name)}
        self._tell(org, "add_task", task_id=row.task_id, task=command, ttl=int(ttl), context=row.context, **targets)
        sent = 0
        for station in stations:
            self._queues[station.sid][row.task_id] = row
            if station.online:
                sent += 1
                self._deliver(org, station, row)
        return {
            "task_id": row.task_id,
            "total_sensors": len(stations),
            "tasked_sensors": sent,
            "queued_sensors": len(stations) - sent,
        }

    def _untask(self, org: Org, data: Mapping[str, Any]) -> dict[str, int]:
        deleted = 0
        for station in self._targets(org, data, needed=True):
            for row in self._waiting(station):
                if data.get("task_id") in (None, "", row.task_id):
                    del self._queues[station.sid][row.task_id]
                    deleted += 1
        return {"deleted": deleted}

    def _arrived(self, org: Org, station: Station) -> None:
        for row in self._waiting(station):
            self._deliver(org, station, row)

    def _waiting(self, station: Station) -> list[Row]:
        """Forget what is too late, and return the rest."""
        queue = self._queues[station.sid]
        for task_id in [row.task_id for row in queue.values() if row.expiry <= time.time()]:
            del queue[task_id]
        return list(queue.values())

    def _deliver(self, org: Org, station: Station, row: Row) -> None:
        about = {"sid": station.sid, "task_id": row.task_id}
        if row.expiry <= time.time():
            return
        self._tell(org, "try_task", **about)
        try:
            task = self._agents.check(station, row.command)
        except TaskError as error:
            del self._queues[station.sid][row.task_id]
            self._tell(org, "task_failure", **about, error=str(error))
            return

        def confirmed() -> None:
            if self._queues[station.sid].pop(row.task_id, None) is not None:
                self._tell(org, "task_done", **about)

        self._tell(org, "task_sent", **about)
        self._agents.task(org, station, task, row.context, confirmed)

    def _targets(self, org: Org, data: Mapping[str, Any], *, needed: bool) -> list[Station]:
        """Return the sensors that a request means; raises `ActionError`."""
        given = [(name, str(data[name])) for name in TARGETS if data.get(name)]
        if len(given) > 1 or (needed and not given):
            raise ActionError("exactly one of sid, tag or selector is required")
        for name, value in given:
            if value == "*":
                break
            if name == "sid":
                return [station for station in org.roster if station.sid == value]
            if name == "tag":
                return [station for station in org.roster if value in station.tags]
            try:
                return org.roster.matching(compile_selector(value))
            except SelectorError as error:
                raise ActionError(str(error)) from None
        return list(org.roster)

    def _understand(self, station: Station, command: str) -> None:
        try:
            self._agents.check(station, command)
        except TaskError as error:
            # on a mixed fleet some platforms do not know a command, which their delivery then reports
            if not str(error).startswith("UNSUPPORTED_FOR_PLATFORM"):
                raise ActionError(str(error)) from None

    def _tell(self, org: Org, kind: str, **payload: Any) -> None:
        """Report what the extension does, as the adapter that it is in the event stream."""
        tags = ["lc:system", f"ext:{self.name}"]
        self._live.release(org, "event", [adapter_event(org.oid, self.name, kind, payload, tags)])
