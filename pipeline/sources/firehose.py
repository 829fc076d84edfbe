"""Source `firehose`: LimaCharlie connects to our port and pushes."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Coroutine
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from pydantic import ValidationInfo, field_validator, model_validator

from pipeline.core.component import Context, Org
from pipeline.core.config import Field, SourceConfig, Tls
from pipeline.core.errors import ConfigError, RequestRefusedError
from pipeline.core.handover import Handover
from pipeline.core.source import Outlet, Past, Source
from pipeline.core.types import Duration, Listen, Secret, Size
from pipeline.kit.framing import Framer
from pipeline.kit.listener import BACKLOG, bind
from pipeline.kit.tls_server import Buffers
from pipeline.limacharlie.backfill import Backfill, Selection, check_backfill, fetch
from pipeline.sources.firehose_budget import Budget
from pipeline.sources.firehose_certificate import Certificate
from pipeline.sources.firehose_connection import Admission, Connection
from pipeline.sources.firehose_output import OutputConfig
from pipeline.sources.firehose_peers import Peers

if TYPE_CHECKING:  # it imports an HTTP client
    from pipeline.sources.firehose_registration import Registration


class FirehoseConfig(SourceConfig):
    """Listen for LimaCharlie's syslog Outputs; made for large streams.

    LimaCharlie cannot identify itself to a listener: the oid of the records, and a `token` in the header, tell it from strangers.
    A listener that is slow or away loses records upstream; the spool behind this source decides how long it stays quick.
    """

    type: Literal["firehose"] = "firehose"
    """Which component this is."""
    listen: Listen = Listen("", 4443)
    """Where to listen: `host:port`; `:port` and `[::]:port` are IPv4 and IPv6 together. Port 0 picks a free one."""
    tls: Tls | Literal["off"] | None = None
    """The certificate. Without it one is made at each start; `off` is plain TCP, behind a balancer that ends TLS."""
    output: OutputConfig | None = None
    """The Output to register in each organization; without it you register them yourself."""
    allow_oids: list[str] | None = None
    """The organization ids whose records are taken; default: those of `orgs`, where known."""
    verify_oid: bool = False
    """Check the oid of every record (each is decoded for it) instead of the first one of a connection."""
    token: Secret | None = None
    """A text that must appear in the structured data of every record's header. `output` registers it."""
    max_connections: int = Field(256, gt=0)
    """Connections at once. When there is no more room, the oldest quiet one gives way that brought neither an allowed oid nor the
    token."""
    idle_timeout: Duration | None = Field(None, gt=0)
    """Close a connection without a byte for this long. Off by default: a quiet stream is silent for hours, and TCP keep-alives find
    peers that are gone."""
    handshake_timeout: Duration = Field(10.0, gt=0)
    """How long TLS may take to agree."""
    max_unparsed: Size = Field(32 << 20, gt=0)
    """Bytes that all connections together may hold before the spool has them; over it they take turns."""
    backfill: Backfill = False
    """Fetch what was missed from LimaCharlie's history, each gap `delay` (5m) after its end, with a `margin` (60s) on both sides.
    Needs `output`, `dedupe` on the routes of this source, and a disk spool; of events, detections and the audit trail."""

    @field_validator("backfill")
    @classmethod
    def _kept(cls, backfill: Backfill, info: ValidationInfo) -> Backfill:
        output = info.data.get("output")
        if backfill is not False and output is None:
            raise ValueError("without `output` nothing says which records LimaCharlie would have sent")
        return check_backfill(
            backfill,
            stream=info.data.get("stream", "event"),
            text=info.data.get("format") == "text",
            options=output.options if output is not None else {},
        )

    @field_validator("tls", mode="before")
    @classmethod
    def _yaml_off(cls, value: Any) -> Any:
        return "off" if value is False else value

    @field_validator("allow_oids")
    @classmethod
    def _lower(cls, oids: list[str] | None) -> list[str] | None:
        return [oid.strip().lower() for oid in oids] if oids is not None else None

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.max_unparsed < self.max_record:
            raise ValueError("max_unparsed must hold at least one record of max_record")
        if self.token is not None and not self.token.get_secret_value():
            raise ValueError("token is empty")
        return self


class Firehose(Source[FirehoseConfig]):
    """One listener for all organizations; each connection is a task that sends what it reads."""

    shared: ClassVar[bool] = True
    misses_while_away: ClassVar[bool] = True

    def __init__(self, config: FirehoseConfig, context: Context) -> None:
        super().__init__(config, context)
        self.address: Listen | None = None
        """Where it listens, once open."""
        self._sockets: list[socket.socket] = []
        self._servers: list[asyncio.Server] = []
        names = ["localhost", "127.0.0.1", "::1", *([config.output.host] if config.output is not None else ())]
        self._certificate = Certificate(config.tls, names, context)
        self._admission = Admission({}, None, verify=False)
        self._budget = Budget(config.max_unparsed)
        self._peers = Peers(context, config.max_connections)

    @classmethod
    def needs_account(cls, config: FirehoseConfig) -> bool:
        return config.output is not None  # which `backfill` needs as well

    @classmethod
    def share(cls, config: FirehoseConfig, workers: int) -> FirehoseConfig:
        unparsed = max(config.max_record, config.max_unparsed // workers)
        connections = -(-config.max_connections // workers)
        return config.model_copy(update={"max_unparsed": unparsed, "max_connections": connections})

    async def open(self) -> None:
        self._admission = self._admit()
        await self._certificate.load()
        if (handover := self._context.handover) is not None:
            self.address = handover.address
            if handover.leads:
                handover.follow(self._peers.changed)
            return
        # Run again after a fault, it binds the port that it had.
        wanted = self.address or self.config.listen
        try:
            self._sockets = bind(wanted.host, wanted.port)
        except OSError as error:
            raise ConfigError(
                f"cannot listen on {self.config.listen}: {error.strerror or error}", where=f"sources.{self.id}.listen"
            ) from error
        self.address = Listen(self.config.listen.host, self._sockets[0].getsockname()[1])
        self.log.info("Listening for LimaCharlie.", address=str(self.address), tls=self._certificate.tls is not None)

    async def run(self, outlet: Outlet) -> None:
        if not self._sockets and self._context.handover is None:
            await self.open()
        async with asyncio.TaskGroup() as group:
            await self._listen(group, outlet)

    def history(self, org: Org, start: float, end: float, progress: str) -> AsyncIterator[Past]:
        output = self.config.output
        if output is None or org.account is None:
            raise RequestRefusedError(
                "Without `output` nothing says which records LimaCharlie would have sent.", where=f"sources.{self.id}"
            )
        selection = Selection(
            self.config.stream,
            tag=output.tag,
            cat=output.cat,
            sid=output.sid,
            inv_id=output.inv_id,
            options=output.options,
        )
        return fetch(org.account, selection, start, end, progress)

    async def check(self) -> None:
        """Load the certificate, and look for what registering the Output needs. Raises a `PipelineError`; binds nothing."""
        self._admission = self._admit()
        await self._certificate.load()
        registration = self._registration()
        if registration is not None:
            await registration.check()

    async def close(self) -> None:
        for server in self._servers:
            server.close()
        for sock in self._sockets:
            sock.close()
        self._servers, self._sockets = [], []

    async def _listen(self, group: asyncio.TaskGroup, outlet: Outlet) -> None:
        loop = asyncio.get_running_loop()
        buffers = Buffers()
        handed: asyncio.Task[None] | None = None
        try:
            self._peers.start(group, tells_strangers=self._admission.tells_strangers)
            for sock in self._sockets:
                self._servers.append(
                    await loop.create_server(lambda: self._connection(outlet, buffers), sock=sock, backlog=BACKLOG)
                )
            if self._context.handover is not None:
                handed = group.create_task(self._take(self._context.handover, outlet, buffers))
            self.report.state("ok")
            tasks = [group.create_task(work) for work in self._chores()]
            registration = self._registration()
            if registration is not None:
                tasks.append(group.create_task(registration.keep()))
            await self.stopping.wait()
            for task in tasks:
                task.cancel()
            if registration is not None:
                await registration.withdraw()
            if handed is not None:
                await handed
            # One more round of the loop accepts what waits in the backlog.
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            await self.close()
            await self._peers.drain(outlet)
        finally:
            # Before the group waits for its connections: it must get no new ones.
            await self.close()
            self._peers.stop()

    def _connection(self, outlet: Outlet, buffers: Buffers) -> Connection:
        config = self.config
        token = config.token.get_secret_value().encode() if config.token else b""
        return Connection(
            self._peers,
            outlet,
            self._admission,
            Framer(config.max_record, text=config.format == "text", token=token),
            self._budget,
            buffers,
            self._certificate.tls,
            config.handshake_timeout,
        )

    async def _take(self, handover: Handover, outlet: Outlet, buffers: Buffers) -> None:
        """Serve the connections that are handed over, until no more will come."""
        loop = asyncio.get_running_loop()
        while (sock := await handover.accept()) is not None:
            try:
                await loop.connect_accepted_socket(lambda: self._connection(outlet, buffers), sock)
            except OSError as error:
                sock.close()
                self.log.warning("A connection was gone before it was served.", error=error.strerror or str(error))

    def _admit(self) -> Admission:
        where = f"sources.{self.id}.allow_oids"
        names = {org.oid.lower(): org.name for org in self.orgs if org.oid}
        allowed = self.config.allow_oids
        only = self.orgs[0].name if len(self.orgs) == 1 else None
        if only is None:
            if len(names) < len(self.orgs):
                raise ConfigError("with several organizations each must have an oid of its own", where=where)
            if unknown := sorted(set(allowed or ()) - names.keys()):
                raise ConfigError(f"{', '.join(unknown)} is of no organization of this source", where=where)
        if allowed is not None:
            names = {oid: names.get(oid, only or "") for oid in allowed}
        if not names and (self.config.verify_oid or allowed is not None):
            raise ConfigError("no organization id is known that a record could have", where=where)
        return Admission(names, only, self.config.verify_oid, self.config.token is not None)

    def _chores(self) -> list[Coroutine[Any, Any, None]]:
        chores = [self._certificate.watch()]
        if self.config.idle_timeout is not None:
            chores.append(self._peers.close_idle(self.config.idle_timeout))
        return chores

    def _registration(self) -> Registration | None:
        handover = self._context.handover
        if self.config.output is None or (handover is not None and not handover.leads):
            return None
        from pipeline.sources.firehose_registration import Registration

        config = self.config.output
        output = config.output(self.config.stream, tls=self.config.tls, token=self.config.token)
        return Registration(config, output, self, self._peers.of)
