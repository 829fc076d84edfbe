"""The client of one organization: ``async with LimaCharlie() as account``."""

from __future__ import annotations

import os
from collections.abc import AsyncIterable, Awaitable, Callable, Iterable, Mapping
from functools import cached_property
from types import TracebackType
from typing import TYPE_CHECKING, Self

from pipeline.core.clock import Clock
from pipeline.core.errors import ConfigError
from pipeline.core.types import Secret
from pipeline.kit.clock import SystemClock
from pipeline.limacharlie.config import LimaCharlieConfig
from pipeline.limacharlie.credentials import discover
from pipeline.limacharlie.endpoints import resolve
from pipeline.limacharlie.paths import PATHS, PathStyle
from pipeline.limacharlie.transport import Transport

if TYPE_CHECKING:  # each noun is imported when it is first asked for: a stream needs few of them
    from pipeline.limacharlie.ai.client import Ai
    from pipeline.limacharlie.api_keys import ApiKeys
    from pipeline.limacharlie.artifact_upload import ArtifactUpload
    from pipeline.limacharlie.artifacts import Artifacts
    from pipeline.limacharlie.extensions import Extensions
    from pipeline.limacharlie.feed import Feed, Subscription
    from pipeline.limacharlie.fleet import Item, Outcome, Result
    from pipeline.limacharlie.history import History
    from pipeline.limacharlie.hive import Hive
    from pipeline.limacharlie.hive_batch import HiveBatch
    from pipeline.limacharlie.ingestion_keys import IngestionKeys
    from pipeline.limacharlie.installation_keys import InstallationKeys
    from pipeline.limacharlie.legacy_rules import LegacyFalsePositives, LegacyRules
    from pipeline.limacharlie.org_errors import OrgErrors
    from pipeline.limacharlie.organization import Organization
    from pipeline.limacharlie.outputs import Outputs
    from pipeline.limacharlie.reliable_tasking import ReliableTasking
    from pipeline.limacharlie.replay import Replay
    from pipeline.limacharlie.rules import Rules
    from pipeline.limacharlie.search import Search
    from pipeline.limacharlie.sensors import Sensors
    from pipeline.limacharlie.tags import Tags
    from pipeline.limacharlie.tasks import Tasks
    from pipeline.limacharlie.token import Token
    from pipeline.limacharlie.users import Users


class LimaCharlie:
    """Credentials, token and connections of one organization, and what can be asked of it, noun by noun.

    Without a config, credentials come from where LimaCharlie's own tools keep theirs. ``inv_id`` tracks an operation: all commands
    that this client sends carry it as investigation id. ``paths`` chooses between the paths of LimaCharlie's SDKs and those of its
    integration guide, where they differ.

    Making one does no network I/O. Raises `AuthenticationError` where no key is found and `ConfigError` where what is found is
    wrong. Belongs to one event loop.
    """

    def __init__(
        self,
        config: LimaCharlieConfig | None = None,
        *,
        inv_id: str | None = None,
        paths: PathStyle = "sdk",
        environ: Mapping[str, str] | None = None,
        clock: Clock | None = None,
    ) -> None:
        environ = os.environ if environ is None else environ
        self.config = config or LimaCharlieConfig()
        self.inv_id = inv_id
        self.endpoints = resolve(self.config, environ)
        self.credentials = discover(self.config, environ)
        self.transport = Transport(self.config, self.endpoints, self.credentials, clock or SystemClock())
        self._paths = PATHS[paths]
        ingestion_key = environ.get("LC_LOGS_TOKEN")
        self._ingestion_key = Secret(ingestion_key) if ingestion_key else None

    @property
    def oid(self) -> str:
        """The organization's id. Raises `ConfigError` where none is known."""
        oid = self.credentials.oid
        if oid is None:
            raise ConfigError("The organization is not known.", where="limacharlie.oid", fix="Set it, or LC_OID.")
        return oid

    @cached_property
    def organization(self) -> Organization:
        from pipeline.limacharlie.organization import Organization

        return Organization(self.transport, self.oid)

    @cached_property
    def ai(self) -> Ai:
        """AI sessions."""
        from pipeline.limacharlie.ai.client import Ai

        return Ai(self.transport, self.organization, self.oid)

    @cached_property
    def outputs(self) -> Outputs:
        from pipeline.limacharlie.outputs import Outputs

        return Outputs(self.transport, self.oid)

    @cached_property
    def errors(self) -> OrgErrors:
        from pipeline.limacharlie.org_errors import OrgErrors

        return OrgErrors(self.transport, self.oid)

    @cached_property
    def users(self) -> Users:
        from pipeline.limacharlie.users import Users

        return Users(self.transport, self.oid)

    @cached_property
    def api_keys(self) -> ApiKeys:
        from pipeline.limacharlie.api_keys import ApiKeys

        return ApiKeys(self.transport, self.oid)

    @cached_property
    def installation_keys(self) -> InstallationKeys:
        from pipeline.limacharlie.installation_keys import InstallationKeys

        return InstallationKeys(self.transport, self.oid)

    @cached_property
    def ingestion_keys(self) -> IngestionKeys:
        from pipeline.limacharlie.ingestion_keys import IngestionKeys

        return IngestionKeys(self.transport, self.oid)

    @cached_property
    def sensors(self) -> Sensors:
        from pipeline.limacharlie.sensors import Sensors

        return Sensors(self.transport, self.oid, self._paths)

    @cached_property
    def tags(self) -> Tags:
        from pipeline.limacharlie.tags import Tags

        return Tags(self.transport, self.oid, self._paths)

    @cached_property
    def tasks(self) -> Tasks:
        from pipeline.limacharlie.tasks import Tasks

        return Tasks(self.transport, self.oid, self._paths, self.sensors, self.inv_id)

    @cached_property
    def history(self) -> History:
        from pipeline.limacharlie.history import History

        return History(self.transport, self.oid)

    @cached_property
    def rules(self) -> Rules:
        from pipeline.limacharlie.rules import Rules

        return Rules(self.transport, self.oid)

    @cached_property
    def legacy_rules(self) -> LegacyRules:
        from pipeline.limacharlie.legacy_rules import LegacyRules

        return LegacyRules(self.transport, self.oid)

    @cached_property
    def legacy_false_positives(self) -> LegacyFalsePositives:
        from pipeline.limacharlie.legacy_rules import LegacyFalsePositives

        return LegacyFalsePositives(self.transport, self.oid)

    @cached_property
    def artifacts(self) -> Artifacts:
        from pipeline.limacharlie.artifacts import Artifacts

        return Artifacts(self.transport, self.oid, self._paths)

    @cached_property
    def artifact_upload(self) -> ArtifactUpload:
        from pipeline.limacharlie.artifact_upload import ArtifactUpload

        return ArtifactUpload(self.transport, self.oid, self.organization, self._paths, self._ingestion_key)

    @cached_property
    def extensions(self) -> Extensions:
        from pipeline.limacharlie.extensions import Extensions

        return Extensions(self.transport, self.oid)

    @cached_property
    def reliable_tasking(self) -> ReliableTasking:
        from pipeline.limacharlie.reliable_tasking import ReliableTasking

        return ReliableTasking(self.extensions, self.inv_id)

    @cached_property
    def replay(self) -> Replay:
        from pipeline.limacharlie.replay import Replay

        return Replay(self.transport, self.oid, self.organization)

    @cached_property
    def search(self) -> Search:
        from pipeline.limacharlie.search import Search

        return Search(self.transport, self.oid, self.organization)

    def hive(self, name: str) -> Hive:
        """The hive of this name, like ``secret``, ``lookup``, ``dr-general``."""
        from pipeline.limacharlie.hive import Hive

        return Hive(self.transport, name, self.oid)

    def hive_batch(self) -> HiveBatch:
        """Collect operations on hives, to send them in one request."""
        from pipeline.limacharlie.hive_batch import HiveBatch

        return HiveBatch(self.transport, self.oid)

    async def each(
        self,
        items: Iterable[Item] | AsyncIterable[Item],
        call: Callable[[Item], Awaitable[Result]],
        *,
        limit: int = 8,
    ) -> list[Outcome[Item, Result]]:
        """Do the same for each of many, at most ``limit`` at once; see `fleet.each`."""
        from pipeline.limacharlie import fleet

        return await fleet.each(items, call, limit=limit)

    def subscribe(self, subscription: Subscription, *, refusal: tuple[Token, str] | None = None) -> Feed:
        """Prepare a stream connection; see `Feed`."""
        from pipeline.limacharlie.feed_https import HttpsFeed
        from pipeline.limacharlie.feed_websocket import WebSocketFeed

        url = self.endpoints.stream(subscription.host, self.oid)
        if subscription.transport == "websocket":
            return WebSocketFeed(self.transport, self.endpoints.socket(), subscription, refusal=refusal)
        return HttpsFeed(self.transport, url, subscription, refusal=refusal)

    async def close(self) -> None:
        """Release the connections. Safe to call twice."""
        await self.transport.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
