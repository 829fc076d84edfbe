"""One connection of the `firehose` source: its records, whose they are, and how much it may hold."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import orjson

from pipeline.core.lines import Blocks, Lines
from pipeline.core.source import Outlet
from pipeline.kit.framing import Framer
from pipeline.kit.tls_server import Buffers, End, Receiver
from pipeline.sources.firehose_budget import Budget

HELD_MAX = 1 << 20
"""Bytes of records that wait for the first one that names the organization."""
READ_AHEAD = 512 << 10
"""Bytes of records that a connection may collect while others of it are on their way: what waits for the disk goes there together."""
_HELLO = b"\x16\x03"
"""How a peer begins that speaks TLS."""
_OBJECT_COST = 48
"""Bytes that a record costs beside its own."""


@dataclass(frozen=True, slots=True)
class Admission:
    """Whose records are taken. ``orgs`` maps each allowed oid to its organization's name; empty: anybody's are."""

    orgs: Mapping[str, str]
    only: str | None
    """The organization, where the source serves one; records without an oid are its own."""
    verify: bool
    """Look at every record, not just until the connection has a name."""
    token: bool = False
    """Only records with the token come here."""

    @property
    def tells_strangers(self) -> bool:
        """Whether anything is known that a stranger's records lack."""
        return bool(self.orgs) or self.token


class Host(Protocol):
    """What a connection tells the listener."""

    def connected(self, connection: Connection) -> bool:
        """Start `Connection.work`, or say False where there is no room for one more."""
        ...

    def secured(self, connection: Connection) -> None: ...
    def named(self, connection: Connection, org: str) -> None: ...
    def over(self, connection: Connection, end: End, error: BaseException | None) -> None: ...
    def stranger(self, connection: Connection, reason: str) -> None: ...


class Connection(Receiver):
    """Reads while its last records are on their way, about `READ_AHEAD` bytes at most."""

    def __init__(
        self,
        host: Host,
        outlet: Outlet,
        admission: Admission,
        framer: Framer,
        budget: Budget,
        buffers: Buffers,
        context: ssl.SSLContext | None,
        handshake_timeout: float,
    ) -> None:
        super().__init__(buffers, context, handshake_timeout)
        self._host = host
        self._outlet = outlet
        self._admission = admission
        self._framer = framer
        self._budget = budget
        self._parts: list[Sequence[bytes]] = []
        """Records as reads gave them."""
        self._runs: list[tuple[str, Sequence[bytes]]] = []
        """Records to send, by organization."""
        self._nameless: list[bytes] = []
        self._nameless_size = 0
        self._org = admission.only if not admission.orgs else None
        self._named = False
        self._size = 0
        self._sending_size = 0
        self._fresh = True
        """Whether nothing has come yet."""
        self._orderly = False
        self._at_end = False
        self._reads = True
        self._unwanted = ""
        self._wake: asyncio.Future[None] | None = None
        self.last = 0.0
        """Loop time of the last read."""
        self.taken = 0.0
        """Loop time at which the spool last took records of it."""
        self.proven = False
        """Whether it brought an allowed oid or the token; where neither is known, a record that was taken."""

    @property
    def sending(self) -> bool:
        """Whether records of it are on their way to the spool."""
        return self._sending_size > 0

    @property
    def held(self) -> int:
        """Bytes that are not in the spool yet."""
        return self.unfinished + self._framer.ahead + self._size + self._sending_size

    @property
    def unfinished(self) -> int:
        """Bytes that wait for more from the peer: a record without an end, records without an organization."""
        return self._framer.held + self._nameless_size

    @property
    def usable(self) -> bool:
        """Whether the peer may still send."""
        return self.secured and not self._at_end

    @property
    def at_rest(self) -> bool:
        """Whether every record that was read is delivered."""
        return not self._parts and not self.sending and not self._framer.ahead

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.last = self._loop.time()
        if not self._host.connected(self):
            self._unwanted = "full"
            self.abort()
            return
        self._budget.join(self)
        self.flow()

    def opened(self) -> None:
        self._host.secured(self)

    def received(self, data: bytes) -> None:
        if self._fresh:
            self._fresh = False
            if self._ssl is None and data.startswith(_HELLO):
                self.drop("tls")
                return
        self.last = self._loop.time()
        self._take(data)

    def ended(self, end: End, error: BaseException | None) -> None:
        self._at_end = True
        self._orderly = end == "closed"
        if self._unwanted != "full":
            self._host.over(self, end, error)
        self._stir()

    def stop_reading(self) -> None:
        """Take no more from the peer; what is here is still delivered."""
        self.pause()
        self._reads = False
        self._at_end = True
        self._stir()

    def drop(self, reason: str) -> None:
        """Break the connection off; what it did not hand over yet is refused for this reason, the unfinished at once."""
        self._unwanted = self._unwanted or reason
        self._forget(self._unwanted)
        if self._framer.held:
            self._outlet.refuse(self._framer.drop(), self._unwanted, self._org)
        self.stop_reading()

    def flow(self) -> None:
        """Read, or do not, as the state of things asks for."""
        reads = not (
            self._at_end
            or self._framer.ahead
            or (self.sending and self._size >= READ_AHEAD)
            or (self._budget.short and self._budget.leader is not self)
        )
        if reads != self._reads:
            self._reads = reads
            if reads:
                self.resume()
            else:
                self.pause()

    async def work(self) -> None:
        """Deliver what comes until the peer, or we, come to the end; then close.

        Cancelled, it refuses all that it still holds as `shutdown`.
        """
        try:
            while True:
                self._refuse()
                if self._unwanted:
                    self._give_up(self._unwanted)
                if self._parts:
                    await self._send()
                elif self._framer.ahead:
                    # A read of tiny records costs much time: the others get theirs in between.
                    await asyncio.sleep(0)
                    self._take(b"")
                elif self._at_end:
                    break
                else:
                    self._wake = self._loop.create_future()
                    await self._wake
            if not self._unwanted:
                await self._last_words()
            if self._unwanted:
                self._give_up(self._unwanted)
                self._host.stranger(self, self._unwanted)
            else:
                self.close()
        finally:
            self._parts.append(self._framer.finish(orderly=False))
            self._refuse()
            self._give_up("shutdown")
            if not self._closing:
                self.abort()
            self._budget.leave(self)

    def _take(self, data: bytes) -> None:
        records = self._framer.feed(data)
        if records:
            self._parts.append(records)
            self._size += _cost(records)
        if records or self._framer.ahead or self._framer.refused:
            self._stir()
        self._budget.change(self)
        self.flow()

    async def _send(self) -> None:
        parts, self._parts = self._parts, []
        self._sending_size, self._size = self._size, 0
        try:
            self._runs = self._attribute(parts)
            while self._runs:
                org, run = self._runs.pop(0)
                receipt = await self._outlet.send(run, org=org)
                if receipt.count:
                    self.taken = self._loop.time()
                if receipt.count and not self._named:
                    self._named = True
                    self._host.named(self, org)
                if receipt.count and not self._admission.tells_strangers:
                    self.proven = True
        finally:
            self._sending_size = 0
        self._budget.change(self)
        self.flow()

    async def _last_words(self) -> None:
        """Deliver an unfinished record if it is whole, and refuse what is nobody's."""
        if last := self._framer.finish(orderly=self._orderly):
            self._parts.append(last)
        self._refuse()
        if self._parts:
            await self._send()
        if not self._unwanted:
            self._forget("no_oid")

    def _give_up(self, reason: str) -> None:
        """Refuse every record that is still here; those that are being sent are the outlet's."""
        for org, run in self._runs:
            for raw in run:
                self._outlet.refuse(raw, reason, org)
        self._forget(reason)
        for part in self._parts:
            for raw in part:
                self._outlet.refuse(raw, reason, self._org)
        self._runs, self._parts, self._size = [], [], 0

    def _forget(self, reason: str) -> None:
        """Refuse the records that nobody is known to own."""
        for raw in self._nameless:
            self._outlet.refuse(raw, reason)
        self._nameless, self._nameless_size = [], 0

    def _attribute(self, parts: Sequence[Sequence[bytes]]) -> list[tuple[str, Sequence[bytes]]]:
        """Sort records by organization, in runs; what comes before a stranger's record is still taken."""
        admission = self._admission
        self.proven = self.proven or admission.token
        if self._org is not None and not admission.verify:
            return [(self._org, Blocks([Lines.of(part) for part in parts]))]
        records = [record for part in parts for record in part]
        runs: list[tuple[str, list[bytes]]] = []
        for index, record in enumerate(records):
            if self._org is not None and not admission.verify:
                _extend(runs, self._org, records[index:])
                break
            oid = find_oid(record)
            org = (self._org if self._org is not None else admission.only) if oid is None else admission.orgs.get(oid)
            if org is not None:
                if oid is not None and self._org is None:
                    self._org = org
                    self.proven = True
                    _extend(runs, org, self._nameless)
                    self._nameless, self._nameless_size = [], 0
                _extend(runs, org, [record])
                continue
            self._nameless_size += len(record) + _OBJECT_COST
            if oid is not None or self._nameless_size > HELD_MAX:
                self.drop("stranger" if oid is not None else "no_oid")
                for raw in records[index:]:
                    self._outlet.refuse(raw, self._unwanted)
                break
            self._nameless.append(record)
        return [*runs]

    def _refuse(self) -> None:
        """Hand over what framing refused."""
        for head, fault in self._framer.refused:
            self._outlet.refuse(head, "stranger" if fault == "token" else fault, self._org)
            if fault == "token":
                self.drop("stranger")
        self._framer.refused.clear()

    def _stir(self) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)


def find_oid(record: bytes) -> str | None:
    """The organization id of a record, in lower case, from where the streams have it: routing/oid, oid, record/oid."""
    if b'"oid"' not in record and b"\\u00" not in record:
        return None
    try:
        doc = orjson.loads(record)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(doc, dict):
        return None
    for place in (doc.get("routing"), doc, doc.get("record")):
        if isinstance(place, dict) and isinstance(oid := place.get("oid"), str):
            return oid.lower()
    return None


def _cost(records: Sequence[bytes]) -> int:
    if isinstance(records, Lines):
        return len(records.block)
    return sum(map(len, records)) + _OBJECT_COST * len(records)


def _extend(runs: list[tuple[str, list[bytes]]], org: str, records: list[bytes]) -> None:
    if not records:
        return
    if runs and runs[-1][0] == org:
        runs[-1][1].extend(records)
    else:
        runs.append((org, list(records)))
