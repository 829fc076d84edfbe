"""The client of one organization: ``async with LimaCharlie(config) as account``."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cached_property
from types import TracebackType
from typing import Self

from pipeline.core.clock import Clock
from pipeline.core.errors import ConfigError
from pipeline.kit.clock import SystemClock
from pipeline.limacharlie.config import LimaCharlieConfig
from pipeline.limacharlie.credentials import discover
from pipeline.limacharlie.endpoints import resolve
from pipeline.limacharlie.feed import Feed, Subscription
from pipeline.limacharlie.org_errors import OrgErrors
from pipeline.limacharlie.organization import Organization
from pipeline.limacharlie.outputs import Outputs
from pipeline.limacharlie.token import Token
from pipeline.limacharlie.transport import Transport


class LimaCharlie:
    """Credentials, token and connections of one organization, and what can be asked of it, noun by noun.

    Making one does no network I/O. Raises `AuthenticationError` where no key is found and `ConfigError` where what is found is
    wrong. Belongs to one event loop.
    """

    def __init__(
        self, config: LimaCharlieConfig, *, environ: Mapping[str, str] | None = None, clock: Clock | None = None
    ) -> None:
        environ = os.environ if environ is None else environ
        self.config = config
        self.endpoints = resolve(config, environ)
        self.credentials = discover(config, environ)
        self.transport = Transport(config, self.endpoints, self.credentials, clock or SystemClock())

    @property
    def oid(self) -> str:
        """The organization's id. Raises `ConfigError` where none is known."""
        oid = self.credentials.oid
        if oid is None:
            raise ConfigError("The organization is not known.", where="limacharlie.oid", fix="Set it, or LC_OID.")
        return oid

    @cached_property
    def organization(self) -> Organization:
        return Organization(self.transport, self.oid)

    @cached_property
    def outputs(self) -> Outputs:
        return Outputs(self.transport, self.oid)

    @cached_property
    def errors(self) -> OrgErrors:
        return OrgErrors(self.transport, self.oid)

    def subscribe(self, subscription: Subscription, *, refusal: tuple[Token, str] | None = None) -> Feed:
        """Prepare a stream connection; see `Feed`."""
        return Feed(self.transport, self.oid, subscription, refusal=refusal)

    async def close(self) -> None:
        """Release the connections. Safe to call twice."""
        await self.transport.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
