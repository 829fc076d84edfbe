"""What the AI sessions service knows: accounts, profiles, sessions with their transcripts, and the faults that are armed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from pipeline.emulator.ai_session import Doc, EndReason, Session, Window, stamp

MAX_SESSIONS = 10
"""Sessions of one owner that are not ended."""
MAX_PROFILES = 10
MAX_KNOWN = 500
"""Sessions that are kept in all; of those that have ended the oldest are forgotten first."""
GOING_AWAY = 1001
PROVIDERS = ("anthropic", "openai", "google", "openrouter")


@dataclass
class Account:
    """A user of AI sessions."""

    owner: str
    registered_at: str | None = None
    credentials: dict[str, Doc] = field(default_factory=dict)
    """By provider: type, created_at. The secrets themselves are not kept."""
    profiles: dict[str, Doc] = field(default_factory=dict)
    logins: dict[str, float] = field(default_factory=dict)
    """Logins by browser that have begun, with their end on the monotonic clock."""
    registrations: Window = field(default_factory=lambda: Window(10, 60.0))
    creations: Window = field(default_factory=lambda: Window(10, 60.0))

    @property
    def default_profile(self) -> Doc | None:
        return next((profile for profile in self.profiles.values() if profile["is_default"]), None)


@dataclass
class Timing:
    """How fast things go, in seconds."""

    start: float | None = 0.2
    """From starting to running; None: never, which ends it after ``start_limit``."""
    start_limit: float = 300.0
    pace: float = 0.02
    """Between two messages of a turn."""
    ping: float = 30.0
    idle: float = 60.0
    """Without a message of the client, after which a connection is closed."""
    buffer: float = 60.0
    """Age of the messages that are sent again to who connects."""
    url_lifetime: float = 3600.0
    """Of a signed URL."""


@dataclass
class SocketFault:
    """What befalls connections, the next ``times`` of them (None: all)."""

    session_id: str | None = None
    times: int | None = 1
    code: int | None = None
    reason: str = ""
    """Close with this code at once."""
    after: int | None = None
    """Reset after so many messages of the transcript."""
    copies: int = 1
    """Send what is replayed so many times."""
    limit: int = 0
    """Answer so many messages of the client with rate_limited."""
    silent: bool = False
    """Neither send, nor read, nor ping, nor close."""


@dataclass
class TransferFault:
    """What befalls the next ``times`` transfers by signed URL."""

    kind: Literal["expired", "refused", "corrupt", "short", "slow"]
    times: int = 1


class Ai:
    """Everything that the AI services and their knobs share."""

    def __init__(self) -> None:
        self.accounts: dict[str, Account] = {}
        self.sessions: dict[str, Session] = {}
        self.timing = Timing()
        self.scripts: list[tuple[str, list[Doc]]] = []
        """Steps by the text that a prompt contains, newest first."""
        self.armed: list[SocketFault] = []
        self.transfers: list[TransferFault] = []
        self.sockets: set[Any] = set()
        """The `ai_socket.Socket`s that are open."""
        self._group: asyncio.TaskGroup | None = None

    def account(self, owner: str) -> Account:
        return self.accounts.setdefault(owner, Account(owner))

    def active(self, owner: str) -> int:
        return sum(session.owner == owner and session.status != "ended" for session in self.sessions.values())

    def open(self, session: Session, run: Callable[[Ai, Session], Any]) -> None:
        """Make a session known and begin to run it."""
        assert self._group is not None
        ended = [known.id for known in self.sessions.values() if known.status == "ended"]
        for old in ended[: max(0, len(self.sessions) - MAX_KNOWN + 1)]:
            del self.sessions[old]
        self.sessions[session.id] = session
        session.task = self._group.create_task(run(self, session))

    def finish(self, session: Session, reason: EndReason, *, exit_code: int = 0, error: str | None = None) -> None:
        """End a session; what its client has not seen yet is still sent, and then session_end."""
        if session.status == "ended":
            return
        session.status, session.end_reason, session.exit_code = "ended", reason, exit_code
        session.error_message, session.terminated_at = error, stamp()
        session.emit("session_end", {"reason": reason, "exit_code": exit_code})
        for task in (session.turn, session.task):
            if task is not None and task is not asyncio.current_task():
                task.cancel()

    def find(self, session_id: str | None) -> list[Session]:
        """One session, or all that are not ended; raises `LookupError` for an unknown one."""
        if session_id is None:
            return [session for session in self.sessions.values() if session.status != "ended"]
        if session_id not in self.sessions:
            raise LookupError(f"unknown session {session_id}")
        return [self.sessions[session_id]]

    def fault(self, session_id: str) -> SocketFault | None:
        """The fault that is meant for a new connection, used up by it."""
        for fault in self.armed:
            if fault.session_id in (None, session_id):
                if fault.times is not None:
                    fault.times -= 1
                    if fault.times <= 0:
                        self.armed.remove(fault)
                return fault
        return None

    def transfer_fault(self) -> TransferFault | None:
        if not self.transfers:
            return None
        fault = self.transfers[0]
        fault.times -= 1
        if fault.times <= 0:
            self.transfers.pop(0)
        return fault

    def clear(self) -> None:
        """Forget the faults, scripts and timings; accounts and sessions stay."""
        self.armed.clear()
        self.transfers.clear()
        self.scripts.clear()
        self.timing = Timing()

    async def run(self) -> None:
        """Keep the sessions going until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                await asyncio.Event().wait()
        finally:
            for socket in self.sockets:
                socket.close(GOING_AWAY)
