"""The one tree of errors.

Each error says what is wrong, where (a config path or a component), and how to fix it; ``code`` comes from a closed set and is
also the label of ``pipeline_errors_total``. Permanent and temporary failures are different types, so that whoever retries need
not look at texts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar


class PipelineError(Exception):
    """Base of all errors that a user may see. ``str()`` is one readable line; the CLI renders the parts."""

    code: ClassVar[str] = "internal"
    exit_code: ClassVar[int] = 1

    def __init__(self, what: str, *, where: str = "", fix: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.fix = fix

    def __str__(self) -> str:
        text = f"{self.where}: {self.what}" if self.where else self.what
        if not self.fix:
            return text
        return f"{text} {self.fix}" if text.endswith((".", "!", "?", ":")) else f"{text}. {self.fix}"


class PermanentError(PipelineError):
    """Trying again cannot help until somebody changes something."""


class TemporaryError(PipelineError):
    """Trying again later may help; ``after`` is the wait in seconds that the other side asked for, if it did."""

    code = "unavailable"

    def __init__(self, what: str, *, where: str = "", fix: str = "", after: float | None = None) -> None:
        super().__init__(what, where=where, fix=fix)
        self.after = after


class ConfigError(PermanentError):
    """The configuration is wrong. ``problems`` holds one error for each mistake when several were found at once."""

    code = "config"
    exit_code = 4

    def __init__(self, what: str, *, where: str = "", fix: str = "", problems: tuple[ConfigError, ...] = ()) -> None:
        super().__init__(what, where=where, fix=fix)
        self.problems = problems


class UsageError(PermanentError):
    """The command line or its input is wrong."""

    code = "usage"
    exit_code = 4


class AuthenticationError(PermanentError):
    """The credentials are missing, wrong or revoked."""

    code = "authentication"
    exit_code = 2


class PermissionDeniedError(PermanentError):
    """The credentials are right but lack a permission, which ``fix`` names where it is known."""

    code = "permission"
    exit_code = 2


class NotFoundError(PermanentError):
    """What was asked for does not exist."""

    code = "not_found"
    exit_code = 3


class RequestRefusedError(PermanentError):
    """The other side understood the request and refuses it as it is (bad parameter, too large)."""

    code = "refused"


class UnavailableError(TemporaryError):
    """The other side cannot be reached, timed out, or failed on its side."""


class RateLimitedError(TemporaryError):
    """The other side asks us to slow down; ``after`` says for how long where it told us."""

    code = "rate_limited"
    exit_code = 5


class RetryLater(TemporaryError):  # noqa: N818 - a sink's verdict on its write, not a fault
    """Raised by a sink: nothing of this write (or this item, inside `Partial`) is stored; offer it again later."""

    code = "retry"

    def __init__(self, what: str = "", *, after: float | None = None, where: str = "", fix: str = "") -> None:
        super().__init__(what, where=where, fix=fix, after=after)


class Rejected(PermanentError):  # noqa: N818 - a sink's verdict on a record, not a fault
    """Raised by a sink: the record itself can never be stored; it goes to the dead letter with this reason.

    ``reason`` comes from a short closed set that the sink documents (it is a metric label); ``detail`` is free text.
    """

    code = "rejected"

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail


class Partial(PipelineError):  # noqa: N818 - a sink's verdict on a write
    """Raised by a sink: the items at these indices were not stored; every index not named is stored."""

    code = "partial"

    def __init__(self, failures: Mapping[int, RetryLater | Rejected]) -> None:
        super().__init__(f"{len(failures)} items were not stored")
        # A sink that hands on its client's exceptions as they are must not lose the item over that.
        self.failures: dict[int, RetryLater | Rejected] = {
            index: verdict if isinstance(verdict, RetryLater | Rejected) else RetryLater(str(verdict))
            for index, verdict in failures.items()
        }
