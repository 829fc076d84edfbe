"""Source `firehose`: LimaCharlie connects to our port and pushes."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Coroutine
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from pydantic import ValidationInfo, field_validator, model_validator

from pipeline.core.component import Context, Org
from pipeline.core.config import Field, SourceConfig, Tls
from pipeline.core.errors import ConfigError, RequestRefusedError
from pipeline.core.handover import Handover, Presence
from pipeline.core.source import Outlet, Past, Source
from pipeline.core.types import Duration, Listen, Secret, Size
from pipeline.kit.certificates import CertificateFiles, self_signed_context
from pipeline.kit.framing import Framer
from pipeline.kit.listener import BACKLOG, bind
from pipeline.kit.tls_server import Buffers, End
from pipeline.limacharlie.backfill import Backfill, Selection, check_backfill, fetch
from pipeline.sources.firehose_budget import Budget
from pipeline.sources.firehose_connection import Admission, Connection
from pipeline.sources.firehose_output import OutputConfig

if TYPE_CHECKING:  # it imports an HTTP client
    from pipeline.sources.firehose_registration import Registration

CERTIFICATE_CHECK = 2.0
"""Seconds between two looks at the certificate files."""
DRAIN = 3.0
"""Seconds in which, at the stop, peers may end their side and we read what the kernel holds, as far as the spool takes it."""
QUIET = 0.25
"""Seconds without a byte after which, at the stop, a peer has nothing more for us."""
STALE = 1.0
"""Seconds without a byte after which a connection may give way to a new one, where nothing tells peers from strangers."""


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
        self._files: CertificateFiles | None = None
        self._tls: ssl.SSLContext | None = None
        self._admission = Admission({}, None, verify=False)
        self._budget = Budget(config.max_unparsed)
        self._connections: dict[Connection, str | None] = {}
        """Open connections in the order they came, with their organization once they brought a record."""
        self._presence: Presence = {}
        """Connections of each organization, in all processes."""
        self._group: asyncio.TaskGroup | None = None
        self._open = False
        """Whether connections are taken."""

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
        await self._load_certificate()
        if (handover := self._context.handover) is not None:
            self.address = handover.address
            if handover.leads:
                handover.follow(self._changed)
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
        self.log.info("Listening for LimaCharlie.", address=str(self.address), tls=self._tls is not None)

    async def run(self, outlet: Outlet) -> None:
        if not self._sockets and self._context.handover is None:
            await self.open()
        try:
            async with asyncio.TaskGroup() as self._group:
                await self._listen(self._group, outlet)
        finally:
            self._group = None

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
        await self._load_certificate()
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
            for sock in self._sockets:
                self._servers.append(
                    await loop.create_server(lambda: self._connection(outlet, buffers), sock=sock, backlog=BACKLOG)
                )
            self._open = True
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
            await self._drain(outlet)
        finally:
            self._open = False
            # Before the group waits for its connections: it must get no new ones.
            await self.close()
            self._tell_unread()

    def _tell_unread(self) -> None:
        """Bytes that we leave unread are records that are missing, since the last that were taken."""
        unread = {one: size for one in self._connections if (size := one.unread)}
        if not unread:
            return
        self.log.error("There was no time to read all that peers sent.", bytes=sum(unread.values()))
        handover = self._context.handover
        if handover is not None and not handover.leads:  # only the one that leads knows when a gap ends
            return
        offset = self.clock.now() - asyncio.get_running_loop().time()
        for connection in sorted(unread, key=lambda one: one.taken):
            org = self._connections[connection]
            if org is not None:
                self.report.gap_opened(offset + connection.taken, "unread", org=org)

    # What a connection tells us.

    def connected(self, connection: Connection) -> bool:
        if self._group is None or not self._open:
            return False
        if len(self._connections) >= self.config.max_connections:
            idle = self._dispensable()
            self.report.count("too_many_connections")
            self.log.warning("There are too many connections.", limit=self.config.max_connections)
            if idle is None:
                return False
            idle.drop("gave_way")
            self._left(idle)
        self._connections[connection] = None
        self._group.create_task(self._serve(connection))
        return True

    def secured(self, connection: Connection) -> None:
        del connection
        self.report.count("connection")
        self._recount()

    def named(self, connection: Connection, org: str) -> None:
        if connection in self._connections:
            self._connections[connection] = org
        self._recount()

    def over(self, connection: Connection, end: End, error: BaseException | None) -> None:
        self.report.count(end)
        self._recount()
        if end in ("handshake", "broken"):
            self.report.error("tls")
            self.log.warning("A TLS connection failed.", peer=connection.peer, end=end, error=str(error or "cut off"))

    def stranger(self, connection: Connection, reason: str) -> None:
        self.report.count(reason)
        if reason == "no_oid":
            self.log.error(
                "A connection was closed: its records name no organization, and there are several.",
                peer=connection.peer,
                fix="Leave routing in the Output's records, or give each organization its own source.",
            )
        elif reason != "gave_way":
            self.log.warning("A connection was closed.", peer=connection.peer, reason=reason)

    # The rest is our own.

    def _connection(self, outlet: Outlet, buffers: Buffers) -> Connection:
        config = self.config
        token = config.token.get_secret_value().encode() if config.token else b""
        return Connection(
            self,
            outlet,
            self._admission,
            Framer(config.max_record, text=config.format == "text", token=token),
            self._budget,
            buffers,
            self._files.context if self._files else self._tls,
            config.handshake_timeout,
        )

    async def _serve(self, connection: Connection) -> None:
        try:
            await connection.work()
        finally:
            self._left(connection)

    async def _take(self, handover: Handover, outlet: Outlet, buffers: Buffers) -> None:
        """Serve the connections that are handed over, until no more will come."""
        loop = asyncio.get_running_loop()
        while (sock := await handover.accept()) is not None:
            try:
                await loop.connect_accepted_socket(lambda: self._connection(outlet, buffers), sock)
            except OSError as error:
                sock.close()
                self.log.warning("A connection was gone before it was served.", error=error.strerror or str(error))

    def _left(self, connection: Connection) -> None:
        self._connections.pop(connection, None)
        self._recount()

    def _recount(self) -> None:
        """Count the connections of each organization, here or with the other processes."""
        presence: dict[str | None, int] = {}
        for connection, org in self._connections.items():
            if org is not None or connection.usable:
                presence[org] = presence.get(org, 0) + 1
        if self._context.handover is not None:
            self._context.handover.tell(presence)
        else:
            self._changed(presence)

    def _changed(self, presence: Presence) -> None:
        before, self._presence = self._presence, presence
        for org in {*before, *presence} - {None}:
            assert org is not None
            if self._context.handover is not None:
                # The records of other processes are in their spools; this one hears of their connections only.
                self.report.heard(self.clock.now(), org=org)
            if presence.get(org):
                self.report.gap_closed(org=org)
            # Whom we send away because we stop was here to the end.
            elif not self.stopping.is_set():
                self.report.gap_opened(self.clock.now(), "no_connection" if self._open else "listener_down", org=org)

    def _dispensable(self) -> Connection | None:
        """The connection that makes room for a new one: the oldest that is quiet and may be a stranger's."""
        now = asyncio.get_running_loop().time()
        at_rest = [one for one in self._connections if one.at_rest]
        unproven = next((one for one in at_rest if not one.proven), None)
        if unproven is not None or self._admission.tells_strangers:
            return unproven
        return next((one for one in at_rest if now - one.last > STALE and not one.unread), None)

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

    async def _load_certificate(self) -> None:
        tls = self.config.tls
        if isinstance(tls, Tls):
            try:
                self._files = await asyncio.to_thread(CertificateFiles, tls.cert, tls.key)
            except OSError as error:
                raise ConfigError(
                    f"{tls.cert} and {tls.key} cannot be used: {error}",
                    where=f"sources.{self.id}.tls",
                    fix="They must be PEM, belong together and be readable.",
                ) from error
            self._tls = self._files.context
        elif tls is None:
            names = ["localhost", "127.0.0.1", "::1"]
            if self.config.output is not None:
                names.append(self.config.output.host)
            self._tls = await asyncio.to_thread(self_signed_context, names)

    def _chores(self) -> list[Coroutine[Any, Any, None]]:
        chores: list[Coroutine[Any, Any, None]] = []
        if self._files is not None:
            chores.append(self._watch_certificate(self._files))
        if self.config.idle_timeout is not None:
            chores.append(self._close_idle(self.config.idle_timeout))
        return chores

    async def _watch_certificate(self, files: CertificateFiles) -> None:
        while True:
            await asyncio.sleep(CERTIFICATE_CHECK)
            try:
                changed = await asyncio.to_thread(files.refresh)
            except OSError as error:
                self.report.error("config")
                self.log.error(  # noqa: TRY400 - a trace says nothing about a file
                    "The new certificate cannot be used; the old one stays.", error=str(error), fix="Put a whole pair."
                )
            else:
                if changed:
                    self.log.info("The certificate was loaded again.")

    async def _close_idle(self, timeout: float) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(min(timeout / 4, 5.0))
            for connection in list(self._connections):
                if connection.at_rest and loop.time() - connection.last > timeout:
                    self.report.count("idle")
                    connection.stop_reading()

    def _registration(self) -> Registration | None:
        handover = self._context.handover
        if self.config.output is None or (handover is not None and not handover.leads):
            return None
        from pipeline.sources.firehose_registration import Registration

        config = self.config.output
        output = config.output(self.config.stream, tls=self.config.tls, token=self.config.token)
        return Registration(config, output, self, self._connections_of)

    def _connections_of(self, org: str) -> int:
        """Open connections that are, or may turn out to be, of this organization."""
        if self._context.handover is not None:
            return self._presence.get(org, 0) + self._presence.get(None, 0)
        return sum(name in (org, None) and one.usable for one, name in self._connections.items())

    async def _drain(self, outlet: Outlet) -> None:
        """Take no new connection, and read what the kernel holds of the others; a full spool does not use up their time."""
        loop = asyncio.get_running_loop()
        # One more round of the loop accepts what waits in the backlog.
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        await self.close()
        started = loop.time()
        for connection in self._connections:
            connection.finish()
        left, before = DRAIN, started
        while self._connections and left > 0:
            await asyncio.sleep(0.02)
            now = loop.time()
            left -= 0.0 if outlet.waiting else now - before
            before = now
            for connection in list(self._connections):
                quiet = loop.time() - max(started, connection.last) > QUIET
                if quiet and connection.at_rest and not connection.unread:
                    connection.stop_reading()
        for connection in list(self._connections):
            connection.stop_reading()
