"""Who is connected to the `firehose` source: whose each connection is, which one gives way, and which organization has none."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from pipeline.core.component import Context
from pipeline.core.handover import Presence
from pipeline.core.source import Outlet
from pipeline.kit.tls_server import End
from pipeline.sources.firehose_connection import Connection

DRAIN = 3.0
"""Seconds in which, at the stop, peers may end their side and we read what the kernel holds, as far as the spool takes it."""
QUIET = 0.25
"""Seconds without a byte after which, at the stop, a peer has nothing more for us."""
STALE = 1.0
"""Seconds without a byte after which a connection may give way to a new one, where nothing tells peers from strangers."""


class Peers:
    """The connections of one process; each is a task. Implements `pipeline.sources.firehose_connection.Host`.

    A gap is from the last connection of an organization to the next one, in all processes that share the listener.
    """

    def __init__(self, context: Context, limit: int) -> None:
        """``limit``: how many there may be at once."""
        self._log = context.log
        self._clock = context.clock
        self._report = context.report
        self._stopping = context.stopping
        self._handover = context.handover
        self._limit = limit
        self._connections: dict[Connection, str | None] = {}
        """Open connections in the order they came, with their organization once they brought a record."""
        self._presence: Presence = {}
        """Connections of each organization, in all processes."""
        self._tells_strangers = False
        self._group: asyncio.TaskGroup | None = None
        """Where connections run; None while none is taken."""

    def __iter__(self) -> Iterator[Connection]:
        return iter(list(self._connections))

    def __len__(self) -> int:
        return len(self._connections)

    def start(self, group: asyncio.TaskGroup, *, tells_strangers: bool) -> None:
        """Take connections from now on. ``tells_strangers``: whether a peer can prove that it is none."""
        self._tells_strangers = tells_strangers
        self._group = group

    def stop(self) -> None:
        """Take none any more, and tell what is left unread; those that are still here count as gone. Safe to call twice."""
        if self._group is not None:
            self._group = None
            self._tell_unread()
            self._recount()

    def of(self, org: str) -> int:
        """Open connections that are, or may turn out to be, of this organization."""
        if self._handover is not None:
            return self._presence.get(org, 0) + self._presence.get(None, 0)
        return sum(name in (org, None) and one.usable for one, name in self._connections.items())

    async def drain(self, outlet: Outlet) -> None:
        """Read what the kernel holds of them, when no new one comes; a full spool does not use up their time."""
        loop = asyncio.get_running_loop()
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

    async def close_idle(self, timeout: float) -> None:
        """Let go of those that bring nothing for so long, until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(min(timeout / 4, 5.0))
            for connection in list(self._connections):
                if connection.at_rest and loop.time() - connection.last > timeout:
                    self._report.count("idle")
                    connection.stop_reading()

    def changed(self, presence: Presence) -> None:
        """These are the connections of each organization now, in all processes."""
        before, self._presence = self._presence, presence
        for org in {*before, *presence} - {None}:
            assert org is not None
            if self._handover is not None:
                # The records of other processes are in their spools; this one hears of their connections only.
                self._report.heard(self._clock.now(), org=org)
            if presence.get(org):
                self._report.gap_closed(org=org)
            # Whom we send away because we stop was here to the end.
            elif not self._stopping.is_set():
                self._report.gap_opened(self._clock.now(), "no_connection" if self._group else "listener_down", org=org)

    # What a connection tells us.

    def connected(self, connection: Connection) -> bool:
        if self._group is None:
            return False
        if len(self._connections) >= self._limit:
            idle = self._dispensable()
            self._report.count("too_many_connections")
            self._log.warning("There are too many connections.", limit=self._limit)
            if idle is None:
                return False
            idle.drop("gave_way")
            self._left(idle)
        self._connections[connection] = None
        self._group.create_task(self._serve(connection))
        return True

    def secured(self, connection: Connection) -> None:
        del connection
        self._report.count("connection")
        self._recount()

    def named(self, connection: Connection, org: str) -> None:
        if connection in self._connections:
            self._connections[connection] = org
        self._recount()

    def over(self, connection: Connection, end: End, error: BaseException | None) -> None:
        self._report.count(end)
        self._recount()
        if end in ("handshake", "broken"):
            self._report.error("tls")
            self._log.warning("A TLS connection failed.", peer=connection.peer, end=end, error=str(error or "cut off"))

    def stranger(self, connection: Connection, reason: str) -> None:
        self._report.count(reason)
        if reason == "no_oid":
            self._log.error(
                "A connection was closed: its records name no organization, and there are several.",
                peer=connection.peer,
                fix="Leave routing in the Output's records, or give each organization its own source.",
            )
        elif reason == "tls":
            self._log.error(
                "A connection was closed: the peer speaks TLS, and this listener is plain TCP.",
                peer=connection.peer,
                fix="Leave `tls: off` out, or set is_tls to false in the Output; a balancer must end TLS itself.",
            )
        elif reason != "gave_way":
            self._log.warning("A connection was closed.", peer=connection.peer, reason=reason)

    # The rest is our own.

    async def _serve(self, connection: Connection) -> None:
        try:
            await connection.work()
        except BaseException:
            # It was cut off, or its fault cuts the others off: nobody left by himself.
            self.stop()
            raise
        finally:
            self._left(connection)

    def _left(self, connection: Connection) -> None:
        self._connections.pop(connection, None)
        self._recount()

    def _recount(self) -> None:
        """Count the connections of each organization, here or with the other processes."""
        presence: dict[str | None, int] = {}
        if self._group is not None:
            for connection, org in self._connections.items():
                if org is not None or connection.usable:
                    presence[org] = presence.get(org, 0) + 1
        if self._handover is not None:
            self._handover.tell(presence)
        else:
            self.changed(presence)

    def _dispensable(self) -> Connection | None:
        """The connection that makes room for a new one: the oldest that is quiet and may be a stranger's."""
        now = asyncio.get_running_loop().time()
        at_rest = [one for one in self._connections if one.at_rest]
        unproven = next((one for one in at_rest if not one.proven), None)
        if unproven is not None or self._tells_strangers:
            return unproven
        return next((one for one in at_rest if now - one.last > STALE and not one.unread), None)

    def _tell_unread(self) -> None:
        """Bytes that we leave unread are records that are missing, since the last that were taken."""
        unread = {one: size for one in self._connections if (size := one.unread)}
        if not unread:
            return
        self._log.error("There was no time to read all that peers sent.", bytes=sum(unread.values()))
        if self._handover is not None and not self._handover.leads:  # only the one that leads knows when a gap ends
            return
        offset = self._clock.now() - asyncio.get_running_loop().time()
        for connection in sorted(unread, key=lambda one: one.taken):
            org = self._connections[connection]
            if org is not None:
                self._report.gap_opened(offset + connection.taken, "unread", org=org)
