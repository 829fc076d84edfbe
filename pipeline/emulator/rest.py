"""The services of the REST API, put together."""

from __future__ import annotations

from typing import Protocol

from aiohttp import web

from pipeline.emulator.access import Access
from pipeline.emulator.accounts import AccountService
from pipeline.emulator.agents import Agents
from pipeline.emulator.artifacts import ArtifactService
from pipeline.emulator.extensions import ExtensionService
from pipeline.emulator.groups import GroupService
from pipeline.emulator.hive_api import HiveService
from pipeline.emulator.hives import Hives
from pipeline.emulator.hooks import HookService
from pipeline.emulator.insight import InsightService
from pipeline.emulator.live import Live
from pipeline.emulator.office import OfficeService
from pipeline.emulator.orgs import OrgService
from pipeline.emulator.payload_store import PayloadService
from pipeline.emulator.reliable import ReliableTasking
from pipeline.emulator.replay import Replay
from pipeline.emulator.rule_services import rule_extensions
from pipeline.emulator.rules_api import RuleService
from pipeline.emulator.search import SearchService
from pipeline.emulator.sensors import SensorService
from pipeline.emulator.state import Cloud


class Service(Protocol):
    def routes(self) -> list[web.RouteDef]: ...


class Rest:
    """All that knobs turn has a name; `services` is all that is served."""

    def __init__(self, cloud: Cloud, access: Access, live: Live) -> None:
        hives = Hives()
        accounts = AccountService(cloud, access)
        self.agents = Agents(cloud, live)
        self.reliable = ReliableTasking(self.agents, live)
        self.extensions = ExtensionService(access, [self.reliable, *rule_extensions()])
        self.searches = SearchService(cloud, access, live.history)
        self.artifacts = ArtifactService(cloud, access, accounts.may_ingest)
        self.hives = HiveService(access, hives)
        self.replay = Replay(access, hives, live.history)
        self.services: tuple[Service, ...] = (
            OrgService(cloud, access, hives),
            SensorService(access, self.agents),
            self.extensions,
            self.hives,
            RuleService(access, self.hives),
            self.artifacts,
            InsightService(access, live.history),
            self.searches,
            accounts,
            GroupService(access),
            OfficeService(access, live.history),
            PayloadService(access),
            HookService(cloud, live, accounts.may_ingest),
        )
