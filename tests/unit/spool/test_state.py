"""The tables that the engine keeps in the spool's database."""

import sqlite3

import pytest

from pipeline.core.batch import LogId
from pipeline.spool import state as states
from pipeline.spool.disk import DiskSpool, DiskSpoolConfig
from pipeline.spool.state import ENGINE_TABLES, DamagedError, State

CLAIMS = ("all", "tap", "", 7)
GAP = (1,)


async def test_facts_are_there_in_the_next_life(tmp_path):
    """What was committed with positions is restored with them; what was forgotten is gone."""
    config = DiskSpoolConfig(type="disk", path=tmp_path)
    spool = DiskSpool(config)
    restored = await spool.open([LogId("tap")])
    assert restored.facts == {table: {} for table in ENGINE_TABLES}
    await spool.commit({}, {}, {"dedupe": {CLAIMS: b"\0\xff"}, "gaps": {GAP: "{}", (2,): "{}"}})
    await spool.commit({}, {}, {"gaps": {GAP: "[]", (2,): None}})
    await spool.close()
    spool = DiskSpool(config)
    restored = await spool.open([LogId("tap")])
    await spool.close()
    assert restored.facts == {"dedupe": {CLAIMS: b"\0\xff"}, "gaps": {GAP: "[]"}, "heard": {}}
    assert not spool.state_lost


def test_a_flipped_bit_in_a_claim_is_damage(tmp_path):
    """Claims are under the database's digest, like positions: another value than the one that was written is noticed."""
    path = tmp_path / "state.db"
    state = State(path)
    state.commit({"dedupe": {CLAIMS: b"abc"}})
    state.close()
    with sqlite3.connect(path) as db:
        db.execute("UPDATE dedupe SET claims = ?", (b"abd",))
    with pytest.raises(DamagedError):
        State(path)


def test_a_database_of_the_first_format_gets_the_tables(tmp_path):
    """A folder of an earlier version is taken over with its positions."""
    path = tmp_path / "state.db"
    state = State(path)
    state.commit({"positions": {("r/s", "tap", ""): 5}})
    state.close()
    with sqlite3.connect(path) as db:
        for table in ENGINE_TABLES:
            db.execute(f"DROP TABLE {table}")
        db.execute("UPDATE digest SET format = 1")
        db.execute("PRAGMA user_version = 1")
    assert State(path, read_only=True).tables["positions"] == {("r/s", "tap", ""): 5}
    state = State(path)
    state.commit({"dedupe": {CLAIMS: b"abc"}})
    state.close()
    state = State(path)
    assert (state.tables["positions"], state.restore("dedupe")) == ({("r/s", "tap", ""): 5}, {CLAIMS: b"abc"})
    assert states.FORMAT == 2
    state.close()
