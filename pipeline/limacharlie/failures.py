"""The typed error for an answer that is not a success, with LimaCharlie's own words in it."""

from __future__ import annotations

import re
from collections.abc import Mapping

from pipeline.core.errors import (
    AuthenticationError,
    NotFoundError,
    PermissionDeniedError,
    PipelineError,
    RateLimitedError,
    RequestRefusedError,
    UnavailableError,
)
from pipeline.kit.http import retry_after
from pipeline.limacharlie.throttle import MAX_PAUSE, period
from pipeline.limacharlie.token import named_permission

_CODE = re.compile(r"lc_error_code:\s*([A-Z_]+)")

_NARROW = "The user's token covers too many organizations: set oid, which narrows it to one."
_LESS = (
    "The request is too large, or the token that it carries: send less at once, or use a key with fewer permissions."
)

SLOWER = "Ask less often, or use an API key whose name ends in [bulk], which has higher limits."


class ConflictError(RequestRefusedError):
    """What was to be changed is not what it was when it was read; read it again."""


class TooLargeError(RequestRefusedError):
    """What was asked for, or sent, is too much for one request."""


def failure(
    status: int, headers: Mapping[str, str], text: str, *, where: str, now: float, narrow: bool = False
) -> PipelineError:
    """Make the error. ``now`` is Unix time; ``narrow`` says that the credentials are a user's for all organizations."""
    reason = f"LimaCharlie answered {status}: {text or 'no reason given'}."
    after = retry_after(headers, now, most=MAX_PAUSE)
    # Hives answer 400 to almost everything; the truth is in the text.
    code = found[1] if (found := _CODE.search(text)) else ""
    if status == 429:
        return RateLimitedError(reason, where=where, after=period(headers) if after is None else after, fix=SLOWER)
    if status == 404 or code == "RECORD_NOT_FOUND":
        return NotFoundError(reason, where=where)
    if status == 409 or "ETAG_MISMATCH" in text:
        return ConflictError(reason, where=where, fix="It was changed in the meantime: read it again.")
    if status == 413:
        return TooLargeError(reason, where=where, fix=_NARROW if narrow else _LESS)
    if status == 401:
        return AuthenticationError(reason, where=where, fix="Check the API key.")
    if status == 403 or code == "UNAUTHORIZED":
        permission = named_permission(text)
        return PermissionDeniedError(
            reason, where=where, fix=f"Give the API key the permission {permission}." if permission else ""
        )
    if status == 408 or status >= 500:
        return UnavailableError(reason, where=where, after=after)
    if 300 <= status < 400:
        fix = "Redirects are not followed: they would carry the key elsewhere."
        return RequestRefusedError(reason, where=where, fix=fix)
    return RequestRefusedError(reason, where=where)
