"""Extensions: which there are, who is subscribed, and requests to them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any, Protocol

from aiohttp import web

from pipeline.emulator.access import Access, refuse
from pipeline.emulator.forms import answer, form_of, wrong
from pipeline.emulator.state import Org

SUBSCRIBED = ("ext-reliable-tasking",)
"""What every organization has from the start."""


class ActionError(Exception):
    """An extension refuses a request; the text is what the caller is told."""


class Extension(Protocol):
    name: str
    label: str
    actions: dict[str, dict[str, dict[str, Any]]]
    """Parameters by action, as the schema shows them."""

    def request(self, org: Org, action: str, data: dict[str, Any]) -> Any:
        """Do it and return the answer's data; raises `ActionError`."""
        ...


class ExtensionService:
    """``bare`` answers without the envelope, as the documentation shows them."""

    def __init__(self, access: Access, extensions: Sequence[Extension]) -> None:
        self.bare = False
        self._access = access
        self._extensions = {extension.name: extension for extension in extensions}
        self._subscribed: dict[str, set[str]] = defaultdict(lambda: {*SUBSCRIBED} & {*self._extensions})

    def routes(self) -> list[web.RouteDef]:
        subscription = "/v1/orgs/{oid}/subscription/extension/{name}"
        return [
            web.post("/v1/extension/request/{name}", self.request),
            web.get("/v1/extension/schema/{name}", self.schema),
            web.get("/v1/extension/definition", self.definitions),
            web.get("/v1/extension/definition/{name}", self.definition),
            web.get("/v1/orgs/{oid}/subscriptions", self.subscriptions),
            web.post(subscription, self.subscribe),
            web.patch(subscription, self.rekey),
            web.delete(subscription, self.unsubscribe),
            web.get("/v1/orgs/{oid}/resources", self.resources),
            web.post("/v1/service/{oid}/{name}", self.service),
            web.get("/v1/service/{oid}", self.services),
        ]

    async def request(self, request: web.Request) -> web.Response:
        self._access.bearer(request)
        form = await form_of(request)
        org = self._access.named(request, form.need("oid"), "extension.request")
        extension = self._find(request)
        if extension.name not in self._subscribed[org.oid]:
            raise refuse(web.HTTPForbidden, f"organization is not subscribed to extension {extension.name}")
        data = _ask(extension, org, form.need("action"), form.object("data"))
        if self.bare:
            return answer(data)
        return answer({"error": "", "version": 1, "data": data, "continuations": None, "metrics": None})

    async def service(self, request: web.Request) -> web.Response:
        """The older way to the same: services were named like the extensions that replaced them, without ``ext-``."""
        org = self._access.org(request, "extension.request")
        extension = self._extensions.get(f"ext-{request.match_info['name']}")
        if extension is None:
            raise refuse(web.HTTPNotFound, "unknown service")
        data = (await form_of(request)).base64_object("request_data")
        return answer(_ask(extension, org, str(data.pop("action", "")), data))

    async def services(self, request: web.Request) -> web.Response:
        self._access.org(request)
        return answer({"replicants": [name.removeprefix("ext-") for name in self._extensions]})

    async def schema(self, request: web.Request) -> web.Response:
        self._access.bearer(request)
        form = await form_of(request)
        self._access.named(request, form.need("oid"))
        extension = self._find(request)
        actions = {
            name: {"short_description": name, "parameters": {"fields": fields, "requirements": None}}
            for name, fields in extension.actions.items()
        }
        return answer({"config_schema": {"fields": {}, "requirements": None}, "request_schema": actions, "version": 1})

    async def definitions(self, request: web.Request) -> web.Response:
        self._access.bearer(request)
        return answer({"definitions": [_definition(extension) for extension in self._extensions.values()]})

    async def definition(self, request: web.Request) -> web.Response:
        self._access.bearer(request)
        return answer(_definition(self._find(request)))

    async def subscriptions(self, request: web.Request) -> web.Response:
        org = self._access.org(request, "org.get")
        return answer({name: {"name": name, "oid": org.oid} for name in sorted(self._subscribed[org.oid])})

    async def resources(self, request: web.Request) -> web.Response:
        org = self._access.org(request, "org.get")
        return answer({"resources": {"extension": sorted(self._subscribed[org.oid])}})

    async def subscribe(self, request: web.Request) -> web.Response:
        org = self._access.org(request, "org.conf.set")
        self._subscribed[org.oid].add(self._find(request).name)
        return answer({"success": True})

    async def rekey(self, request: web.Request) -> web.Response:
        org = self._access.org(request, "org.conf.set")
        if self._find(request).name not in self._subscribed[org.oid]:
            raise wrong("not subscribed")
        return answer({"success": True})

    async def unsubscribe(self, request: web.Request) -> web.Response:
        org = self._access.org(request, "org.conf.set")
        self._subscribed[org.oid].discard(self._find(request).name)
        return answer({"success": True})

    def _find(self, request: web.Request) -> Extension:
        found = self._extensions.get(request.match_info["name"])
        if found is None:
            raise refuse(web.HTTPNotFound, "unknown extension")
        return found


def _ask(extension: Extension, org: Org, action: str, data: dict[str, Any]) -> Any:
    if action not in extension.actions:
        raise wrong(f"unknown action: {action[:80]}")
    try:
        return extension.request(org, action, data)
    except ActionError as error:
        raise wrong(str(error)) from None


def _definition(extension: Extension) -> dict[str, Any]:
    return {"name": extension.name, "label": extension.label, "is_public": True, "required_permissions": []}
