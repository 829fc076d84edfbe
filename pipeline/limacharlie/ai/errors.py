"""What AI sessions refuse, by status and by close code, with what to do about it."""

from __future__ import annotations

from collections.abc import Mapping

from pipeline.core.errors import (
    AuthenticationError,
    NotFoundError,
    PermissionDeniedError,
    PipelineError,
    RequestRefusedError,
    UnavailableError,
)
from pipeline.limacharlie.failures import ConflictError, TooLargeError
from pipeline.limacharlie.transport import Explain


class InvalidRequestError(RequestRefusedError):
    """400: the request itself is wrong."""


class NotReadyError(PermissionDeniedError):
    """403: the user is not registered for AI sessions, or has no credentials of the provider."""


class DomainNotAllowedError(PermissionDeniedError):
    """403: users of this email domain may not register."""


class ForeignSessionError(PermissionDeniedError):
    """403 or 4003: the session belongs to somebody else."""


class AlreadyRegisteredError(ConflictError):
    """409: there is nothing left to do."""


class TooManySessionsError(ConflictError):
    """409, for a fork 429: ten sessions are active."""


class TooManyProfilesError(ConflictError):
    """409: there are ten profiles."""


class DefaultProfileError(ConflictError):
    """400 or 409: the default profile cannot be deleted."""


class SessionActiveError(ConflictError):
    """409: only the record of a session that has ended can be deleted."""


class NotForkableError(ConflictError):
    """409: the session is not one to fork, or a fork of it is in progress."""


class ArchiveGoneError(RequestRefusedError):
    """410: the workspace of the session to fork is no longer there."""


class MissingToolsError(RequestRefusedError):
    """412: the session to fork uses MCP servers that the profile lacks."""


class FileTooLargeError(TooLargeError):
    """413: the file is larger than 100 MB."""


class MessageTooLargeError(TooLargeError):
    """A message that is larger than 1 MB; it was not sent."""


class TransferError(UnavailableError):
    """A file did not arrive whole; another URL may do."""


class SessionAuthenticationError(AuthenticationError):
    """4001: the token is not accepted, and a fresh one is not either."""


class SessionNotFoundError(NotFoundError):
    """4004: there is no such session, or not any more."""


class SessionNotRunningError(UnavailableError):
    """4009: the session is starting; it can be attached to when it runs."""


class SessionEndedError(ConflictError):
    """4100, or a message for a session that has ended."""


class ConnectionLostError(UnavailableError):
    """4101, or a connection that broke: connect again with the same session id."""


class SilentConnectionError(ConnectionLostError):
    """Nothing came for so long that the connection must be dead."""


class ServiceFailedError(UnavailableError):
    """4500: the service has a fault; connecting again may help."""


Refusals = Mapping[int, tuple[type[PipelineError], str]]
"""The error and its remedy by status, for one request."""

COMMON: Refusals = {
    400: (InvalidRequestError, "Correct the request."),
    403: (ForeignSessionError, "Use the key of the session's owner, or the organization's view."),
}
READY: Refusals = {
    403: (NotReadyError, "Register, and store credentials of the provider (`ai.registration`, `ai.credentials`)."),
}


def explain(refusals: Refusals) -> Explain:
    """Make the translation of a request's refusals."""
    known = {**COMMON, **refusals}

    def translate(status: int, error: PipelineError) -> PipelineError:
        if status not in known:
            return error
        kind, fix = known[status]
        return kind(error.what, where=error.where, fix=error.fix if isinstance(error, kind) and error.fix else fix)

    return translate


CLOSE_CODES: Mapping[int, tuple[type[PipelineError], str, str]] = {
    4001: (SessionAuthenticationError, "The token is not accepted.", "Check the API key."),
    4003: (
        ForeignSessionError,
        "The session belongs to a different user.",
        "Use its owner's key, or the organization's read-only view.",
    ),
    4004: (SessionNotFoundError, "There is no such session.", "List the sessions for their ids."),
    4009: (SessionNotRunningError, "The session does not run.", "Wait until it does."),
    4100: (SessionEndedError, "The session has ended.", "Fork it to go on."),
    4101: (ConnectionLostError, "The connection was reset.", ""),
    4500: (ServiceFailedError, "The service has an internal error.", ""),
}
"""Error, words and remedy by close code. Temporary ones mean: connect again with the same session id."""

UPGRADE_STATUS: Mapping[int, int] = {401: 4001, 403: 4003, 404: 4004, 409: 4009, 410: 4100}
"""The close code that says the same as a status in answer to the upgrade."""


def closed(code: int | None, reason: str, *, where: str) -> PipelineError:
    """The error for a close code; any that is not LimaCharlie's is a lost connection."""
    kind, what, fix = CLOSE_CODES.get(
        code or 1006, (ConnectionLostError, f"The connection was closed ({code or 'without a code'}).", "")
    )
    return kind(f"{what[:-1]} ({reason})." if reason else what, where=where, fix=fix)
