"""The API about the caller and organizations."""

from __future__ import annotations

from aiohttp import web

from pipeline.emulator.access import Access, refuse
from pipeline.emulator.hives import Hives, rules_of
from pipeline.emulator.state import Cloud

SERVICES = ("lc", "lc_wss", "edr", "logs", "artifacts", "replay", "live", "hooks", "search", "cases", "ai")
"""The hosts that an organization names; the emulator is all of them."""


class OrgService:
    def __init__(self, cloud: Cloud, access: Access, hives: Hives) -> None:
        self._cloud = cloud
        self._access = access
        self._hives = hives

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/v1/who", self.who),
            web.get("/v1/orgs/{oid}", self.org),
            web.get("/v1/orgs/{oid}/url", self.urls),
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
                "n_rules": rules_of(self._hives, org.oid),
                "sensor_quota": 2 * len(org.fleet.sensors),
            }
        )

    async def urls(self, request: web.Request) -> web.Response:
        if request.match_info["oid"] not in self._cloud.orgs:
            raise refuse(web.HTTPNotFound, "unknown organization")
        return web.json_response({"url": dict.fromkeys(SERVICES, request.host), "certs": {}, "site_name": "emulator"})
