"""Sessions: those of a user, and those of the organization; both are listed, looked at and ended in one manner."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from pipeline.core.errors import UnavailableError
from pipeline.limacharlie.ai.errors import (
    READY,
    ArchiveGoneError,
    ForeignSessionError,
    MissingToolsError,
    NotForkableError,
    Refusals,
    SessionActiveError,
    TooManySessionsError,
)
from pipeline.limacharlie.ai.message import Message, parse
from pipeline.limacharlie.ai.service import AiService
from pipeline.limacharlie.answers import Doc, pages, segment, table, tables, text, texts

PAGE = 200
Status = Literal["starting", "running", "ended"]

_CREATE: Refusals = {
    **READY,
    409: (TooManySessionsError, "End a session first: ten may be active at a time."),
}

_FORK: Refusals = {
    403: (ForeignSessionError, "An organization's session needs the permission ai_agent.set."),
    409: (NotForkableError, "End the session first, or wait for the fork that is in progress."),
    410: (ArchiveGoneError, "Begin a new session."),
    412: (MissingToolsError, "Name them in acknowledge_missing_tools; `preflight` lists them."),
    429: (TooManySessionsError, "End a session first: ten may be active at a time."),
}


@dataclass(frozen=True, slots=True)
class SessionInfo:
    """What LimaCharlie tells of a session; ``doc`` is all of it, times are RFC 3339 texts, "" where unknown."""

    id: str
    status: str
    """``starting``, ``running``, ``ended``; newer services know more."""
    name: str = ""
    created_at: str = ""
    started_at: str = ""
    terminated_at: str = ""
    end_reason: str = ""
    exit_code: int | None = None
    error_message: str = ""
    forked_from: str = ""
    doc: Doc = field(default_factory=dict, repr=False)

    @classmethod
    def read(cls, doc: Doc, where: str) -> SessionInfo:
        """Read ``{"session": {…}}``, one of a list, or the answer to an organization's start. Raises `UnavailableError`."""
        inner = doc.get("session")
        doc = inner if isinstance(inner, dict) else doc
        identity = text(doc, "id") or text(doc, "session_id")
        if not identity:
            raise UnavailableError("LimaCharlie's answer has no session in it.", where=where)
        code = doc.get("exit_code")
        return cls(
            id=identity,
            status=text(doc, "status"),
            name=text(doc, "name"),
            created_at=text(doc, "created_at"),
            started_at=text(doc, "started_at"),
            terminated_at=text(doc, "terminated_at"),
            end_reason=text(doc, "end_reason"),
            exit_code=code if isinstance(code, int) and not isinstance(code, bool) else None,
            error_message=text(doc, "error_message"),
            forked_from=text(doc, "forked_from_session_id"),
            doc=doc,
        )


@dataclass(frozen=True, slots=True)
class Preflight:
    """Whether and how a session can be forked."""

    is_forkable: bool
    reason: str
    default_name: str
    missing_tools: tuple[str, ...]
    """MCP servers to acknowledge."""
    doc: Doc = field(repr=False)


class _Listed:
    """Sessions under one path. All methods raise what `AiService.request` raises."""

    def __init__(self, service: AiService, path: str, *, org: bool) -> None:
        self._service = service
        self._path = path
        self._org = org

    def list(self, *, status: Status | None = None, limit: int | None = None) -> AsyncIterator[SessionInfo]:
        """Sessions, newest first, page by page; those of one status, and at most ``limit`` of them."""
        return self._list(status, limit)

    async def _list(self, status: Status | None, limit: int | None) -> AsyncIterator[SessionInfo]:
        async def fetch(cursor: str) -> Any:
            query = {"limit": str(min(PAGE, limit or PAGE)), **({"status": status} if status else {})}
            if cursor:
                query["cursor"] = cursor
            return await self._service.request("GET", self._path, query=query, org=self._org)

        async for doc in pages(fetch, "sessions", self._path, cursor="", limit=limit):
            yield SessionInfo.read(doc, self._path)

    async def get(self, session_id: str) -> SessionInfo:
        """One session. Raises `NotFoundError`."""
        path = self._of(session_id)
        return SessionInfo.read(table(await self._service.request("GET", path, org=self._org), path), path)

    async def terminate(self, session_id: str) -> None:
        """End a session; one that has ended stays as it is."""
        await self._service.request("DELETE", self._of(session_id), org=self._org, repeatable=True)

    async def history(self, session_id: str) -> Sequence[Message]:
        """What was said so far, oldest first; entries that are no messages are left out."""
        path = f"{self._of(session_id)}/history"
        answer = await self._service.request("GET", path, org=self._org)
        found = (parse(entry) for entry in tables(answer, "messages", path))
        return [message for message in found if message is not None]

    def _of(self, session_id: str) -> str:
        return f"{self._path}/{segment(session_id)}"


class Sessions(_Listed):
    """The user's own sessions."""

    def __init__(self, service: AiService) -> None:
        super().__init__(service, "/v1/sessions", org=False)

    async def create(self, **options: Any) -> SessionInfo:
        """Begin a session.

        ``options`` have their names on the wire, and None is left out: ``allowed_tools``, ``denied_tools``, ``name``, ``profile_id``,
        ``provider``, ``model``, ``max_turns``, ``max_budget_usd``, ``lc_credentials``, ``idempotent_key`` and others.

        Raises `NotReadyError` and `TooManySessionsError`. Tried again after a temporary failure only with an ``idempotent_key``.
        """
        body = {name: value for name, value in options.items() if value is not None}
        self._service.conceal(body)
        answer = await self._service.request(
            "POST", self._path, json=body, refusals=_CREATE, repeatable="idempotent_key" in body
        )
        return SessionInfo.read(table(answer, self._path), self._path)

    async def delete_record(self, session_id: str) -> None:
        """Remove a session that has ended from the history. Raises `SessionActiveError`."""
        refusals: Refusals = {409: (SessionActiveError, "End it first."), 400: (SessionActiveError, "End it first.")}
        await self._service.request("DELETE", f"{self._of(session_id)}/record", refusals=refusals)

    async def preflight(self, session_id: str, *, profile_id: str | None = None) -> Preflight:
        """Ask what a fork would need."""
        path = f"{self._of(session_id)}/fork-preflight"
        query = {"profile_id": profile_id} if profile_id else None
        doc = table(await self._service.request("GET", path, query=query), path)
        return Preflight(
            is_forkable=doc.get("is_forkable") is True,
            reason=text(doc, "is_forkable_reason"),
            default_name=text(doc, "default_fork_name"),
            missing_tools=texts(doc.get("missing_mcps")),
            doc=doc,
        )

    async def fork(
        self,
        session_id: str,
        *,
        name: str | None = None,
        profile_id: str | None = None,
        initial_prompt: str | None = None,
        acknowledge_missing_tools: Sequence[str] = (),
    ) -> SessionInfo:
        """Begin a session that goes on where another one ended.

        Raises `ForeignSessionError`, `NotForkableError`, `ArchiveGoneError`, `MissingToolsError` and `TooManySessionsError`.
        """
        path = f"{self._of(session_id)}/fork"
        body: Doc = {"name": name, "profile_id": profile_id, "initial_prompt": initial_prompt}
        body = {key: value for key, value in body.items() if value is not None}
        if acknowledge_missing_tools:
            body["acknowledge_missing_tools"] = list(acknowledge_missing_tools)
        answer = await self._service.request("POST", path, json=body, refusals=_FORK)
        return SessionInfo.read(table(answer, path), path)


@dataclass(frozen=True, slots=True)
class Usage:
    """What one key used, hour by hour as LimaCharlie writes it."""

    identity: str
    hours: Sequence[Doc]


class OrgSessions(_Listed):
    """The organization's sessions, as rules and keys start them; ``ai_agent.get`` to look, ``ai_agent.operate`` to act."""

    def __init__(self, service: AiService) -> None:
        super().__init__(service, "/v1/org/sessions", org=True)

    async def start(
        self,
        prompt: str,
        *,
        anthropic_key: str | None = None,
        provider: str | None = None,
        credentials: Mapping[str, str] | None = None,
        name: str | None = None,
        idempotent_key: str | None = None,
        profile: Mapping[str, Any] | None = None,
        lc_api_key: str | None = None,
        lc_uid: str | None = None,
        trigger_source: str = "cli",
        repeatable: bool | None = None,
    ) -> SessionInfo:
        """Begin a session with a prompt; either ``anthropic_key`` or ``credentials`` pays. ``profile`` is as on the wire.

        Tried again after a temporary failure only with an ``idempotent_key``, unless ``repeatable`` says otherwise. Raises
        `TooManySessionsError`.
        """
        path = "/v1/api/sessions"
        body: Doc = {"prompt": prompt, "trigger_source": trigger_source, "provider": provider, "name": name}
        body |= {"idempotent_key": idempotent_key, "lc_api_key": lc_api_key, "lc_uid": lc_uid}
        body |= {"credentials": dict(credentials)} if credentials is not None else {"anthropic_key": anthropic_key}
        body |= {"profile": dict(profile)} if profile else {}
        body = {key: value for key, value in body.items() if value is not None}
        self._service.conceal({key: value for key, value in body.items() if key != "prompt"})
        answer = await self._service.request(
            "POST",
            path,
            json=body,
            org=True,
            refusals={409: _CREATE[409]},
            repeatable=idempotent_key is not None if repeatable is None else repeatable,
        )
        return SessionInfo.read(table(answer, path), path)

    async def identities(self) -> Sequence[str]:
        """The keys that have used AI sessions."""
        path = "/v1/org/usage/identities"
        return texts(table(await self._service.request("GET", path, org=True), path).get("identities"))

    async def usage(self, identity: str) -> Usage:
        """What one of them used."""
        path = f"/v1/org/usage/identities/{segment(identity)}"
        answer = await self._service.request("GET", path, org=True)
        return Usage(identity, tables(answer, "usage", path))
