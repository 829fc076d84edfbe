"""Registers the `firehose` source as an Output of each organization, and sees to it that LimaCharlie keeps it enabled."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from pipeline.core.component import Org
from pipeline.core.errors import (
    NotFoundError,
    PermanentError,
    PermissionDeniedError,
    PipelineError,
    RequestRefusedError,
)
from pipeline.core.source import Source
from pipeline.kit.backoff import Backoff
from pipeline.limacharlie.client import LimaCharlie
from pipeline.limacharlie.org_errors import OrgError
from pipeline.limacharlie.outputs import Output, wire
from pipeline.sources.firehose_output import OWN_FIELDS, OutputConfig

PATIENCE = 10
"""How much longer than `recheck` the waits grow while enabling the Output does not help."""
WITHDRAW = 5.0
"""Seconds that removing the Outputs may take at the stop."""

_COMPARED = (OWN_FIELDS - {"module", "name", "type", "for"}) | {
    "cat_black_list", "cat_white_list", "custom_transform", "event_black_list", "event_white_list", "is_flat", "is_no_routing",
    "is_payload_as_string", "is_prefix_data", "rule_tag_black_list", "rule_tag_white_list", "sample_rate", "tag_black_list",
}  # fmt: skip
"""Fields that decide what arrives and where: one that we do not set must not be set there."""


class Registration:
    """One task for each organization, so that one fails alone."""

    def __init__(
        self, config: OutputConfig, output: Output, source: Source[Any], connections: Callable[[str], int]
    ) -> None:
        """``connections`` tells how many connections an organization may have now."""
        self._config = config
        self._output = output
        self._source = source
        self._connections = connections
        self._failing: dict[str, PipelineError] = {}
        self._told: set[tuple[str, str]] = set()
        """What was said of an organization and is not said again."""

    async def check(self) -> None:
        """Get a token of each organization and look for the permissions that registering needs.

        Raises a `PipelineError` of the first failure's type that names each organization that fails.
        """
        found = await asyncio.gather(*(self._check(org.account) for org in self._source.orgs))
        failed = [(org.name, error) for org, error in zip(self._source.orgs, found, strict=True) if error is not None]
        if not failed:
            return
        what = " ".join(f"In {org}: {error.what}" if org else error.what for org, error in failed)
        fix = " ".join(dict.fromkeys(error.fix for _, error in failed if error.fix))
        places = {error.where for _, error in failed}
        raise type(failed[0][1])(what, where=places.pop() if len(places) == 1 else self._source.id, fix=fix)

    async def keep(self) -> None:
        """Register everywhere and stay; end it by cancelling."""
        async with asyncio.TaskGroup() as group:
            for org in self._source.orgs:
                group.create_task(self._keep(org, org.account))

    async def withdraw(self) -> None:
        """At the stop: remove the Outputs, if that is wanted."""
        if self._config.on_stop != "remove":
            return
        async with asyncio.TaskGroup() as group:
            for org in self._source.orgs:
                group.create_task(self._remove(org, org.account))

    async def _check(self, account: LimaCharlie) -> PipelineError | None:
        needed = ["output.list", "output.set"] + ["output.del"] * (self._config.on_stop == "remove")
        try:
            oid = account.oid
            permissions = (await account.transport.tokens.get()).permissions
        except PipelineError as error:
            return error
        missing = [name for name in needed if permissions is not None and name not in permissions]
        if not missing:
            return None
        return PermissionDeniedError(
            f"The API key cannot register an Output in {oid}: it lacks {', '.join(missing)}.",
            where=self._source.id,
            fix=f"Give it the permissions {', '.join(needed)}.",
        )

    async def _keep(self, org: Org, account: LimaCharlie) -> None:
        backoff = Backoff(base=1.0, cap=60.0)
        slow = Backoff(base=60.0, cap=900.0)
        settle = self._config.recheck
        look = Backoff(base=settle, cap=settle * PATIENCE)
        registered = told = renewed = False
        while True:
            try:
                if not registered:
                    await self._register(org, account)
                    registered = True
                    self._works(org)
                    wait = settle
                elif self._connections(org.name):
                    look.reset()
                    told = renewed = False
                    wait = settle
                else:
                    error = await self._error(org, account)
                    if not told:
                        told = True
                        self._source.log.warning(
                            "LimaCharlie does not connect to this listener.",
                            org=org.name,
                            output=self._config.name,
                            address=self._config.address,
                            error=_words(error),
                        )
                    # Without knowing that it is disabled, once has to do: another replica may be served well.
                    if isinstance(error, OrgError) or (error is not None and not renewed):
                        await self._enable(org, account, error)
                        renewed = True
                    if isinstance(error, OrgError):
                        await self._dismiss(org, account)
                    self._works(org)
                    wait = settle + look.next()
                backoff.reset()
                slow.reset()
            except PipelineError as error:
                self._fails(org, error)
                wait = (slow if isinstance(error, PermanentError) else backoff).next()
                wait = max(wait, getattr(error, "after", None) or 0.0)
            await asyncio.sleep(wait)

    async def _register(self, org: Org, account: LimaCharlie) -> None:
        known = (await account.outputs.list()).get(self._config.name)
        sent = known is None or differs(known, self._output)
        if sent:
            await account.outputs.put(self._output)
        error = await self._error(org, account)
        # An update enables what LimaCharlie disabled, and it may have where we cannot know.
        if error is not None and not sent:
            await self._enable(org, account, error)
        if isinstance(error, OrgError):
            await self._dismiss(org, account)

    async def _enable(self, org: Org, account: LimaCharlie, error: OrgError | PipelineError) -> None:
        """Update the Output as it is: that enables what LimaCharlie disabled."""
        await account.outputs.put(self._output)
        self._source.report.count("output_enabled")
        if isinstance(error, OrgError):
            self._source.log.info(
                "The Output had an error and was enabled again.", org=org.name, output=self._config.name,
                error=error.text,
            )  # fmt: skip

    async def _error(self, org: Org, account: LimaCharlie) -> OrgError | PipelineError | None:
        """What LimaCharlie says of the Output; or why it may not be asked, which is no reason not to go on."""
        try:
            return await account.errors.of_output(self._config.name)
        except (PermissionDeniedError, NotFoundError, RequestRefusedError) as refusal:
            self._warn_once(org, "The Output is registered, but its errors cannot be read.", refusal)
            return refusal

    async def _dismiss(self, org: Org, account: LimaCharlie) -> None:
        """Forget the error, so that a later one is seen to be new."""
        try:
            await account.errors.dismiss(f"outputs/{self._config.name}")
        except NotFoundError:
            return  # another replica was quicker
        except (PermissionDeniedError, RequestRefusedError) as refusal:
            self._warn_once(org, "The Output is enabled, but its old error cannot be dismissed.", refusal)

    async def _remove(self, org: Org, account: LimaCharlie) -> None:
        try:
            async with asyncio.timeout(WITHDRAW):
                await account.outputs.delete(self._config.name)
        except (PipelineError, TimeoutError) as error:
            self._source.log.warning(
                "The Output could not be removed.",
                org=org.name,
                output=self._config.name,
                error=str(error) or "timeout",
            )

    def _warn_once(self, org: Org, event: str, error: PipelineError) -> None:
        if (org.name, event) not in self._told:
            self._told.add((org.name, event))
            self._source.log.warning(event, org=org.name, output=self._config.name, error=str(error))

    def _works(self, org: Org) -> None:
        if self._failing.pop(org.name, None) is not None:
            self._source.log.info("The Output is registered.", org=org.name, output=self._config.name)
        self._tell()

    def _fails(self, org: Org, error: PipelineError) -> None:
        self._failing[org.name] = error
        self._source.report.error(error.code)
        self._source.log.warning("The Output could not be registered.", org=org.name, error=str(error))
        self._tell()

    def _tell(self) -> None:
        if not self._failing:
            self._source.report.state("ok")
            return
        text = "; ".join(f"{org}: {error}" if org else str(error) for org, error in self._failing.items())
        self._source.report.state("degraded", text, next(iter(self._failing.values())).code)


def differs(known: Output, wanted: Output) -> bool:
    """Whether an Output sends something else, or elsewhere, than the one we want."""
    if (known.module, known.stream) != (wanted.module, wanted.stream):
        return True
    return any(
        _plain(known.fields.get(key)) != _plain(wanted.fields.get(key)) for key in _COMPARED | wanted.fields.keys()
    )


def _words(error: OrgError | PipelineError | None) -> str:
    if isinstance(error, PipelineError):
        return f"its errors cannot be read ({error})"
    return error.text if error is not None else "LimaCharlie reports no error of it"


def _plain(value: str | None) -> str:
    text = wire(value)
    return "" if text == "false" else text.strip()
