"""Source `spout`: pulls one stream of one organization, over HTTPS or a WebSocket."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import ClassVar, Literal, Self

from pydantic import ValidationInfo, field_validator, model_validator

from pipeline.core.component import Context, Org
from pipeline.core.config import Field, Section, SourceConfig
from pipeline.core.errors import (
    AuthenticationError,
    PermanentError,
    PermissionDeniedError,
    PipelineError,
    TemporaryError,
    UnavailableError,
)
from pipeline.core.lines import Lines
from pipeline.core.source import Outlet, Past, Source
from pipeline.core.types import Duration
from pipeline.kit.backoff import Backoff
from pipeline.limacharlie.backfill import Backfill, Selection, check_backfill, fetch
from pipeline.limacharlie.client import LimaCharlie
from pipeline.limacharlie.credentials import STREAM_PERMISSIONS
from pipeline.limacharlie.feed import CAUSE, Feed, Subscription
from pipeline.limacharlie.outputs import wire
from pipeline.limacharlie.stream import SpoutParser
from pipeline.limacharlie.token import Token

STREAMS = ("event", "detect", "audit", "deployment", "billing")
SETTLED = 10.0
"""Seconds that a connection must have been live before the waits between connections start small again."""
JUST_AFTER = 1.0
"""Seconds after reading was held up in which the end of a connection counts as its consequence."""
LAST_WORDS = 2.0
"""Seconds in which, when we are cancelled, the connection comes to its end."""
MAX_RENEWALS = 3
"""Tokens in a row that may be replaced after a refusal although the stream was confirmed in between."""
_OWN_FIELDS = frozenset({"type", "jwt", "api_key", "uid", "oid", "secret", "tag", "cat", "sid", "inv_id"})


class ReconnectConfig(Section):
    """Waits between connections: exponential with full jitter."""

    base: Duration = Field(0.5, gt=0)
    """The first wait is at most this."""
    cap: Duration = Field(60.0, gt=0)
    """No wait is longer than this, unless LimaCharlie asks for more."""
    refused_base: Duration = Field(60.0, gt=0)
    """The first wait after a refusal (wrong key, missing permission) is at most this."""
    refused_cap: Duration = Field(900.0, gt=0)
    """No wait after a refusal is longer than this."""


class SpoutConfig(SourceConfig):
    """Pull a stream from LimaCharlie; made for detections, audit and moderate telemetry. Large streams want a `firehose`.

    LimaCharlie keeps nothing for a reader that is away: what a lost connection missed is recorded as a gap.
    """

    type: Literal["spout"] = "spout"
    """Which component this is."""
    transport: Literal["https", "websocket"] = "https"
    """How the stream travels. Both carry the same records; a WebSocket gets through where a proxy holds back long answers."""
    host: Literal["stream-tmp", "stream"] = "stream-tmp"
    """For `transport: https`, the service to ask: `stream-tmp` confirms when the subscription is in force, `stream` does not. A
    WebSocket is always had from `stream`, and confirms."""
    tag: str | None = None
    """Only sensors with this tag."""
    cat: str | None = None
    """Only detections of this category."""
    sid: str | None = None
    """Only this sensor."""
    inv_id: str | None = None
    """Only records of this investigation."""
    options: dict[str, str | bool | int | list[str]] = Field(default_factory=dict)
    """Further options of a LimaCharlie Output, such as `event_white_list`."""
    connect_timeout: Duration = Field(10.0, gt=0)
    """How long the answer, and then the confirmation, may take."""
    idle_timeout: Duration = Field(121.0, gt=0)
    """A connection without a byte for this long is dead: two keep-alives and one second."""
    reconnect: ReconnectConfig = ReconnectConfig()
    """Waits between connections."""
    backfill: Backfill = False
    """Fetch what was missed from LimaCharlie's history, each gap `delay` (5m) after its end, with a `margin` (60s) on both sides.
    Needs `dedupe` on the routes of this source, and a disk spool; of events, detections and the audit trail."""

    @field_validator("backfill")
    @classmethod
    def _kept(cls, backfill: Backfill, info: ValidationInfo) -> Backfill:
        known = info.data
        return check_backfill(
            backfill,
            stream=known.get("stream", "event"),
            text=known.get("format") == "text",
            options=known.get("options", {}),
        )

    @field_validator("options")
    @classmethod
    def _not_ours(cls, options: dict[str, str | bool | int | list[str]]) -> dict[str, str | bool | int | list[str]]:
        if taken := sorted(_OWN_FIELDS & options.keys()):
            raise ValueError(f"{', '.join(taken)}: set by the source's own keys or by the credentials")
        return options

    @model_validator(mode="after")
    def _one_host(self) -> Self:
        if self.transport == "websocket" and "host" in self.model_fields_set:
            raise ValueError("`host` is for `transport: https`; a WebSocket is always had from `stream`")
        return self

    def subscription(self) -> Subscription:
        """The request that this section describes."""
        fields = {"tag": self.tag, "cat": self.cat, "sid": self.sid, "inv_id": self.inv_id, **self.options}
        return Subscription(
            stream=self.stream,
            host=self.host,
            options={name: text for name, value in fields.items() if (text := wire(value))},
            connect_timeout=self.connect_timeout,
            idle_timeout=self.idle_timeout,
            transport=self.transport,
            # What is larger than a record may be is read and refused; what is far larger ends the connection.
            max_message=4 * self.max_record,
        )


class Spout(Source[SpoutConfig]):
    """Keeps one connection open for as long as the process lives, and knows when it had none."""

    per_org: ClassVar[bool] = True
    tells_state: ClassVar[bool] = True
    misses_while_away: ClassVar[bool] = True

    def __init__(self, config: SpoutConfig, context: Context) -> None:
        super().__init__(config, context)
        waits = config.reconnect
        self._backoff = Backoff(waits.base, waits.cap)
        self._slow = Backoff(waits.refused_base, waits.refused_cap)
        self._live_since: float | None = None
        """When the connection was confirmed (monotonic seconds)."""
        self._refusal: tuple[Token, str] | None = None
        """The token that the last connection was refused with, and LimaCharlie's words: worth one try with another token."""
        self._renewals = 0

    @classmethod
    def needs_account(cls, config: SpoutConfig) -> bool:
        """Every stream is opened with a token."""
        del config
        return True

    async def open(self) -> None:
        """Say so when the stream's name is not one that LimaCharlie documents."""
        if self.config.stream not in STREAMS:
            self.log.warning(
                "The stream is not a known one; LimaCharlie decides.", stream=self.config.stream, known=STREAMS
            )

    def history(self, org: Org, start: float, end: float, progress: str) -> AsyncIterator[Past]:
        del org  # there is one
        config = self.config
        selection = Selection(
            config.stream, tag=config.tag, cat=config.cat, sid=config.sid, inv_id=config.inv_id, options=config.options
        )
        return fetch(self._account(), selection, start, end, progress)

    async def check(self) -> None:
        """Get a token and look for a permission on Outputs. Raises a `PipelineError`."""
        permissions = (await self._account().transport.tokens.get()).permissions
        if permissions is not None and not any(name.startswith("output.") for name in permissions):
            raise PermissionDeniedError(
                "The API key cannot open a stream.", where=self.id, fix=f"Give it the permissions {STREAM_PERMISSIONS}."
            )

    async def run(self, outlet: Outlet) -> None:
        """Stream until `stopping`; every way in which a connection can end leads to the next one, after a wait."""
        while not self.stopping.is_set():
            await self.sleep(await self._connection(outlet))

    async def _connection(self, outlet: Outlet) -> float:
        """Hold one connection from request to end; return the seconds to wait before the next one."""
        feed: Feed | None = None
        began = self.clock.now()
        try:
            feed = self._account().subscribe(self.config.subscription(), refusal=self._refusal)
            error = await self._attend(feed, outlet)
        except PipelineError as failure:
            error = failure
        finally:
            if feed is not None:
                feed.close()
        if self.stopping.is_set():
            return 0.0
        return self._lost(error, feed, began, full=outlet.waiting)

    def _account(self) -> LimaCharlie:
        account = self.org.account
        if not isinstance(account, LimaCharlie):
            raise AuthenticationError(
                "There are no LimaCharlie credentials.", where=self.id, fix="Set LC_OID and LC_API_KEY."
            )
        return account

    async def _attend(self, feed: Feed, outlet: Outlet) -> PipelineError:
        """Open the feed and move what it brings; return why it is over."""
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._stop(feed))]
            try:
                await feed.open()
                tasks.append(group.create_task(feed.pump()))
                error = await self._receive(feed, outlet)
            except PipelineError as failure:
                # Caught inside of the group, which would wrap it.
                error = failure
            finally:
                for task in tasks:
                    task.cancel()
        return error

    async def _stop(self, feed: Feed) -> None:
        await self.stopping.wait()
        feed.stop()

    async def _receive(self, feed: Feed, outlet: Outlet) -> PipelineError:
        """Parse and send until the feed ends or LimaCharlie refuses; return why it is over."""
        scrub = self._account().transport.scrub
        parser = SpoutParser(self.config.max_record, text=self.config.format == "text", scrub=scrub)
        parser.live = self.config.transport == "https" and self.config.host == "stream"
        try:
            return await self._move(feed, parser, outlet)
        except asyncio.CancelledError:
            await self._give_up(feed, parser, outlet)
            raise

    async def _move(self, feed: Feed, parser: SpoutParser, outlet: Outlet) -> PipelineError:
        confirmed_by = asyncio.get_running_loop().time() + self.config.connect_timeout
        before = feed.last_byte
        while True:
            if parser.live:
                self._confirmed()
            try:
                async with asyncio.timeout_at(None if parser.live else confirmed_by):
                    chunks = await feed.chunks()
            except TimeoutError:
                return UnavailableError("The subscription was not confirmed in time.", where=self.id)
            now = feed.last_byte
            records = Lines.joined([Lines.of(parser.feed(chunk)) for chunk in chunks])
            ending = None if chunks else feed.ending
            if ending is not None:
                records = Lines.of([*records, *parser.finish(orderly=ending.orderly)])
            self._count(parser, outlet, before, now)
            before = now
            if records:
                await outlet.send(records)
            if parser.live:
                self.report.heard(now, org=self.org.name)
            if parser.error is not None:
                return parser.error
            if ending is not None:
                text = f": {ending.text}" if ending.text else ""
                return UnavailableError(f"The connection is over ({ending.reason}{text}).", where=self.id)

    async def _give_up(self, feed: Feed, parser: SpoutParser, outlet: Outlet) -> None:
        """Refuse what was read and not sent; what is being sent is the outlet's."""
        feed.stop()
        before = feed.last_byte
        # At a stop the feed has mostly ended long ago, and nothing here waits.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LAST_WORDS):
                while chunks := await feed.chunks():
                    for record in (record for chunk in chunks for record in parser.feed(chunk)):
                        outlet.refuse(record, "shutdown")
        for record in parser.finish(orderly=False):
            outlet.refuse(record, "shutdown")
        self._count(parser, outlet, before, feed.last_byte)

    def _count(self, parser: SpoutParser, outlet: Outlet, before: float, now: float) -> None:
        """Report what the parser met besides records."""
        for head in parser.oversize:
            outlet.refuse(head, "oversize")
        parser.oversize.clear()
        if parser.dropped:
            self.report.upstream_dropped(parser.dropped, org=self.org.name)
            self.report.gap(before, now, "dropped", org=self.org.name, records=parser.dropped)
            parser.dropped = 0
        if parser.cut:
            self.report.count("cut_records")
            parser.cut = 0

    def _confirmed(self) -> None:
        """The subscription is in force."""
        if self._live_since is None:
            self._live_since = self.clock.monotonic()
            self._refusal = None
            self.report.gap_closed(org=self.org.name)
            self.report.state("ok", "Connected.")

    def _lost(self, error: PipelineError, feed: Feed | None, began: float, *, full: bool) -> float:
        """Take note of a connection that is over or never came about; return the seconds to wait."""
        since, self._live_since = self._live_since, None
        if since is not None and self.clock.monotonic() - since >= SETTLED:
            self._backoff.reset()
            self._slow.reset()
            self._renewals = 0
        lived = feed is not None and since is not None
        start, reason = self._new_gap(feed, full=full) if feed is not None and lived else (began, "connect")
        self.report.gap_opened(start, reason, org=self.org.name)
        if (
            isinstance(error, AuthenticationError | PermissionDeniedError)
            and feed is not None
            and feed.token is not None
        ):
            error = self._refused(error, feed.token)
        self.report.error(error.code)
        if isinstance(error, PermanentError):
            self.report.state("failed", str(error), error.code)
            return self._slow.next()
        self.report.state("degraded", str(error), error.code)
        wait = self._backoff.next()
        after = error.after if isinstance(error, TemporaryError) else None
        return wait if after is None else after + wait

    def _new_gap(self, feed: Feed, *, full: bool) -> tuple[float, str]:
        """From when on records may be missing, and why."""
        ending = feed.ending
        if full or self.clock.monotonic() - feed.held_until < JUST_AFTER:
            # What the other side had ready while nobody read may have gone down with the connection.
            return feed.last_byte, "spool_full"
        if ending is None:
            return feed.last_byte, "refused"
        return (feed.ended_at if ending.orderly else feed.last_byte), ending.reason

    def _refused(self, error: PipelineError, token: Token) -> PipelineError:
        """A first refusal may mean an old token, and another one is tried; after that it is the permission."""
        if self._refusal is None and self._renewals < MAX_RENEWALS:
            self._renewals += 1
            self._refusal = (token, error.what)
            return UnavailableError(f"{error.what} Trying again with another token.", where=self.id)
        self._refusal, self._renewals = None, 0
        self._account().transport.tokens.deny(token, CAUSE, error.what)
        return PermissionDeniedError(
            error.what, where=self.id, fix=f"Give the API key the permissions {STREAM_PERMISSIONS}."
        )
