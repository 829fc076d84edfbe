"""The outputs API. Whoever listens here is told of each change; the dialer does."""

from __future__ import annotations

from aiohttp import web

from pipeline.emulator.access import Access, refuse
from pipeline.emulator.dialer import Dialer
from pipeline.emulator.selection import Selection, UnsupportedError
from pipeline.emulator.state import Output

# fmt: off
MODULES = frozenset((
    "s3", "gcs", "pubsub", "bigquery", "scp", "sftp", "slack", "syslog", "webhook", "webhook_bulk", "smtp", "humio",
    "kafka", "azure_storage_blob", "azure_event_hub", "elastic", "tines", "torq", "datadog", "opensearch", "websocket",
    "telegram", "ms_teams", "live_stream",
))
# fmt: on
STREAMS = frozenset({"event", "detect", "audit", "deployment", "artifact", "tailored", "billing"})

# fmt: off
FIELDS = (
    "tag", "tag_black_list", "cat", "cat_white_list", "cat_black_list", "event_white_list", "event_black_list",
    "rule_tag_white_list", "rule_tag_black_list", "sid", "inv_id", "sample_rate", "is_flat", "is_no_routing",
    "is_prefix_data", "is_payload_as_string", "is_json_list", "custom_transform", "is_delete_on_failure", "dest_host",
    "username", "password", "secret_key", "is_tls", "is_strict_tls", "is_no_header", "structured_data",
    "auth_header_name", "auth_header_value", "dir",
)
# fmt: on
"""Fields that a listing always shows, ``""`` when unset; any other one is kept and shown as given."""


class OutputService:
    def __init__(self, access: Access, dialer: Dialer) -> None:
        self._access = access
        self._dialer = dialer

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/v1/outputs/{oid}", self.list),
            web.post("/v1/outputs/{oid}", self.set),
            web.delete("/v1/outputs/{oid}", self.delete),
        ]

    async def list(self, request: web.Request) -> web.Response:
        org = self._access.org(request, "output.list")
        return web.json_response({org.oid: {name: output.shown() for name, output in org.outputs.items()}})

    async def set(self, request: web.Request) -> web.Response:
        """Create or replace; either way the output is enabled again."""
        org = self._access.org(request, "output.set")
        form = {key: value for key, value in (await request.post()).items() if isinstance(value, str)}
        name, module, stream = (form.pop(key, "") for key in ("name", "module", "type"))
        if not name or module not in MODULES or stream not in STREAMS:
            raise refuse(web.HTTPBadRequest, "an output needs a name, and a known module and type")
        try:
            Selection(form)
        except UnsupportedError as error:
            raise refuse(web.HTTPBadRequest, str(error)) from None
        if module == "syslog" and not form.get("dest_host"):
            raise refuse(web.HTTPBadRequest, "missing dest_host")
        output = Output(name=name, module=module, stream=stream, fields={**dict.fromkeys(FIELDS, ""), **form})
        org.outputs[name] = output
        self._dialer.update(org, name)
        return web.json_response(output.shown())

    async def delete(self, request: web.Request) -> web.Response:
        org = self._access.org(request, "output.del")
        form = await request.post()
        name = str(form.get("name") or request.query.get("name", ""))
        if org.outputs.pop(name, None) is None:
            raise refuse(web.HTTPNotFound, "output not found")
        self._dialer.update(org, name)
        return web.json_response({"success": True})
