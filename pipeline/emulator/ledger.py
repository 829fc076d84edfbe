"""What was generated and what was handed over, for whoever wants to prove that nothing was lost."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import orjson


class _Lines:
    """An append-only file without a buffer of our own, so that what is written survives even SIGKILL."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("ab", buffering=0)

    def write(self, lines: Sequence[bytes]) -> None:
        if lines:
            data = memoryview(b"\n".join(lines) + b"\n")
            while data:
                data = data[self._file.write(data) or 0 :]

    def close(self) -> None:
        self._file.close()


class Entry:
    """The part of the ledger that belongs to one stream connection."""

    def __init__(self, ledger: Ledger, name: str, file: _Lines | None) -> None:
        self.name = name
        self.file = file
        self._ledger = ledger

    def write(self, lines: Sequence[bytes]) -> None:
        """Note records (without LF) that are about to be handed to the transport."""
        if self.file is not None:
            self.file.write(lines)

    def end(self, *, clean: bool) -> None:
        """Say how the connection ended; only the first call counts."""
        self._ledger.end(self, clean=clean)


class Ledger:
    """The folder given by ``--ledger``; without one it notes nothing, but knows what is open."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._numbers: Counter[str] = Counter()
        self._files: dict[str, _Lines] = {}
        self._open: set[Entry] = set()
        self._quiet = asyncio.Event()
        self._quiet.set()
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            self._files["connections.jsonl"] = _Lines(folder / "connections.jsonl")

    def connection(self, via: str, stream: str) -> Entry:
        """Begin ``<via>-<stream>-<n>.jsonl``, n from 1."""
        kind = f"{via}-{stream}"
        name = self._next_name(kind)
        # a folder may be used again; what an earlier emulator noted stays as it is
        while self._folder and (self._folder / name).exists():
            name = self._next_name(kind)
        entry = Entry(self, name, _Lines(self._folder / name) if self._folder else None)
        self._open.add(entry)
        self._quiet.clear()
        return entry

    def _next_name(self, kind: str) -> str:
        self._numbers[kind] += 1
        return f"{kind}-{self._numbers[kind]}.jsonl"

    def generated(self, stream: str, lines: Sequence[bytes]) -> None:
        if self._folder is None:
            return
        name = f"generated-{stream}.jsonl"
        if name not in self._files:
            self._files[name] = _Lines(self._folder / name)
        self._files[name].write(lines)

    def end(self, entry: Entry, *, clean: bool) -> None:
        if entry not in self._open:
            return
        self._open.discard(entry)
        if not self._open:
            self._quiet.set()
        if entry.file is not None:
            entry.file.close()
            self._files["connections.jsonl"].write([orjson.dumps({"file": entry.name, "clean": clean})])

    async def all_ended(self) -> None:
        """Wait until no connection is open."""
        await self._quiet.wait()

    def close(self) -> None:
        """What is still open ends unclean."""
        for entry in list(self._open):
            entry.end(clean=False)
        for file in self._files.values():
            file.close()
        self._files.clear()
