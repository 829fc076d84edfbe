"""The API about the caller, organizations and their sensors."""

from __future__ import annotations

import base64
import gzip
import time
import uuid
from typing import Any

import orjson
from aiohttp import web

from pipeline.emulator.access import Access, refuse
from pipeline.emulator.fleet import Sensor
from pipeline.emulator.state import Cloud, Org

SERVICES = ("lc", "lc_wss", "edr", "logs", "artifacts", "replay", "live", "hooks", "search", "cases", "ai")
"""The hosts that an organization names; the emulator is all of them."""

UUID = "[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"


class OrgService:
    def __init__(self, cloud: Cloud, access: Access) -> None:
        self._cloud = cloud
        self._access = access

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/v1/who", self.who),
            web.get("/v1/orgs/{oid}", self.org),
            web.get("/v1/orgs/{oid}/url", self.urls),
            web.get("/v1/sensors/{oid}", self.sensors),
            web.get("/v1/online/{oid}", self.count_online),
            web.post("/v1/online/{oid}", self.online),
            web.get(f"/v1/{{sid:{UUID}}}", self.sensor),
        ]

    async def who(self, request: web.Request) -> web.Response:
        grant = self._access.bearer(request)
        permissions = {oid: sorted(held) for oid, held in grant.permissions.items()}
        if grant.key.uid is not None:
            return web.json_response({"user_perms": permissions, "ident": grant.key.name})
        held = next(iter(permissions.values()), [])
        return web.json_response({"orgs": list(permissions), "perms": held, "ident": grant.key.name})

    async def org(self, request: web.Request) -> web.Response:
        org = self._access.org(request, "org.get")
        return web.json_response(
            {
                "oid": org.oid,
                "name": org.name,
                "sensor_version": "4.33.0",
                "latest_versions": {"stable": "4.33.0"},
                "n_outputs": len(org.outputs),
                "n_installation_keys": len({sensor.iid for sensor in org.fleet.sensors}),
                "n_rules": 0,
                "sensor_quota": 2 * len(org.fleet.sensors),
            }
        )

    async def urls(self, request: web.Request) -> web.Response:
        if request.match_info["oid"] not in self._cloud.orgs:
            raise refuse(web.HTTPNotFound, "unknown organization")
        return web.json_response({"url": dict.fromkeys(SERVICES, request.host), "certs": {}, "site_name": "emulator"})

    async def sensors(self, request: web.Request) -> web.Response:
        org = self._access.org(request, "sensor.list")
        rows: Any = [_row(org, sensor) for sensor in org.fleet.sensors]
        if request.query.get("is_online_only") == "true":
            rows = [row for row, sensor in zip(rows, org.fleet.sensors, strict=True) if sensor.presence == "always"]
        if request.query.get("is_compressed") == "true":
            rows = base64.b64encode(gzip.compress(orjson.dumps(rows), 1)).decode()
        return web.json_response({"sensors": rows})

    async def sensor(self, request: web.Request) -> web.Response:
        grant = self._access.bearer(request)
        for oid in grant.permissions:
            org = self._cloud.orgs[oid]
            for sensor in org.fleet.sensors:
                if sensor.sid == request.match_info["sid"]:
                    if grant.missing(oid, ("sensor.get",)):
                        raise refuse(web.HTTPUnauthorized, "unauthorized: missing permission sensor.get")
                    online = sensor.presence == "always"
                    shown = {sensor.sid: int(time.time())} if online else {}
                    return web.json_response({"info": _row(org, sensor), "online": shown, "is_online": online})
        raise refuse(web.HTTPNotFound, "sensor not found")

    async def count_online(self, request: web.Request) -> web.Response:
        org = self._access.org(request, "sensor.list")
        return web.json_response({"count": sum(sensor.presence == "always" for sensor in org.fleet.sensors)})

    async def online(self, request: web.Request) -> web.Response:
        org = self._access.org(request, "sensor.get")
        asked = (await request.post()).getall("sids", [])
        present = {sensor.sid: sensor.presence == "always" for sensor in org.fleet.sensors}
        return web.json_response({sid: present.get(sid, False) for sid in asked if isinstance(sid, str)})


def _row(org: Org, sensor: Sensor) -> dict[str, Any]:
    alive = time.time() - (0 if sensor.presence == "always" else 86_400)
    return {
        "sid": sensor.sid,
        "oid": org.oid,
        "iid": sensor.iid,
        "did": sensor.did,
        "plat": sensor.plat,
        "arch": sensor.arch,
        "enroll": "2025-06-01 08:00:00",
        "alive": time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(alive)),
        "int_ip": sensor.int_ip,
        "ext_ip": sensor.ext_ip,
        "hostname": sensor.hostname,
        "mac_addr": ":".join(f"{byte:02x}" for byte in uuid.UUID(sensor.sid).bytes[:6]),
        "isolated": False,
        "should_isolate": False,
        "kernel": sensor.platform == "windows",
        "sealed": False,
        "should_seal": False,
        "tags": list(sensor.tags),
    }
