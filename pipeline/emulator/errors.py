"""The organization's errors: what failed lately, by component."""

from __future__ import annotations

from aiohttp import web

from pipeline.emulator.access import Access, refuse


class ErrorService:
    def __init__(self, access: Access) -> None:
        self._access = access

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/v1/errors/{oid}", self.list),
            # a component may hold a slash, escaped or not
            web.delete("/v1/errors/{oid}/{component:.+}", self.dismiss),
        ]

    async def list(self, request: web.Request) -> web.Response:
        return web.json_response({"errors": list(self._access.org(request, "org.get").errors.values())})

    async def dismiss(self, request: web.Request) -> web.Response:
        org = self._access.org(request, "org.get")
        if org.errors.pop(request.match_info["component"], None) is None:
            raise refuse(web.HTTPNotFound, "no such error")
        return web.json_response({"success": True})
