"""The LimaCharlie accounts that a configuration's sources and sinks use, one client per organization."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator, Mapping

from pipeline.config.model import Config
from pipeline.config.registry import Registry
from pipeline.core.component import Org
from pipeline.core.errors import AuthenticationError, ConfigError
from pipeline.core.sink import Sink
from pipeline.core.source import Source
from pipeline.limacharlie.config import LimaCharlieConfig
from pipeline.limacharlie.credentials import discover


@contextlib.asynccontextmanager
async def accounts(
    config: Config, registry: Registry, environ: Mapping[str, str] | None = None
) -> AsyncIterator[dict[str, Org]]:
    """Organizations by their name in the configuration ("" where it names none); closed at the end.

    Those of which a component needs an account have their client.

    Raises `AuthenticationError` when a source or a sink needs an organization for which no key is found, `ConfigError` for one
    without an id and for bad values.
    """
    needed = _needed(config, registry)
    async with contextlib.AsyncExitStack() as stack:
        orgs: dict[str, Org] = {}
        for name in list(config.orgs) or [""]:
            section = config.account(name)
            if name not in needed:
                orgs[name] = Org(name, _oid(section, environ))
                continue
            from pipeline.limacharlie.client import LimaCharlie  # an HTTP client, which not every configuration needs

            account = await stack.enter_async_context(LimaCharlie(section, environ=environ))
            if account.credentials.oid is None:
                raise ConfigError(
                    "There is an API key, but no organization id.",
                    where=account.credentials.origin,
                    fix="Set LC_OID, or limacharlie.oid in the configuration.",
                )
            orgs[name] = Org(name, account.credentials.oid, account)
        yield orgs


def _oid(section: LimaCharlieConfig, environ: Mapping[str, str] | None) -> str | None:
    try:
        return discover(section, os.environ if environ is None else environ).oid
    except AuthenticationError:
        return section.oid


def _needed(config: Config, registry: Registry) -> set[str]:
    served = {
        name: set(list(config.orgs) or [""] if source.orgs == "all" else source.orgs)
        for name, source in config.sources.items()
    }
    names: set[str] = set()
    for name, source in config.sources.items():
        reader = registry.component("sources", source.type)
        if issubclass(reader, Source) and reader.needs_account(source):
            names |= served[name]
    for route in config.routes.values():
        for target in route.to:
            sink = config.sinks[target]
            writer = registry.component("sinks", sink.type)
            if issubclass(writer, Sink) and writer.needs_account(sink):
                names.update(*(served[name] for name in route.from_))
    return names
