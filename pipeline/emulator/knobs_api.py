"""Knobs on sensors, tasks and the services behind the API."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from pipeline.emulator.panel import Knob, Panel, Result, Seconds

Count = Annotated[int, Field(ge=0)]


class Presence(Knob):
    """A sensor comes online, which it reports by CONNECTED, or goes offline."""

    sensor: str | None = None
    """Its sid or host name; all of the organization without."""
    oid: str | None = None
    """Organization; all without."""
    online: bool

    def turn(self, panel: Panel) -> Result:
        changed = []
        for org in panel.hub.cloud.find_orgs(self.oid):
            for station in org.roster:
                named = self.sensor in (None, station.sid, station.sensor.hostname)
                if named and station.online != self.online:
                    panel.rest.agents.set_online(org, station, online=self.online)
                    changed.append(station.sid)
        if self.sensor is not None and not changed:
            orgs = panel.hub.cloud.find_orgs(self.oid)
            if not any(self.sensor in (each.sid, each.sensor.hostname) for org in orgs for each in org.roster):
                raise LookupError(f"unknown sensor {self.sensor}")
        return {"changed": changed}


class Tasks(Knob):
    """How sensors take tasks; what is not given stays as it is."""

    delay: Seconds | None = None
    """Between a sensor's confirmation and its answer; 0.05 by default."""
    aliases: bool | None = None
    """Take os_info and kill, which no reference has; they are taken by default."""
    lose_confirmations: Count | None = None
    """So many of the next tasks are run without the cloud hearing of it, so that Reliable Tasking sends them again."""

    def turn(self, panel: Panel) -> Result:
        agents = panel.rest.agents
        agents.delay = agents.delay if self.delay is None else self.delay
        agents.aliases = agents.aliases if self.aliases is None else self.aliases
        agents.lose = agents.lose if self.lose_confirmations is None else self.lose_confirmations
        return {}


class ReliableTasking(Knob):
    """Which of its documented versions Reliable Tasking is; what is not given stays as it is."""

    one_target: bool | None = None
    """A task must name exactly one of sid, tag and selector; by default none means all sensors."""
    bare: bool | None = None
    """Extensions answer without the envelope."""

    def turn(self, panel: Panel) -> Result:
        panel.rest.reliable.one_target = panel.rest.reliable.one_target if self.one_target is None else self.one_target
        panel.rest.extensions.bare = panel.rest.extensions.bare if self.bare is None else self.bare
        return {}


class Searches(Knob):
    """How searches go; what is not given stays as it is."""

    page: Annotated[int, Field(ge=1, le=10_000)] | None = None
    """Rows in a page; 200 by default."""
    polls: Count | None = None
    """Answers without a result before each page; 1 by default."""
    concurrent: Annotated[int, Field(ge=1)] | None = None
    """Searches at once; 10 by default."""

    def turn(self, panel: Panel) -> Result:
        searches = panel.rest.searches
        searches.page = searches.page if self.page is None else self.page
        searches.polls = searches.polls if self.polls is None else self.polls
        searches.concurrent = searches.concurrent if self.concurrent is None else self.concurrent
        return {}


class Artifacts(Knob):
    """How artifacts are given back; what is not given stays as it is."""

    inline: Count | None = None
    """Bytes up to which an original comes inside the answer; 1 MiB by default."""
    export_delay: Seconds | None = None
    """How long an export is not there yet; 1 s by default."""

    def turn(self, panel: Panel) -> Result:
        artifacts = panel.rest.artifacts
        artifacts.inline = artifacts.inline if self.inline is None else self.inline
        artifacts.export_seconds = artifacts.export_seconds if self.export_delay is None else self.export_delay
        return {}


class HiveLimit(Knob):
    """The size in bytes from which a hive can only be listed in pages."""

    size: Count = 16 << 20

    def turn(self, panel: Panel) -> Result:
        panel.rest.hives.whole = self.size
        return {}
