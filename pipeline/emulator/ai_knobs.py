"""Knobs of AI sessions: accounts, scripts, timings, and what goes wrong."""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

from pydantic import Field, field_validator

from pipeline.emulator.ai_run import crash
from pipeline.emulator.ai_session import EndReason, stamp
from pipeline.emulator.ai_socket import Socket
from pipeline.emulator.ai_state import SocketFault, Timing, TransferFault
from pipeline.emulator.panel import Knob, Panel, Result, Seconds, Times

STEPS = ("say", "tool", "ask", "wait", "emit", "result", "fail", "end")


class OfSession(Knob):
    session_id: str | None = None
    """One session; all that are not ended without."""

    def sockets(self, panel: Panel) -> list[Socket]:
        panel.ai.find(self.session_id)
        return [socket for socket in panel.ai.sockets if self.session_id in (None, socket.session.id)]


class AiAccount(Knob):
    """Register every user of the emulator's keys with AI sessions, with credentials of these providers."""

    providers: list[Literal["anthropic", "openai", "google", "openrouter"]] = Field(default=["anthropic"])

    def turn(self, panel: Panel) -> Result:
        for key in panel.hub.cloud.keys.values():
            account = panel.ai.account(key.uid or f"{key.oid}/{key.name}")
            account.registered_at = account.registered_at or stamp()
            for provider in self.providers:
                account.credentials[provider] = {"type": "api_key", "created_at": stamp()}
        return {}


class AiScript(Knob):
    """What the assistant does for prompts that contain a text.

    Steps: {say}, {tool, input, result, approval}, {ask: [questions]}, {wait: seconds}, {emit: type, payload}, {result, success},
    {fail: error}, {end: reason}.
    """

    match: str = ""
    """Text; any prompt without."""
    steps: list[dict[str, Any]]

    @field_validator("steps")
    @classmethod
    def _known(cls, steps: list[dict[str, Any]]) -> list[dict[str, Any]]:
        for step in steps:
            if not any(word in step for word in STEPS):
                raise ValueError(f"a step is one of {', '.join(STEPS)}")
            if "wait" in step and not isinstance(step["wait"], int | float):
                raise ValueError("wait is a number of seconds")
            if "end" in step and step["end"] not in get_args(EndReason):
                raise ValueError(f"end is one of {', '.join(get_args(EndReason))}")
        return steps

    def turn(self, panel: Panel) -> Result:
        panel.ai.scripts.insert(0, (self.match, self.steps))
        return {}


class AiTiming(Knob):
    """How fast sessions are; what is not given stays as it is."""

    start: Seconds | None = None
    """From starting to running."""
    never_start: bool = False
    """Sessions stay starting until `start_limit`."""
    start_limit: Seconds | None = None
    pace: Seconds | None = None
    """Between two messages."""
    ping: Annotated[float, Field(gt=0, le=86_400)] | None = None
    idle: Seconds | None = None
    """Without a message of the client, until its connection is closed."""
    buffer: Seconds | None = None
    """Age of the messages that who connects is sent."""
    url_lifetime: Seconds | None = None

    def turn(self, panel: Panel) -> Result:
        timing: Timing = panel.ai.timing
        for name in self.model_fields_set - {"never_start"}:
            setattr(timing, name, getattr(self, name))
        if self.never_start:
            timing.start = None
        return {}


class AiDrop(OfSession):
    """Break the connections that are open; or with `after` the next ones, after so many messages."""

    how: Literal["reset", "half"] = "reset"
    """half: our side ends and says nothing more, without a close."""
    after: Annotated[int, Field(ge=0)] | None = None
    times: Times = 1

    def turn(self, panel: Panel) -> Result:
        if self.after is not None:
            panel.ai.armed.append(SocketFault(session_id=self.session_id, after=self.after, times=self.times))
            return {}
        found = self.sockets(panel)
        for socket in found:
            socket.drop(self.how)
        return {"dropped": len(found)}


class AiClose(OfSession):
    """Close the connections that are open with a code, and the next ones as they come."""

    code: Annotated[int, Field(ge=1000, le=4999)]
    reason: str = ""
    next: Annotated[int, Field(ge=0)] | None = 0
    """How many of those to come; null: all until `clear`."""

    def turn(self, panel: Panel) -> Result:
        if self.next != 0:
            panel.ai.armed.append(
                SocketFault(session_id=self.session_id, code=self.code, reason=self.reason, times=self.next)
            )
        found = self.sockets(panel)
        for socket in found:
            socket.close(self.code, self.reason)
        return {"closed": len(found)}


class AiReplay(OfSession):
    """Send what is replayed to the next connections several times over."""

    copies: Annotated[int, Field(ge=1, le=100)] = 2
    times: Times = 1

    def turn(self, panel: Panel) -> Result:
        panel.ai.armed.append(SocketFault(session_id=self.session_id, copies=self.copies, times=self.times))
        return {}


class AiLimit(OfSession):
    """Refuse so many messages of each client that is connected as too many."""

    messages: Annotated[int, Field(ge=1)] = 1

    def turn(self, panel: Panel) -> Result:
        for socket in self.sockets(panel):
            socket.limit = self.messages
        return {}


class AiSilence(OfSession):
    """Say nothing more on the connections that are open, nor on the next ones; they stay open."""

    next: Annotated[int, Field(ge=0)] | None = 0
    """How many of those to come; null: all until `clear`."""

    def turn(self, panel: Panel) -> Result:
        if self.next != 0:
            panel.ai.armed.append(SocketFault(session_id=self.session_id, silent=True, times=self.next))
        for socket in self.sockets(panel):
            socket.silence()
        return {}


class AiEmit(OfSession):
    """Add messages to transcripts."""

    type: str = "assistant"
    payload: dict[str, Any] = Field(default_factory=dict)
    count: Annotated[int, Field(ge=1, le=100_000)] = 1
    """How many; each has its number in the payload as `n`."""
    size: Annotated[int, Field(ge=0, le=16 << 20)] = 0
    """Bytes of padding in each."""
    raw: str | None = None
    """In place of a message: this text, as it is."""

    def turn(self, panel: Panel) -> Result:
        for session in panel.ai.find(self.session_id):
            for number in range(self.count):
                if self.raw is not None:
                    session.keep(self.raw.encode())
                else:
                    padding = {"padding": "x" * self.size} if self.size else {}
                    session.emit(self.type, {**self.payload, "n": number, **padding})
        return {}


class AiEnd(OfSession):
    """End sessions with a reason, as the cloud does; `failed` comes with a session_error."""

    reason: EndReason = "job_completed"
    exit_code: int = 0
    error: str | None = None

    def turn(self, panel: Panel) -> Result:
        for session in panel.ai.find(self.session_id):
            if self.reason == "failed":
                crash(panel.ai, session, self.error or "Claude process died unexpectedly")
            else:
                panel.ai.finish(session, self.reason, exit_code=self.exit_code, error=self.error)
        return {}


class AiArchive(OfSession):
    """Whether a session's workspace can still be forked, and whether a fork of it is in progress."""

    available: bool = True
    forking: bool = False

    def turn(self, panel: Panel) -> Result:
        for session in panel.ai.find(self.session_id):
            session.archived, session.forking = self.available, self.forking
        return {}


class AiTransfer(Knob):
    """Break the next transfers by signed URL."""

    kind: Literal["expired", "refused", "corrupt", "short", "slow"]
    times: Annotated[int, Field(ge=1)] = 1

    def turn(self, panel: Panel) -> Result:
        panel.ai.transfers.append(TransferFault(kind=self.kind, times=self.times))
        return {}


AI_KNOBS: dict[str, type[Knob]] = {
    "ai_account": AiAccount,
    "ai_script": AiScript,
    "ai_timing": AiTiming,
    "ai_drop": AiDrop,
    "ai_close": AiClose,
    "ai_replay": AiReplay,
    "ai_limit": AiLimit,
    "ai_silence": AiSilence,
    "ai_emit": AiEmit,
    "ai_end": AiEnd,
    "ai_archive": AiArchive,
    "ai_transfer": AiTransfer,
}
