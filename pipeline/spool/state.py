"""``state.db``: where lanes are, what sinks marked, everything that must change together. Everything here blocks.

SQLite says whether its pages hang together, not whether a value is the one that was written; a flipped bit in a position would
lose records without a word. So the tables have a digest that is committed with each change of theirs.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Any, TypeVar

import orjson

from pipeline.spool.segment import ForeignFormatError

FORMAT = 2
"""The version of the tables."""
FILES = ("", "-wal", "-shm")
"""What SQLite appends to the name of the database for the files beside it."""
_PAGE = 4096
_SLACK = 64 << 10
"""The index of the write-ahead log takes 32 KiB, and the latest commit may go over the log's size."""
_TABLES: Mapping[str, tuple[tuple[str, ...], str]] = {
    "positions": (("lane", "source", "org"), "position INTEGER NOT NULL"),
    "marks": (("sink", "key"), "value TEXT NOT NULL"),
    "ends": (("source", "org"), '"end" INTEGER NOT NULL'),
    "dropped": (("source", "org", "first"), '"end" INTEGER NOT NULL'),
    "dedupe": (("route", "source", "org", "first"), "claims BLOB NOT NULL"),
    "gaps": (("number",), "facts TEXT NOT NULL"),
    "heard": (("source", "org"), '"until" INTEGER NOT NULL'),
}
ENGINE_TABLES = ("dedupe", "gaps", "heard")
"""Tables whose content only the engine understands; of them, only the keys and digests stay in memory here."""
"""Table -> key columns and value column. ``positions``: the first record that a lane is not past. ``ends``: the record after a
log's last one, as of the latest commit. ``dropped``: records that were given up because the spool was full. ``dedupe``: ids and
the places that have them. ``gaps``: intervals in which records may be missing. ``heard``: until when (Unix milliseconds) a source
misses nothing."""
_NUMBERS = frozenset({"first", "number"})
_NOT_DAMAGE = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_FULL})
_NO_ACCESS = frozenset({sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_IOERR})
"""What a reader without the right to write may meet; a writer has shown before that it may, so to him it is damage."""

Key = tuple[str | int, ...]
Changes = Mapping[str, Mapping[Key, int | str | bytes | None]]
"""Table -> key -> value, or None to delete the row."""
_T = TypeVar("_T")


class DamagedError(Exception):
    """The file is not what was written."""


class State:
    """The open database, with its tables in memory. Use it from one thread at a time."""

    def __init__(self, path: Path, *, log_size: int = 4 << 20, read_only: bool = False) -> None:
        """Open or make the database. ``log_size``: about how many bytes the write-ahead log may have.

        Raises `DamagedError`, `ForeignFormatError`, sqlite3.Error when it cannot be used now, and OSError.
        """
        self.path = path
        self.tables: dict[str, dict[Key, Any]] = {table: {} for table in _TABLES}
        self.room = log_size + _SLACK
        """Bytes that its files may take beyond its main one."""
        self._log_size = log_size
        self._digest = 0
        self._restored: dict[str, dict[Key, Any]] = {table: {} for table in ENGINE_TABLES}
        if not read_only:
            with path.open("ab"):  # says in plain words what SQLite calls "unable to open database file"
                pass
        uri = f"{path.absolute().as_uri()}{'?mode=ro' if read_only else ''}"
        self._db = sqlite3.connect(uri, uri=True, isolation_level=None, timeout=5.0, check_same_thread=False)
        try:
            self._open(read_only)
        except BaseException as error:
            self._db.close()
            if _is_damage(error, read_only=read_only):
                raise DamagedError(str(error)) from error
            raise

    def commit(self, changes: Changes) -> None:
        """Write all changes in one step, on the disk when it returns. Raises sqlite3.Error; then nothing has changed."""
        digest = self._digest
        for table, rows in changes.items():
            known = self.tables[table]
            for key, value in rows.items():
                if key in known:
                    digest ^= known[key] if table in ENGINE_TABLES else _hash(table, key, known[key])
                if value is not None:
                    digest ^= _hash(table, key, value)

        def write(db: sqlite3.Connection) -> None:
            for table, rows in changes.items():
                keys, _ = _TABLES[table]
                places = ", ".join("?" * len(keys))
                new = [(*key, value) for key, value in rows.items() if value is not None]
                old = [key for key, value in rows.items() if value is None]
                if new:
                    db.executemany(f"REPLACE INTO {table} VALUES ({places}, ?)", new)  # noqa: S608 - names are ours
                if old:
                    db.executemany(f"DELETE FROM {table} WHERE ({', '.join(keys)}) = ({places})", old)  # noqa: S608 - same
            db.execute("UPDATE digest SET value = ?", (_text(digest),))

        self.transact(write)
        self._digest = digest
        for table, rows in changes.items():
            known = self.tables[table]
            for key, value in rows.items():
                if value is None:
                    known.pop(key, None)
                else:
                    known[key] = _hash(table, key, value) if table in ENGINE_TABLES else value

    def restore(self, table: str) -> dict[Key, Any]:
        """Hand over what one of `ENGINE_TABLES` had when it was opened; only once, as it may be large."""
        return self._restored.pop(table, {})

    def transact(self, work: Callable[[sqlite3.Connection], _T]) -> _T:
        """Run ``work`` as one transaction. Raises what it raises, sqlite3.Error included; then nothing has changed."""
        try:
            return self._transact(work)
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_FULL:
                raise
            self.checkpoint()  # on a full disk, the log's own bytes are room enough
            return self._transact(work)

    def checkpoint(self) -> None:
        """Move what is committed from the write-ahead log into the database and empty the log. Raises sqlite3.Error."""
        self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def close(self) -> None:
        """Safe to call twice."""
        self._db.close()

    def _transact(self, work: Callable[[sqlite3.Connection], _T]) -> _T:
        db = self._db
        db.execute("BEGIN IMMEDIATE")
        try:
            result = work(db)
            db.execute("COMMIT")
        except BaseException:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise
        return result

    def _open(self, read_only: bool) -> None:
        db = self._db
        if not read_only:
            db.execute("PRAGMA journal_mode = WAL").fetchone()
            db.execute("PRAGMA synchronous = FULL")
            db.execute(f"PRAGMA wal_autocheckpoint = {self._log_size // _PAGE}").fetchone()
            db.execute(f"PRAGMA journal_size_limit = {self._log_size}").fetchone()
            if not db.execute("SELECT 1 FROM sqlite_master").fetchone():
                self._transact(_make)
            elif db.execute("PRAGMA user_version").fetchone() == (1,):
                self._transact(_upgrade)
        db.execute("BEGIN")  # one view of it, whatever a running process commits meanwhile
        try:
            self._load()
        finally:
            db.execute("ROLLBACK")
        if not read_only:
            with contextlib.suppress(sqlite3.OperationalError):  # it only keeps the log short over many short lives
                self.checkpoint()

    def _load(self) -> None:
        db = self._db
        if db.execute("PRAGMA quick_check(1)").fetchone() != ("ok",):
            raise DamagedError("its pages do not hang together")
        (version,) = db.execute("PRAGMA user_version").fetchone()
        known = db.execute("SELECT format, value FROM digest").fetchall()
        # The version stands at two places, so that damage to one of them does not look like a newer version.
        if len(known) != 1 or known[0][0] != version:
            raise DamagedError("it does not say what format it has")
        if version > FORMAT:
            raise ForeignFormatError(version)
        for table, key, value in self._rows(version):
            digest = _hash(table, key, value)
            self._digest ^= digest
            self.tables[table][key] = value
            if table in ENGINE_TABLES:
                self.tables[table][key] = digest
                self._restored[table][key] = value
        if known[0][1] != _text(self._digest):
            raise DamagedError("its content is not what was written")

    def _rows(self, version: int) -> Iterator[tuple[str, Key, Any]]:
        for table in _TABLES:
            if version == 1 and table in ENGINE_TABLES:
                continue
            for *key, value in self._db.execute(f"SELECT * FROM {table}"):  # noqa: S608 - names are ours
                yield table, tuple(key), value


def _is_damage(error: BaseException, *, read_only: bool) -> bool:
    if isinstance(error, sqlite3.Error):
        code = getattr(error, "sqlite_errorcode", -1) & 0xFF
        return code not in _NOT_DAMAGE and not (read_only and code in _NO_ACCESS)
    return isinstance(error, ValueError)  # a text that is not UTF-8


def _make(db: sqlite3.Connection, tables: Iterable[str] = tuple(_TABLES)) -> None:
    for table in tables:
        keys, value = _TABLES[table]
        columns = ", ".join(f"{key} {'INTEGER' if key in _NUMBERS else 'TEXT'} NOT NULL" for key in keys)
        db.execute(f"CREATE TABLE {table} ({columns}, {value}, PRIMARY KEY ({', '.join(keys)})) WITHOUT ROWID")
    if "positions" in tables:
        db.execute("CREATE TABLE digest (format INTEGER NOT NULL, value TEXT NOT NULL)")
        db.execute("INSERT INTO digest VALUES (?, ?)", (FORMAT, _text(0)))
    db.execute(f"PRAGMA user_version = {FORMAT}")


def _upgrade(db: sqlite3.Connection) -> None:
    """From format 1, which had no tables of the engine."""
    _make(db, ENGINE_TABLES)
    db.execute("UPDATE digest SET format = ? WHERE format = 1", (FORMAT,))


def _hash(table: str, key: Key, value: Any) -> int:
    if isinstance(value, bytes):
        return int.from_bytes(blake2b(orjson.dumps([table, key]) + value, digest_size=8).digest())
    return int.from_bytes(blake2b(orjson.dumps([table, key, value]), digest_size=8).digest())


def _text(digest: int) -> str:
    return f"{digest:016x}"


def files(path: Path) -> list[Path]:
    """The files of the database that exist."""
    return [file for end in FILES if (file := Path(f"{path}{end}")).exists()]


def size(path: Path) -> int:
    """Bytes of all files of the database."""
    total = 0
    for file in files(path):
        with contextlib.suppress(FileNotFoundError):
            total += file.stat().st_size
    return total
