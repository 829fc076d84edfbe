"""The older APIs of detection and false positive rules, which the hives replaced. They work on the same records."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from pipeline.emulator.access import Access, refuse
from pipeline.emulator.forms import Form, answer, form_of
from pipeline.emulator.hive_api import HiveService, failed
from pipeline.emulator.hives import Hive, HiveError, Record


class RuleService:
    def __init__(self, access: Access, api: HiveService) -> None:
        self._access = access
        self._api = api

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/v1/rules/{oid}", self.rules),
            web.post("/v1/rules/{oid}", self.set_rule),
            web.delete("/v1/rules/{oid}", self.delete_rule),
            web.get("/v1/fp/{oid}", self.false_positives),
            web.post("/v1/fp/{oid}", self.set_false_positive),
            web.delete("/v1/fp/{oid}", self.delete_false_positive),
        ]

    async def rules(self, request: web.Request) -> web.Response:
        namespace = request.query.get("namespace") or "general"
        hive = self._api.hive(request, 0, f"dr-{namespace}")
        return answer({name: _rule(hive, name, record, namespace) for name, record in hive})

    async def set_rule(self, request: web.Request) -> web.Response:
        form = await form_of(request)
        hive = self._api.hive(request, 1, f"dr-{form.text('namespace') or 'general'}")
        data = {"detect": form.object("detection"), "respond": form.json("response")}
        expiry = form.number("expire_on", 0)
        usr_mtd = {"enabled": form.flag("is_enabled", default=True), "expiry": expiry}
        return self._replace(request, hive, form, data, usr_mtd)

    async def delete_rule(self, request: web.Request) -> web.Response:
        form = await form_of(request)
        return self._remove(self._api.hive(request, 2, f"dr-{form.text('namespace') or 'general'}"), form)

    async def false_positives(self, request: web.Request) -> web.Response:
        hive = self._api.hive(request, 0, "fp")
        rows = {name: {"data": record.data["detection"], "oid": hive.oid, "name": name} for name, record in hive}
        return answer(rows)

    async def set_false_positive(self, request: web.Request) -> web.Response:
        form = await form_of(request)
        hive = self._api.hive(request, 1, "fp")
        return self._replace(request, hive, form, {"detection": form.object("rule")}, {"enabled": True})

    async def delete_false_positive(self, request: web.Request) -> web.Response:
        return self._remove(self._api.hive(request, 2, "fp"), await form_of(request))

    def _replace(
        self, request: web.Request, hive: Hive, form: Form, data: dict[str, Any], usr_mtd: dict[str, Any]
    ) -> web.Response:
        name = form.need("name")
        if hive.find(name) is not None and not form.flag("is_replace"):
            raise refuse(web.HTTPConflict, f"rule {name[:80]} exists")
        try:
            hive.set(name, self._access.bearer(request).key.name, data, usr_mtd)
        except HiveError as error:
            raise failed(error) from None
        return answer({"success": True})

    @staticmethod
    def _remove(hive: Hive, form: Form) -> web.Response:
        try:
            hive.delete(form.need("name"))
        except HiveError as error:
            raise failed(error) from None
        return answer({"success": True})


def _rule(hive: Hive, name: str, record: Record, namespace: str) -> dict[str, Any]:
    return {
        "name": name,
        "oid": hive.oid,
        "namespace": namespace,
        "detect": record.data["detect"],
        "respond": record.data["respond"],
        "is_enabled": record.enabled,
        "author": record.author,
        "last_mod": record.modified // 1000,
    }
