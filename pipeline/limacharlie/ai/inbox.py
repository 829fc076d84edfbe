"""Messages between who reads the connection and who takes them, bounded in bytes."""

from __future__ import annotations

import asyncio
from collections import deque

from pipeline.limacharlie.ai.message import Message

MAX_BYTES = 8 << 20
"""Bytes that wait at most, apart from one more message."""
TAKEN = 255
MAX_TAKEN = 1 << 20
"""What is taken at once besides the first message: messages, and bytes apart from one more message."""
OVERHEAD = 1024
"""Bytes that a message takes besides its text."""


class Inbox:
    """For one who puts and one who gets; `put` waits while it is full."""

    def __init__(self) -> None:
        self.closed = False
        self._waiting: deque[Message] = deque()
        self._size = 0
        self._filled = asyncio.Event()
        self._room = asyncio.Event()

    async def put(self, message: Message) -> bool:
        """Add a message; say whether it had to wait."""
        waited = self._size > MAX_BYTES
        while self._size > MAX_BYTES:
            self._room.clear()
            await self._room.wait()
        self._waiting.append(message)
        self._size += len(message.raw) + OVERHEAD
        self._filled.set()
        return waited

    async def get(self) -> Message | None:
        """The oldest message; None when there will be no more."""
        while not self._waiting:
            if self.closed:
                return None
            self._filled.clear()
            await self._filled.wait()
        message = self._waiting.popleft()
        self._size -= len(message.raw) + OVERHEAD
        self._room.set()
        return message

    def ready(self) -> list[Message]:
        """Take what is there already: at most `TAKEN` messages, and about `MAX_TAKEN` bytes."""
        taken: list[Message] = []
        size = 0
        while self._waiting and len(taken) < TAKEN and size < MAX_TAKEN:
            message = self._waiting.popleft()
            taken.append(message)
            size += len(message.raw)
            self._size -= len(message.raw) + OVERHEAD
        self._room.set()
        return taken

    def close(self) -> None:
        """There will be no more."""
        self.closed = True
        self._filled.set()
