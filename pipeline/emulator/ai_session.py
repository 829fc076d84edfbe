"""One AI session: what it is, and its transcript."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

import orjson

MAX_TRANSCRIPT = 64 << 20
"""Bytes of messages that a session keeps; the oldest go first."""
REGION = "us-central1"

Status = Literal["starting", "running", "ended"]
EndReason = Literal[
    "completed",
    "failed",
    "job_completed",
    "user_requested",
    "org_api_requested",
    "max_duration_exceeded",
    "startup_timeout",
    "heartbeat_stale",
]
Doc = dict[str, Any]


def stamp(at: float | None = None) -> str:
    """A moment (Unix seconds, default now) as RFC 3339 with microseconds."""
    return datetime.fromtimestamp(time.time() if at is None else at, UTC).isoformat(timespec="microseconds")[:-6] + "Z"


def new_id(prefix: str = "") -> str:
    return prefix + secrets.token_hex(8)


class Window:
    """At most ``limit`` events in any ``seconds``."""

    def __init__(self, limit: int, seconds: float) -> None:
        self.limit = limit
        self.seconds = seconds
        self._taken: deque[float] = deque()

    def take(self) -> float:
        """Take one and return 0, or return the seconds until there is room."""
        now = time.monotonic()
        while self._taken and now - self._taken[0] >= self.seconds:
            self._taken.popleft()
        if len(self._taken) >= self.limit:
            return self.seconds - (now - self._taken[0])
        self._taken.append(now)
        return 0.0


@dataclass(frozen=True)
class Said:
    """One message of a transcript."""

    at: float
    """On the monotonic clock."""
    data: bytes


@dataclass(kw_only=True, eq=False)
class Session:
    """A session; ``profile`` is what it was made with."""

    owner: str
    kind: Literal["user", "api"] = "user"
    oid: str | None = None
    identity: str = ""
    """Whose usage it is."""
    name: str = ""
    prompt: str = ""
    profile: Doc = field(default_factory=dict)
    provider: str = "anthropic"
    lc_auth_type: str = "jwt"
    idempotent_key: str | None = None
    forked_from: str | None = None
    id: str = field(default_factory=new_id)
    status: Status = "starting"
    created_at: str = field(default_factory=stamp)
    started_at: str | None = None
    terminated_at: str | None = None
    end_reason: EndReason | None = None
    exit_code: int | None = None
    error_message: str | None = None
    archived: bool = True
    """Its workspace is still there to be forked."""
    forking: bool = False
    files: dict[str, bytes] = field(
        default_factory=lambda: {"/workspace/output.txt": b"Nothing suspicious was found.\n"}
    )
    input_tokens: int = 0
    output_tokens: int = 0
    turns: int = 0
    prompts: asyncio.Queue[str] = field(default_factory=lambda: asyncio.Queue(64))
    answers: dict[str, asyncio.Future[Doc]] = field(default_factory=dict)
    """Who waits for the user's word, by tool_use_id or question_id."""
    turn: asyncio.Task[None] | None = None
    task: asyncio.Task[None] | None = None
    listeners: set[Callable[[], None]] = field(default_factory=set)
    prompted: Window = field(default_factory=lambda: Window(60, 60.0))
    uploads: Window = field(default_factory=lambda: Window(10, 60.0))
    first: int = 0
    """Number of the oldest message that is kept."""
    transcript: deque[Said] = field(default_factory=deque)
    size: int = 0

    @property
    def allowed_tools(self) -> list[str]:
        return list(self.profile.get("allowed_tools") or [])

    @property
    def denied_tools(self) -> list[str]:
        return list(self.profile.get("denied_tools") or [])

    @property
    def cost_usd(self) -> float:
        return round(3e-6 * self.input_tokens + 15e-6 * self.output_tokens, 6)

    @property
    def end(self) -> int:
        """Number that the next message will have."""
        return self.first + len(self.transcript)

    def emit(self, kind: str, payload: Doc) -> None:
        """Add a message to the transcript; all who are attached send it."""
        self.keep(self.envelope(kind, payload))

    def envelope(self, kind: str, payload: Doc) -> bytes:
        return orjson.dumps({"type": kind, "timestamp": stamp(), "session_id": self.id, "payload": payload})

    def keep(self, data: bytes) -> None:
        self.transcript.append(Said(time.monotonic(), data))
        self.size += len(data)
        while self.size > MAX_TRANSCRIPT:
            self.size -= len(self.transcript.popleft().data)
            self.first += 1
        self.wake()

    def wake(self) -> None:
        for listener in list(self.listeners):
            listener()

    def since(self, age: float) -> int:
        """The number of the oldest message that is at most ``age`` seconds old."""
        limit = time.monotonic() - age
        young = sum(1 for _ in _while_younger(self.transcript, limit))
        return self.end - young

    def message(self, number: int) -> bytes:
        return self.transcript[number - self.first].data

    def history(self, until: int | None = None) -> list[Doc]:
        """The messages before number ``until``, decoded; what a fault put there that is none is not among them."""
        count = len(self.transcript) if until is None else max(0, until - self.first)
        found = []
        for said, _ in zip(self.transcript, range(count), strict=False):
            with contextlib.suppress(ValueError):
                found.append(orjson.loads(said.data))
        return found

    def shown(self) -> Doc:
        found = {
            "id": self.id,
            "name": self.name,
            "status": self.status,
            "type": self.kind,
            "region": REGION,
            "provider": self.provider,
            "created_at": self.created_at,
            "started_at": self.started_at,
            "terminated_at": self.terminated_at,
            "end_reason": self.end_reason,
            "exit_code": self.exit_code,
            "error_message": self.error_message,
            "lc_auth_type": self.lc_auth_type,
            "allowed_tools": self.allowed_tools,
            "denied_tools": self.denied_tools,
        }
        for key in ("forked_from", "idempotent_key"):
            if getattr(self, key) is not None:
                found["forked_from_session_id" if key == "forked_from" else key] = getattr(self, key)
        return found


def _while_younger(transcript: deque[Said], limit: float) -> Iterator[Said]:
    for said in reversed(transcript):
        if said.at < limit:
            return
        yield said
