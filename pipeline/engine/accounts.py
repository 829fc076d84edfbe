"""The LimaCharlie accounts that a configuration's sources use, one client per organization."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping

from pipeline.config.model import Config
from pipeline.config.registry import Registry
from pipeline.core.component import Org
from pipeline.core.errors import AuthenticationError, ConfigError
from pipeline.core.source import Source


@contextlib.asynccontextmanager
async def accounts(
    config: Config, registry: Registry, environ: Mapping[str, str] | None = None
) -> AsyncIterator[dict[str, Org]]:
    """Organizations by their name in the configuration ("" where it names none), with their clients; closed at the end.

    Raises `AuthenticationError` when a source needs an organization for which no key is found, `ConfigError` for one without an
    id and for bad values.
    """
    from pipeline.limacharlie.client import LimaCharlie

    needed = _needed(config, registry)
    async with contextlib.AsyncExitStack() as stack:
        orgs: dict[str, Org] = {}
        for name in list(config.orgs) or [""]:
            section = config.account(name)
            try:
                account = await stack.enter_async_context(LimaCharlie(section, environ=environ))
            except AuthenticationError:
                if name in needed:
                    raise
                orgs[name] = Org(name, section.oid)
            else:
                if name in needed and account.credentials.oid is None:
                    raise ConfigError(
                        "There is an API key, but no organization id.",
                        where=account.credentials.origin,
                        fix="Set LC_OID, or limacharlie.oid in the configuration.",
                    )
                orgs[name] = Org(name, account.credentials.oid, account)
        yield orgs


def _needed(config: Config, registry: Registry) -> set[str]:
    names: set[str] = set()
    for source in config.sources.values():
        kind = registry.component("sources", source.type)
        if issubclass(kind, Source) and kind.needs_account(source):
            names.update(list(config.orgs) or [""] if source.orgs == "all" else source.orgs)
    return names
