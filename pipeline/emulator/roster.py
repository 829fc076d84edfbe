"""The sensors as they are now: online or not, tagged, isolated, sealed."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.emulator.fleet import USP_ADAPTER, Fleet, Sensor

ARCHITECTURES = ("", "x86", "x64", "arm", "arm64", "alpine64", "chromium", "wireguard", "arml", "usp_adapter")
"""Names of architectures; the index is their number."""

ENROLLED = 1_748_764_800
"""When all sensors were enrolled, in Unix seconds: 2025-06-01 08:00 UTC."""

DAY = 86_400.0


def stamp(seconds: float) -> str:
    """Return Unix seconds as the API shows a time, in UTC."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(seconds))


@dataclass(frozen=True)
class Tag:
    """One tag of a sensor; times are Unix seconds."""

    by: str
    added: float
    expires: float | None


class Station:
    """One sensor's state. Times are Unix seconds."""

    def __init__(self, oid: str, sensor: Sensor) -> None:
        self.oid = oid
        self.sensor = sensor
        self.online = sensor.presence == "always"
        self.alive = time.time() - DAY
        """When it was last seen, if it is not online."""
        self.isolated = False
        self.should_isolate = False
        self.should_seal = False
        self._tags = {tag: Tag("system", ENROLLED, None) for tag in sensor.tags}

    @property
    def sid(self) -> str:
        return self.sensor.sid

    @property
    def taskable(self) -> bool:
        """It is an agent that takes tasks, and no adapter."""
        return self.sensor.arch != USP_ADAPTER

    @property
    def tags(self) -> dict[str, Tag]:
        """The tags whose time has not come."""
        now = time.time()
        return {name: tag for name, tag in self._tags.items() if tag.expires is None or tag.expires > now}

    def add_tag(self, name: str, by: str, ttl: float | None) -> None:
        now = time.time()
        self._tags[name] = Tag(by, now, None if not ttl else now + ttl)

    def remove_tag(self, name: str) -> None:
        self._tags.pop(name, None)

    def come(self) -> None:
        self.online = True
        self.isolated = self.should_isolate

    def go(self) -> None:
        self.online = False
        self.alive = time.time()

    def row(self) -> dict[str, Any]:
        """Return it as the API lists it."""
        sensor = self.sensor
        return {
            "sid": sensor.sid,
            "oid": self.oid,
            "iid": sensor.iid,
            "did": sensor.did,
            "plat": sensor.plat,
            "arch": sensor.arch,
            "ext_plat": 0,
            "enroll": stamp(ENROLLED),
            "alive": stamp(self._seen()),
            "int_ip": sensor.int_ip,
            "ext_ip": sensor.ext_ip,
            "hostname": sensor.hostname,
            "mac_addr": self._mac(),
            "isolated": self.isolated,
            "should_isolate": self.should_isolate,
            "kernel": sensor.platform == "windows",
            "sealed": self.should_seal and self.online,
            "should_seal": self.should_seal,
            "is_del": False,
            "tags": list(self.tags),
        }

    def fields(self) -> dict[str, Any]:
        """Return it as a selector sees it: names for platform and architecture, Unix seconds for times."""
        return self.row() | {
            "plat": self.sensor.platform,
            "arch": ARCHITECTURES[self.sensor.arch],
            "ext_plat": "",
            "enroll": ENROLLED,
            "alive": int(self._seen()),
        }

    def shown_online(self) -> dict[str, Any]:
        return {self.sid: int(time.time())} if self.online else {}

    def _seen(self) -> float:
        return time.time() if self.online else self.alive

    def _mac(self) -> str:
        return "-".join(f"{byte:02x}" for byte in uuid.UUID(self.sid).bytes[:6])


class Roster:
    """The sensors of one organization, by sid, in the order of the fleet."""

    def __init__(self, fleet: Fleet) -> None:
        self.stations = {sensor.sid: Station(fleet.oid, sensor) for sensor in fleet.sensors}

    def __iter__(self) -> Iterator[Station]:
        return iter(list(self.stations.values()))

    def matching(self, holds: Callable[[Mapping[str, Any]], bool]) -> list[Station]:
        """Return the sensors for which a compiled selector holds."""
        return [station for station in self if holds(station.fields())]


# fmt: off
FIELDS = frozenset((
    "sid", "oid", "iid", "did", "plat", "arch", "ext_plat", "enroll", "alive", "int_ip", "ext_ip", "hostname",
    "mac_addr", "isolated", "should_isolate", "kernel", "sealed", "should_seal", "is_del", "tags",
))
# fmt: on
"""What a selector may ask about."""
