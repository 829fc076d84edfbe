"""The API about sensors: which there are, what they are like, and what they should do."""

from __future__ import annotations

import base64
from collections import deque
from typing import Any

import orjson
from aiohttp import web

from pipeline.emulator.access import Access, refuse
from pipeline.emulator.agents import Agents
from pipeline.emulator.commandline import TaskError
from pipeline.emulator.comparisons import SelectorError
from pipeline.emulator.forms import Form, answer, form_of, packed, wrong
from pipeline.emulator.roster import Roster, Station
from pipeline.emulator.selector import compile_selector

UUID = "[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"

PAGE = 1000
"""Sensors in one answer at most."""

REMEMBERED = 1000
"""Idempotency keys that are remembered, the newest."""


def select(roster: Roster, selector: str) -> list[Station]:
    """Return the sensors that a selector takes; raises the API's 400."""
    try:
        return roster.matching(compile_selector(selector))
    except SelectorError as error:
        raise wrong(str(error)) from None


class SensorService:
    def __init__(self, access: Access, agents: Agents) -> None:
        self._access = access
        self._agents = agents
        self._done: deque[str] = deque(maxlen=REMEMBERED)
        """Idempotency keys of tasks."""

    def routes(self) -> list[web.RouteDef]:
        sid = f"/v1/{{sid:{UUID}}}"
        # as a guide has them; no client calls these
        alias = f"/v1/sensor/{{oid:{UUID}}}/{{sid:{UUID}}}"
        return [
            web.get("/v1/sensors/{oid}", self.list),
            web.get("/v1/online/{oid}", self.count_online),
            web.post("/v1/online/{oid}", self.online),
            web.get("/v1/hostnames/{oid}", self.hostnames),
            web.get("/v1/tags/{oid}", self.org_tags),
            web.get("/v1/tags/{oid}/{tag}", self.tagged),
            web.post("/v1/export/{oid}/sensors", self.export),
            *(
                route
                for path in (sid, alias)
                for route in (
                    web.get(path, self.get),
                    web.post(path, self.task),
                    web.delete(path, self.delete),
                    web.get(f"{path}/tags", self.tags),
                    web.post(f"{path}/isolation", self.isolate),
                    web.delete(f"{path}/isolation", self.rejoin),
                    web.post(f"{path}/seal", self.seal),
                    web.delete(f"{path}/seal", self.unseal),
                )
            ),
            *(
                route
                for path in (f"{sid}/tags", f"{alias}/tags", f"{alias}/tag")
                for route in (web.post(path, self.add_tags), web.delete(path, self.remove_tags))
            ),
            web.get(f"{alias}/tag", self.tags),
            web.post(f"{alias}/task", self.task),
        ]

    async def list(self, request: web.Request) -> web.Response:
        org = self._access.org(request, "sensor.list")
        form = await form_of(request)
        found = [station for station in select(org.roster, form.text("selector")) if _wanted(station, form)]
        start = _position(form.text("continuation_token"))
        end = start + min(form.number("limit", 0) or PAGE, PAGE)
        rows: Any = [station.row() for station in found[start:end]]
        body: dict[str, Any] = {"sensors": packed(orjson.dumps(rows)) if form.flag("is_compressed") else rows}
        # an empty token would send an old client round for ever
        if end < len(found):
            body["continuation_token"] = base64.urlsafe_b64encode(b"%d" % end).decode()
        return answer(body)

    async def get(self, request: web.Request) -> web.Response:
        _, station = self._access.station(request, "sensor.get")
        return answer({"info": station.row(), "online": station.shown_online(), "is_online": station.online})

    async def task(self, request: web.Request) -> web.Response:
        """One that is offline takes the task without a word, and never gets it. A request that is repeated is done once."""
        org, station = self._access.station(request, "sensor.task")
        form = await form_of(request)
        texts = form.all("tasks") or form.all("task")
        if not texts:
            raise wrong("missing parameter tasks")
        try:
            tasks = [self._agents.check(station, text) for text in texts]
        except TaskError as error:
            raise wrong(str(error)) from None
        key = request.headers.get("x-idempotent-key", "")
        if key in self._done:
            return answer({})
        if key:
            self._done.append(key)
        for task in tasks:
            self._agents.task(org, station, task, form.text("investigation_id"))
        return answer({})

    async def delete(self, request: web.Request) -> web.Response:
        org, station = self._access.station(request, "sensor.del")
        self._agents.set_online(org, station, online=False)
        del org.roster.stations[station.sid]
        return answer({})

    async def tags(self, request: web.Request) -> web.Response:
        _, station = self._access.station(request, "sensor.get")
        rows = {name: [station.sid, name, tag.by, int(tag.added)] for name, tag in station.tags.items()}
        return answer({"tags": {station.sid: rows}})

    async def add_tags(self, request: web.Request) -> web.Response:
        _, station = self._access.station(request, "sensor.tag")
        form = await form_of(request)
        names = _tags(form)
        for name in names:
            station.add_tag(name, self._access.bearer(request).key.name, form.number("ttl", 0) or None)
        return answer({})

    async def remove_tags(self, request: web.Request) -> web.Response:
        _, station = self._access.station(request, "sensor.tag")
        for name in _tags(await form_of(request)):
            station.remove_tag(name)
        return answer({})

    async def isolate(self, request: web.Request) -> web.Response:
        org, station = self._access.station(request, "sensor.task")
        self._agents.isolate(org, station, isolated=True)
        return answer({})

    async def rejoin(self, request: web.Request) -> web.Response:
        org, station = self._access.station(request, "sensor.task")
        self._agents.isolate(org, station, isolated=False)
        return answer({})

    async def seal(self, request: web.Request) -> web.Response:
        _, station = self._access.station(request, "sensor.task")
        station.should_seal = True
        return answer({})

    async def unseal(self, request: web.Request) -> web.Response:
        _, station = self._access.station(request, "sensor.task")
        station.should_seal = False
        return answer({})

    async def count_online(self, request: web.Request) -> web.Response:
        org = self._access.org(request, "sensor.list")
        return answer({"count": sum(station.online for station in org.roster)})

    async def online(self, request: web.Request) -> web.Response:
        """Whether the sensors named are online; without names, all of them."""
        org = self._access.org(request, "sensor.get")
        asked = (await form_of(request)).names("sids") or list(org.roster.stations)
        present = {station.sid for station in org.roster if station.online}
        return answer({sid: sid in present for sid in asked})

    async def hostnames(self, request: web.Request) -> web.Response:
        org = self._access.org(request, "sensor.list")
        prefix = (await form_of(request)).need("hostname").lower()
        found = [(each.sid, each.sensor.hostname) for each in org.roster if each.sensor.hostname.startswith(prefix)]
        return answer({"sid": [{"sid": sid, "hostname": name} for sid, name in found]})

    async def org_tags(self, request: web.Request) -> web.Response:
        org = self._access.org(request, "sensor.list")
        return answer({"tags": sorted({tag for station in org.roster for tag in station.tags})})

    async def tagged(self, request: web.Request) -> web.Response:
        org = self._access.org(request, "sensor.list")
        tag = request.match_info["tag"]
        return answer({station.sid: list(station.tags) for station in org.roster if tag in station.tags})

    async def export(self, request: web.Request) -> web.Response:
        org = self._access.org(request, "sensor.list")
        return answer({"sensors": [station.row() for station in org.roster]})


def _wanted(station: Station, form: Form) -> bool:
    sensor = station.sensor
    address, prefix = form.text("with_ip"), form.text("with_hostname_prefix").lower()
    return (
        (not address or address in (sensor.int_ip, sensor.ext_ip))
        and sensor.hostname.startswith(prefix)
        and (station.online or not form.flag("is_online_only"))
    )


def _position(token: str) -> int:
    try:
        return int(base64.urlsafe_b64decode(token)) if token else 0
    except ValueError:
        raise refuse(web.HTTPBadRequest, "invalid continuation_token") from None


def _tags(form: Form) -> list[str]:
    names = [*form.names("tags"), *form.names("tag")]
    if not names:
        raise wrong("missing parameter tags")
    return names
