"""What commands share that ask LimaCharlie's API: their options, and the client."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from pipeline.cli.options import Options
from pipeline.core.errors import UsageError

if TYPE_CHECKING:  # it imports an HTTP client, and `--help` must not
    from pipeline.limacharlie.client import LimaCharlie

Decorated = TypeVar("Decorated", bound=Callable[..., Any])
Result = TypeVar("Result")

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def account_options(command: Decorated) -> Decorated:
    """Give a command ``oid`` and ``environment``."""
    command = click.option("--env", "environment", help="A named environment of the stored credentials.")(command)
    return click.option("--oid", help="The organization, instead of the configured one.")(command)


def with_account(
    options: Options | None,
    oid: str | None,
    environment: str | None,
    work: Callable[[LimaCharlie], Awaitable[Result]],
) -> Result:
    """Set up the log, and do something with the client of the organization that is meant. Raises `UsageError`."""
    from pydantic import ValidationError

    from pipeline.kit import log
    from pipeline.limacharlie.client import LimaCharlie
    from pipeline.limacharlie.config import LimaCharlieConfig

    given = options or {}
    log.configure(given.get("log_level", "warning"), given.get("log_format", "auto"))
    try:
        config = LimaCharlieConfig(oid=oid, environment=environment)
    except ValidationError as error:
        raise UsageError(error.errors()[0]["msg"].removeprefix("Value error, "), where="--oid") from None

    async def main() -> Result:
        async with LimaCharlie(config) as account:
            return await work(account)

    return asyncio.run(main())
