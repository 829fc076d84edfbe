"""The sensors at work: they come online, go offline, run tasks, and answer in the event stream."""

from __future__ import annotations

import asyncio
import itertools
import time
import uuid
from collections.abc import Callable, Sequence
from typing import Any

from pipeline.emulator.commandline import TaskError
from pipeline.emulator.commands import Task, understand
from pipeline.emulator.fleet import USP_ADAPTER
from pipeline.emulator.live import Live
from pipeline.emulator.machine import Machine
from pipeline.emulator.records import Record, compact
from pipeline.emulator.roster import Station, stamp
from pipeline.emulator.state import Cloud, Org

FLAP_SECONDS = 15.0
"""How often one of the sensors that come and go does so, in live mode; their order is that of the fleet."""

HIDDEN = "__"
"""An investigation with this prefix is kept out of outputs."""

UNANSWERED = frozenset({"restart", "upgrade_core"})
"""Tasks that count as confirmed once sent: the sensor goes away over them."""

JSON_PLATFORM = 0x90000000

Arrived = Callable[[Org, Station], None]
Confirm = Callable[[], None]


class Agents:
    """What knobs turn: `delay`, `aliases` and `lose`."""

    def __init__(self, cloud: Cloud, live: Live) -> None:
        self.delay = 0.05
        """Seconds between a sensor's confirmation of a task and its answer."""
        self.aliases = True
        """Take `os_info` and `kill`, which guides name and no reference has."""
        self.lose = 0
        """So many of the next tasks are run, but the cloud hears no confirmation of them."""
        self._cloud = cloud
        self._live = live
        self._machines: dict[str, Machine] = {}
        self._arrived: list[Arrived] = []

    def on_arrival(self, callback: Arrived) -> None:
        """Call back for each sensor that has come online."""
        self._arrived.append(callback)

    async def run(self) -> None:
        """Let some sensors come and go until cancelled; not where a stream is to be exactly what its generator makes."""
        settings = self._cloud.settings
        if settings.rate == 0 or settings.events is not None:
            return
        flapping = [
            (org, station)
            for org in self._cloud.orgs.values()
            for station in org.roster
            if station.sensor.presence == "flapping"
        ]
        for org, station in itertools.cycle(flapping):
            await asyncio.sleep(FLAP_SECONDS / len(self._cloud.orgs))
            self.set_online(org, station, online=not station.online)

    def set_online(self, org: Org, station: Station, *, online: bool) -> None:
        """Make a sensor come online, which it reports by CONNECTED, or go offline; nothing if it is so already."""
        if online == station.online:
            return
        if not online:
            station.go()
            self._report_gone(org, station)
            return
        station.come()
        if station.taskable:
            payload = {
                "HOST_NAME": station.sensor.hostname,
                "IS_SEGREGATED": int(station.isolated),
                "KERNEL_ACQ_AVAILABLE": 1,
                "MAC_ADDRESS": station.row()["mac_addr"].upper(),
            }
            self._send(org, station, "CONNECTED", payload)
        for callback in self._arrived:
            callback(org, station)

    def check(self, station: Station, text: str) -> Task:
        """Understand a task for a sensor; raises `TaskError`."""
        if not station.taskable:
            raise TaskError(f"UNSUPPORTED_FOR_PLATFORM: {station.sensor.platform} takes no tasks")
        return understand(text, station.sensor.platform, aliases=self.aliases)

    def task(self, org: Org, station: Station, task: Task, investigation: str, confirm: Confirm | None = None) -> None:
        """Hand a task to a sensor; one that is offline never gets it. Its confirmation comes in the stream, then its answers."""
        if not station.online:
            return
        notification = {
            "NOTIFICATION_ID": task.notification,
            "NOTIFICATION": {"INVESTIGATION_ID": investigation} if investigation else {},
            "HCP_IDENT": {
                "HCP_ORG_ID": org.oid,
                "HCP_SENSOR_ID": station.sid,
                "HCP_INSTALLER_ID": station.sensor.iid,
                "HCP_ARCHITECTURE": station.sensor.arch,
                "HCP_PLATFORM": station.sensor.plat,
            },
            "EXPIRY": int(time.time()) + 3600,
        }
        if self.lose > 0 and task.name not in UNANSWERED:
            self.lose -= 1
        else:
            self._send(org, station, "CLOUD_NOTIFICATION", notification, investigation)
            if confirm is not None:
                confirm()
        asyncio.get_running_loop().call_later(self.delay, self._answer, org, station, task, investigation)

    def _answer(self, org: Org, station: Station, task: Task, investigation: str) -> None:
        if not station.online:
            return
        if task.name == "restart":
            self.set_online(org, station, online=False)
            asyncio.get_running_loop().call_later(self.delay, lambda: self.set_online(org, station, online=True))
            return
        if task.name in ("segregate_network", "rejoin_network"):
            station.isolated = task.name == "segregate_network"
        for kind, payload in task.run(self._machine(station)):
            self._send(org, station, kind, payload, investigation)

    def isolate(self, org: Org, station: Station, *, isolated: bool) -> None:
        """Set what the network access of a sensor should be; one that is online follows and says so."""
        station.should_isolate = isolated
        if station.online and station.taskable:
            station.isolated = isolated
            self._send(org, station, "SEGREGATE_NETWORK" if isolated else "REJOIN_NETWORK", {"ERROR": 0})

    def _machine(self, station: Station) -> Machine:
        if station.sid not in self._machines:
            self._machines[station.sid] = Machine(station.oid, station.sensor)
        return self._machines[station.sid]

    def _send(self, org: Org, station: Station, kind: str, payload: dict[str, Any], investigation: str = "") -> None:
        sensor = station.sensor
        machine = self._machine(station)
        record = event(
            org.oid,
            kind,
            payload,
            {
                "arch": sensor.arch,
                "did": sensor.did,
                "ext_ip": sensor.ext_ip,
                "hostname": sensor.hostname,
                "iid": sensor.iid,
                "int_ip": sensor.int_ip,
                "moduleid": 2,
                "plat": sensor.plat,
                "sid": sensor.sid,
                "tags": list(station.tags),
                "this": machine.atom(),
            },
            investigation,
        )
        self._live.release(org, "event", [record], hidden=investigation.startswith(HIDDEN))

    def _report_gone(self, org: Org, station: Station) -> None:
        record = event(org.oid, "disconnected", {}, {"sid": station.sid, "hostname": station.sensor.hostname})
        record.stream = "deployment"
        self._live.release(org, "deployment", [record])


def event(oid: str, kind: str, payload: dict[str, Any], routing: dict[str, Any], investigation: str = "") -> Record:
    """Return a record of the event stream that happens now."""
    now = int(time.time() * 1000)
    event_id = str(uuid.uuid4())
    routing = {**routing, "event_id": event_id, "event_time": now, "event_type": kind, "oid": oid}
    if investigation:
        routing["investigation_id"] = investigation
    tags: Sequence[str] = routing.get("tags", ())
    return Record(
        raw=compact({"event": payload, "routing": dict(sorted(routing.items())), "ts": stamp(now / 1000)}),
        stream="event",
        event_type=kind,
        sid=routing.get("sid", ""),
        tags=tuple(tags),
        cat="",
        inv_id=investigation,
        time_ms=now,
        id=event_id,
    )


def adapter_event(oid: str, name: str, kind: str, payload: dict[str, Any], tags: list[str]) -> Record:
    """Return a record that happens now at an adapter which is no sensor of the fleet."""
    space = uuid.UUID(oid)
    routing = {
        "arch": USP_ADAPTER,
        "did": "",
        "ext_ip": "internal",
        "hostname": name,
        "iid": str(uuid.uuid5(space, "adapters")),
        "int_ip": "",
        "moduleid": 6,
        "plat": JSON_PLATFORM,
        "sid": str(uuid.uuid5(space, name)),
        "tags": tags,
        "this": uuid.uuid4().hex,
    }
    return event(oid, kind, payload, routing)
