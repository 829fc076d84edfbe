"""The listeners that the workers share: the supervisor accepts, and hands the connections over in turn."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
from collections.abc import Iterator, Sequence
from typing import Any, cast

from pipeline.config.load import Loaded
from pipeline.core.errors import ConfigError
from pipeline.core.source import Source
from pipeline.core.types import Listen
from pipeline.engine.member import Member
from pipeline.kit.listener import BACKLOG, bind
from pipeline.kit.log import Logger

_FULL = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class Door:
    """A listener that the workers share."""

    def __init__(self, number: int, source: str, listen: Listen) -> None:
        """Bind it. Raises ConfigError."""
        self.number = number
        self.source = source
        try:
            self.sockets = bind(listen.host, listen.port)
        except OSError as error:
            raise ConfigError(
                f"cannot listen on {listen}: {error.strerror or error}", where=f"sources.{source}.listen"
            ) from error
        for sock in self.sockets:
            sock.listen(BACKLOG)
            sock.setblocking(False)
        self.address = Listen(listen.host, self.sockets[0].getsockname()[1])

    def close(self) -> None:
        """Safe to call twice."""
        for sock in self.sockets:
            sock.close()


class Doors:
    """The doors of a configuration, and whose turn the next connection is."""

    def __init__(self, members: Sequence[Member], log: Logger) -> None:
        self._members = members
        self._log = log
        self._doors: list[Door] = []
        self._turn = 0
        self._news = asyncio.Event()

    def __iter__(self) -> Iterator[Door]:
        return iter(self._doors)

    def open(self, loaded: Loaded) -> None:
        """Bind the listener of each source that lives in all workers. Raises ConfigError."""
        for name, settings in loaded.config.sources.items():
            kind = cast(type[Source[Any]], loaded.registry.component("sources", settings.type))
            listen = getattr(settings, "listen", None)
            if kind.shared and isinstance(listen, Listen):
                self._doors.append(Door(len(self._doors), name, listen))
                self._log.info("Listening for all workers.", source=name, address=str(self._doors[-1].address))

    def close(self) -> None:
        for door in self._doors:
            door.close()

    def heard(self) -> None:
        """A worker said something: one that could take no connection may be able to now."""
        self._news.set()

    async def accept(self) -> None:
        """Hand over what comes, until cancelled."""
        async with asyncio.TaskGroup() as group:
            for door in self._doors:
                for sock in door.sockets:
                    group.create_task(self._accept(door, sock))

    def last(self) -> None:
        """Hand over what waits in the backlog, and close: its peers may have sent, and believe that it arrived."""
        for door in self._doors:
            for listener in door.sockets:
                with contextlib.suppress(OSError):
                    while True:
                        sock, _ = listener.accept()
                        with sock:
                            self._hand(door, sock)
            door.close()

    async def _accept(self, door: Door, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                sock, _ = await loop.sock_accept(listener)
            except OSError as error:
                self._log.error("A connection could not be accepted.", source=door.source, error=error.strerror)
                await asyncio.sleep(1.0 if error.errno in _FULL else 0)
                continue
            with sock:
                while not self._hand(door, sock):
                    self._news.clear()
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(0.1):  # a worker that has room again does not say so
                            await self._news.wait()

    def _hand(self, door: Door, sock: socket.socket) -> bool:
        """Give a connection to the next worker that can take it."""
        for _ in self._members:
            member = self._members[self._turn % len(self._members)]
            self._turn += 1
            if member.hand(door.number, sock):
                return True
        return False
