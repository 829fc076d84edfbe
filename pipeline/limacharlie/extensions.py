"""Extensions: what an organization is subscribed to, and requests to it."""

from __future__ import annotations

from typing import Any

import orjson

from pipeline.core.errors import PermissionDeniedError, PipelineError, RequestRefusedError, UnavailableError
from pipeline.limacharlie.answers import Doc, gzip, segment, table, texts
from pipeline.limacharlie.transport import Transport

_ENVELOPE = frozenset({"error", "version", "data", "retriable", "continuations", "metrics", "retry"})
_LARGE = 16 << 10
"""Data of more bytes travels compressed."""
_TIMEOUT = 60.0
"""Seconds; subscribing lets the extension set itself up."""


class NotSubscribedError(PermissionDeniedError):
    """The organization is not subscribed to the extension."""


class Extensions:
    """All raise what `Transport.request` raises."""

    def __init__(self, transport: Transport, oid: str) -> None:
        self._transport = transport
        self._oid = oid

    async def subscriptions(self) -> frozenset[str]:
        """Names of the extensions that the organization is subscribed to."""
        path = f"/orgs/{self._oid}/subscriptions"
        answer = await self._transport.request("GET", path)
        if isinstance(answer, dict):
            answer = answer.get("subscriptions", answer)
        return frozenset(answer) if isinstance(answer, dict) else frozenset(texts(answer))

    async def subscribe(self, name: str) -> None:
        """Subscribe the organization to an extension; doing so again is fine. It is there almost at once."""
        await self._subscription("POST", name)

    async def unsubscribe(self, name: str) -> None:
        """End the subscription, and with it what the extension keeps for the organization."""
        await self._subscription("DELETE", name)

    async def schema(self, name: str) -> Doc:
        """What the extension can be asked, and how it is configured."""
        path = f"/extension/schema/{segment(name)}"
        return table(await self._transport.request("GET", path, query={"oid": self._oid}), path)

    async def request(
        self,
        name: str,
        action: str,
        data: Doc | None = None,
        *,
        compressed: bool | None = None,
        impersonate: bool = False,
        repeatable: bool = False,
        timeout: float | None = None,
    ) -> Any:
        """Have an extension do something, and return its answer without the envelope that it may come in.

        ``compressed`` says how the data travels (default: by its size). ``impersonate`` hands our token to the extension. Only with
        ``repeatable`` is it tried again after a failure that may have come too late.

        Raises `NotSubscribedError`; `RequestRefusedError` or `UnavailableError` for an error that the extension itself reports.
        """
        body = orjson.dumps(data or {})
        form = {"oid": self._oid, "action": action}
        if len(body) > _LARGE if compressed is None else compressed:
            form["gzdata"] = await gzip(body)
        else:
            form["data"] = body.decode()
        if impersonate:
            form["impersonator_jwt"] = (await self._transport.tokens.get()).text
        path = f"/extension/request/{segment(name)}"

        def explain(status: int, error: PipelineError) -> PipelineError:
            # Without a permission that it names, which would be the fix, a 403 is not about the key: LimaCharlie answers 401 then.
            return _not_subscribed(name, error) if status == 403 and not error.fix else error

        answer = await self._transport.request(
            "POST", path, form=form, repeatable=repeatable, reads=True, timeout=timeout, explain=explain
        )
        return self._open(answer, f"{name} {action}")

    def _open(self, answer: Any, where: str) -> Any:
        """Take an answer out of its envelope; it may come without one."""
        if not isinstance(answer, dict) or not answer.keys() <= _ENVELOPE:
            return answer
        problem = answer.get("error")
        if problem:
            reason = f"The extension answered: {self._transport.scrub(str(problem))}."
            # An extension that does not say whether trying again helps means that it does.
            kind = RequestRefusedError if answer.get("retriable") is False else UnavailableError
            raise kind(reason, where=where)
        return answer.get("data", {})

    async def _subscription(self, method: str, name: str) -> None:
        path = f"/orgs/{self._oid}/subscription/extension/{segment(name)}"
        await self._transport.request(method, path, form={}, repeatable=True, timeout=_TIMEOUT)


def _not_subscribed(name: str, refused: PipelineError) -> NotSubscribedError:
    return NotSubscribedError(
        f"{refused.what} The organization is most likely not subscribed to the extension.",
        where=name,
        fix=f"Subscribe it: `extensions.subscribe({name!r})`, or in the marketplace at https://app.limacharlie.io/add-ons.",
    )
