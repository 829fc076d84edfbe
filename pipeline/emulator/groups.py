"""Groups: users and organizations with rights in common."""

from __future__ import annotations

import uuid
from typing import Any

from aiohttp import web

from pipeline.emulator.access import Access, refuse
from pipeline.emulator.forms import answer, form_of


class GroupService:
    """They are kept and shown; the rights that they would give are not given."""

    def __init__(self, access: Access) -> None:
        self._access = access
        self._groups: dict[str, dict[str, Any]] = {}

    def routes(self) -> list[web.RouteDef]:
        group = "/v1/groups/{gid}"
        return [
            web.get("/v1/groups", self.groups),
            web.post("/v1/groups", self.add_group),
            web.get(group, self.group),
            web.delete(group, self.delete_group),
            *(
                route
                for kind in ("users", "owners", "orgs")
                for route in (
                    web.post(f"{group}/{{kind:{kind}}}", self.join_group),
                    web.delete(f"{group}/{{kind:{kind}}}", self.leave_group),
                )
            ),
            web.post(f"{group}/permissions", self.set_group_permissions),
            web.get(f"{group}/logs", self.group_logs),
        ]

    async def groups(self, request: web.Request) -> web.Response:
        self._access.bearer(request)
        return answer({"groups": [{"gid": gid, "name": group["name"]} for gid, group in self._groups.items()]})

    async def add_group(self, request: web.Request) -> web.Response:
        grant = self._access.bearer(request)
        name, gid = (await form_of(request)).need("name"), str(uuid.uuid4())
        self._groups[gid] = {
            "group_id": gid,
            "name": name,
            "owners": [grant.key.name],
            "members": [],
            "orgs": [],
            "perms": [],
        }
        return answer({"data": {"gid": gid}, "success": True})

    async def group(self, request: web.Request) -> web.Response:
        return answer({"group": self._group(request)})

    async def delete_group(self, request: web.Request) -> web.Response:
        del self._groups[self._group(request)["group_id"]]
        return answer({"success": True})

    async def join_group(self, request: web.Request) -> web.Response:
        members, one = await self._membership(request)
        if one not in members:
            members.append(one)
        return answer({"success": True})

    async def leave_group(self, request: web.Request) -> web.Response:
        members, one = await self._membership(request)
        if one not in members:
            raise refuse(web.HTTPNotFound, "not in the group")
        members.remove(one)
        return answer({"success": True})

    async def set_group_permissions(self, request: web.Request) -> web.Response:
        self._group(request)["perms"] = (await form_of(request)).names("perm")
        return answer({"success": True})

    async def group_logs(self, request: web.Request) -> web.Response:
        self._group(request)
        return answer({"logs": []})

    async def _membership(self, request: web.Request) -> tuple[list[Any], Any]:
        group, kind = self._group(request), request.match_info["kind"]
        form = await form_of(request)
        if kind != "orgs":
            return group["members" if kind == "users" else "owners"], form.need("member_email")
        org = self._access.named(request, form.need("oid"))
        return group["orgs"], {"org_id": org.oid, "org_name": org.name}

    def _group(self, request: web.Request) -> dict[str, Any]:
        self._access.bearer(request)
        if request.match_info["gid"] not in self._groups:
            raise refuse(web.HTTPNotFound, "unknown group")
        found: dict[str, Any] = self._groups[request.match_info["gid"]]
        return found
