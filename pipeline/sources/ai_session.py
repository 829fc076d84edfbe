"""Source `ai_session`: what is said in AI sessions, message by message."""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import AsyncIterator, Sequence
from typing import ClassVar, Literal

from pydantic import model_validator

from pipeline.core.component import Context
from pipeline.core.config import Field, SourceConfig
from pipeline.core.errors import (
    AuthenticationError,
    NotFoundError,
    PermanentError,
    PipelineError,
    TemporaryError,
)
from pipeline.core.source import Outlet, Source
from pipeline.core.types import Duration
from pipeline.kit.backoff import Backoff
from pipeline.limacharlie.ai.follow import URLS, Follower
from pipeline.limacharlie.ai.message import SESSION_END, Message, Seen, parse
from pipeline.limacharlie.ai.record import make_record
from pipeline.limacharlie.ai.sessions import OrgSessions, SessionInfo, Sessions
from pipeline.limacharlie.ai.socket import SocketOptions
from pipeline.limacharlie.client import LimaCharlie
from pipeline.limacharlie.records import parse_time

KNOWN = 10_000
"""Sessions that are remembered as done with."""
LISTED = 1000
"""Sessions that one look takes from the list, the newest first."""


class AiSessionConfig(SourceConfig):
    """Follow AI sessions: each message of their transcripts is a record, from the first one on.

    The record's `routing/event_type` is `AI_` and the message's type (`AI_ASSISTANT`, `AI_TOOL_USE`, `AI_SESSION_END` …), `event` is
    the message as it came, `session` says which session it is, and of one that a sink `ai_session` opened by which sink and for
    which detection (`session/sink`, `session/detect_id`). `routing/event_id` is the same whenever a message comes again: after a
    restart sessions are read from their beginning, and `dedupe` on the routes lets through what is new.
    """

    type: Literal["ai_session"] = "ai_session"
    """Which component this is."""
    stream: str = "ai_session"
    """What its records are called in paths and topics (`{stream}`)."""
    session: str | None = None
    """Only this session; when it has ended, the source is at its end. Default: all, as they appear."""
    view: Literal["org", "owner"] = "org"
    """`org`: the organization's sessions, as rules and keys start them (permission ai_agent.get). `owner`: the key's own."""
    poll: Duration = Field(5.0, ge=0.1)
    """How often new sessions are looked for."""
    lookback: Duration = Field(86400.0, ge=0)
    """Sessions that were created so long ago are followed too, or read where they have ended meanwhile."""
    max_sessions: int = Field(16, gt=0, le=1000)
    """How many are followed at once; further ones wait. Each may keep 8 MiB of messages in memory."""

    @model_validator(mode="after")
    def _all_json(self) -> AiSessionConfig:
        if self.format != "json":
            raise ValueError("messages of sessions are JSON")
        return self


class AiSession(Source[AiSessionConfig]):
    """One task looks for sessions, and one follows each of them."""

    per_org: ClassVar[bool] = True
    tells_state: ClassVar[bool] = True

    def __init__(self, config: AiSessionConfig, context: Context) -> None:
        super().__init__(config, context)
        self._backoff = Backoff(config.poll, 60.0)
        self._slow = Backoff(60.0, 900.0)
        self._known: OrderedDict[str, bool] = OrderedDict()
        """Sessions that are followed (True) or done with (False)."""
        self._again: dict[str, float] = {}
        """Sessions that failed, and when they are tried again (monotonic seconds)."""
        self._turns = asyncio.Semaphore(config.max_sessions)

    @classmethod
    def needs_account(cls, config: AiSessionConfig) -> bool:
        """Sessions are an account's."""
        del config
        return True

    async def check(self) -> None:
        """Ask for one session. Raises a `PipelineError`."""
        async for _ in self._sessions().list(limit=1):
            break

    async def run(self, outlet: Outlet) -> None:
        """Follow what there is until `stopping`; one session until its end."""
        # What an earlier run, which an error ended, was at is begun anew.
        self._known = OrderedDict((name, active) for name, active in self._known.items() if not active)
        async with asyncio.TaskGroup() as group:
            while not self.stopping.is_set():
                try:
                    found = await self._look()
                except PipelineError as error:
                    await self.sleep(self._failed(error))
                    continue
                self._backoff.reset()
                self._slow.reset()
                self.report.state("ok", "")
                tasks = [group.create_task(self._serve(info, outlet)) for info in found]
                if self.config.session is not None:
                    await asyncio.gather(*tasks)
                    if not self._again:
                        return
                await self.sleep(self.config.poll)

    async def _look(self) -> list[SessionInfo]:
        """The sessions to begin with now."""
        now = self.clock.monotonic()
        if self.config.session is not None:
            if self._again.get(self.config.session, 0.0) > now:
                return []
            return [await self._sessions().get(self.config.session)]
        since = (self.clock.now() - self.config.lookback) * 1000
        found = []
        async for info in self._sessions().list(limit=LISTED):
            if (parse_time(info.created_at) or since) < since:
                break
            if info.id not in self._known and self._again.get(info.id, 0.0) <= now:
                self._known[info.id] = True
                found.append(info)
        return found[::-1]

    def _failed(self, error: PipelineError) -> float:
        """Tell that sessions cannot be listed; return the seconds to wait."""
        self.report.error(error.code)
        if isinstance(error, PermanentError):
            self.report.state("failed", str(error), error.code)
            return self._slow.next()
        self.report.state("degraded", str(error), error.code)
        after = error.after if isinstance(error, TemporaryError) else None
        return max(self._backoff.next(), after or 0.0)

    async def _serve(self, info: SessionInfo, outlet: Outlet) -> None:
        """Follow one session when it is its turn, and forget it where that failed, so that it is tried again."""
        async with self._turns:
            if self.stopping.is_set():
                return
            try:
                await self._follow(info, outlet)
            except PipelineError as error:
                self.report.error(error.code)
                self.log.warning("A session cannot be followed; it is tried again.", session=info.id, error=str(error))
                self._again[info.id] = self.clock.monotonic() + self._slow.base
                self._known.pop(info.id, None)
                return
        self._again.pop(info.id, None)
        self._known[info.id] = False
        while len(self._known) > KNOWN:
            oldest = next((name for name, active in self._known.items() if not active), None)
            if oldest is None:
                break
            del self._known[oldest]

    async def _follow(self, info: SessionInfo, outlet: Outlet) -> None:
        """Send all messages of a session, and at last its end. Raises a `PipelineError`."""
        seen, told = Seen(), False
        if info.status != "ended":
            options = SocketOptions(view=self.config.view)
            async with self._account().ai.attach(info.id, options, history=True) as live, self._closing(live):
                try:
                    async for messages in live.batches():
                        await self._send(messages, info, seen, outlet)
                        told = told or any(message.type == SESSION_END for message in messages)
                finally:
                    self._count(live)
            if told or live.ended is None:
                return
        # It ended while nobody looked: what is known of it comes from its history.
        await self._read_past(info, seen, outlet)

    async def _read_past(self, info: SessionInfo, seen: Seen, outlet: Outlet) -> None:
        try:
            past = [message for message in await self._sessions().history(info.id) if message.type not in URLS]
        except NotFoundError:
            past = []
        if not any(message.type == SESSION_END for message in past):
            with contextlib.suppress(NotFoundError):
                info = await self._sessions().get(info.id)
            past.append(_end_of(info))
        await self._send(past, info, seen, outlet)

    async def _send(self, messages: Sequence[Message], info: SessionInfo, seen: Seen, outlet: Outlet) -> None:
        oid = self._account().oid
        fresh = [make_record(message, info, oid) for message in messages if seen.add(message.id)]
        if fresh:
            await outlet.send(fresh)

    @contextlib.asynccontextmanager
    async def _closing(self, live: Follower) -> AsyncIterator[None]:
        """Leave the session at a stop: what was read is still given, then there is no more."""

        async def close() -> None:
            await self.stopping.wait()
            await live.close()

        task = asyncio.create_task(close())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def _count(self, live: Follower) -> None:
        for gap in live.gaps:
            self.report.gap(gap.begin, gap.end, gap.reason, org=self.org.name)
        for name, amount in (
            ("reconnects", live.connections - 1),
            ("repeated_messages", live.duplicates),
            ("malformed_frames", live.malformed),
        ):
            if amount > 0:
                self.report.count(name, amount)

    def _sessions(self) -> Sessions | OrgSessions:
        ai = self._account().ai
        return ai.org_sessions if self.config.view == "org" else ai.sessions

    def _account(self) -> LimaCharlie:
        account = self.org.account
        if not isinstance(account, LimaCharlie):
            raise AuthenticationError(
                "There are no LimaCharlie credentials.", where=self.id, fix="Set LC_OID and LC_API_KEY."
            )
        return account


def _end_of(info: SessionInfo) -> Message:
    """The last message of a session whose transcript has none; with the id that it has wherever it was given."""
    payload = {"reason": info.end_reason, "exit_code": info.exit_code}
    found = parse({"type": SESSION_END, "timestamp": info.terminated_at, "session_id": info.id, "payload": payload})
    assert found is not None
    return found
