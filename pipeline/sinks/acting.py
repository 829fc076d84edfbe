"""What sinks share that act in an organization of LimaCharlie for each record."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.core.errors import AuthenticationError, PipelineError, Rejected, RetryLater, TemporaryError
from pipeline.limacharlie.client import LimaCharlie


def account_of(accounts: Mapping[str, Any], sink: str, org: str) -> LimaCharlie:
    """The client of a record's organization. Raises `Rejected` for an unknown one, `AuthenticationError` without credentials."""
    if org not in accounts:
        raise Rejected("no_org", "the record belongs to no configured organization")
    account = accounts[org]
    if not isinstance(account, LimaCharlie):
        raise AuthenticationError("There are no LimaCharlie credentials.", where=sink, fix="Set LC_OID and LC_API_KEY.")
    return account


def later(error: PipelineError) -> RetryLater:
    """The same as a sink's wish to be asked again; metrics and health show the error's own code."""
    after = error.after if isinstance(error, TemporaryError) else None
    wish = RetryLater(error.what, where=error.where, fix=error.fix, after=after)
    wish.__cause__ = error
    return wish
