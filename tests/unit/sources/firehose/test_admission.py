"""Whose records are taken, and what becomes of strangers."""

from __future__ import annotations

import asyncio

import pytest

from pipeline.core.component import Org
from pipeline.core.errors import ConfigError
from pipeline.sources.firehose_connection import find_oid

A, B, C = (f"8cbe27f4-aaaa-4bbb-8ccc-00000000000{n}" for n in "abc")
TWO = (Org("acme", A), Org("globex", B))


@pytest.mark.parametrize(
    ("raw", "oid"),
    [
        (b'{"routing":{"oid":"AB-C"},"oid":"x"}', "ab-c"),
        (b'{"oid":"x","record":{"oid":"y"}}', "x"),
        (b'{"record":{"oid":"y"}}', "y"),
        (rb'{"routing":{"\u006fid":"z"}}', "z"),
        (b'{"event":{"oid":"x"}}', None),
        (b'{"routing":{"oid":7}}', None),
        (b'{"a":"oid"}', None),
        (b'{"oid":', None),
        (b'["oid"]', None),
        (b'{"oid":' + b"[" * 100_000, None),
    ],
)
def test_the_oid_is_found(raw, oid):
    """The streams have the oid in three places; anything else names nobody."""
    assert find_oid(raw) == oid


async def test_a_stranger_is_closed_and_counted(start, record):
    """A connection whose first oid is not allowed is closed; its records go to the dead letter."""
    async with start(orgs=(Org(oid=A),)) as lab:
        reader, writer = await lab.connect()
        writer.write(record(1, oid=C) + b"\n" + record(2, oid=A) + b"\n")
        assert await asyncio.wait_for(reader.read(), 10) == b""
        writer.close()
        await lab.until(lambda: lab.report.counts.get("stranger"))
        assert lab.outlet.refused == [(record(1, oid=C), "stranger"), (record(2, oid=A), "stranger")]
        assert lab.outlet.all == []


async def test_two_organizations_share_a_port(start, record):
    """The first record with an oid names the connection's organization; those before it are held for it."""
    early = b'{"event":{"n":0}}'
    async with start(orgs=TWO) as lab:
        await asyncio.gather(
            lab.push(early + b"\n" + record(1, oid=A) + b"\n" + early + b"\n"),
            lab.push(early + b"\n" + record(1, oid=B.upper()) + b"\n"),
        )
        await lab.outlet.until(5)
        assert lab.outlet.records == {
            "acme": [early, record(1, oid=A), early],
            "globex": [early, record(1, oid=B.upper())],
        }


async def test_records_that_name_nobody_are_refused_at_the_end(start):
    """With several organizations, a connection that never names one leaves its records in the dead letter."""
    async with start(orgs=TWO) as lab:
        await lab.push(b'{"event":1}\n')
        await lab.until(lambda: lab.outlet.refused)
        assert lab.outlet.refused == [(b'{"event":1}', "no_oid")]


async def test_not_more_than_a_mebibyte_is_held_for_a_name(start):
    """A nameless connection is closed once it has more than may be held."""
    one = b'{"event":"%s"}' % (b"x" * 10_000)
    async with start(orgs=TWO) as lab:
        await lab.push((one + b"\n") * 110)
        await lab.until(lambda: lab.report.counts.get("no_oid"))
        assert {reason for _, reason in lab.outlet.refused} == {"no_oid"}
        assert len(lab.outlet.refused) == 110
        assert [entry["log_level"] for entry in lab.log if "organization" in entry["event"]] == ["error"]


async def test_one_organization_owns_records_without_oid(start, record):
    """With one organization, records without an oid are its own, also before the first with one."""
    async with start() as lab:
        await lab.push(b'{"event":1}\n' + record(1) + b"\n")
        assert await lab.outlet.until(2) == [b'{"event":1}', record(1)]


async def test_verify_looks_at_every_record(start, record):
    """With `verify_oid` a stranger's record later in a connection is refused, and closes it."""
    for verify in (False, True):
        async with start(orgs=(Org(oid=A),), verify_oid=verify) as lab:
            await lab.push(record(1, oid=A) + b"\n" + record(2, oid=C) + b"\n")
            await lab.outlet.until(1 if verify else 2)
            await lab.until(lambda: not lab.source._peers)
            assert lab.outlet.refused == ([(record(2, oid=C), "stranger")] if verify else [])


async def test_verify_puts_each_record_where_it_belongs(start, record):
    """With `verify_oid` records of two allowed organizations on one connection are told apart."""
    async with start(orgs=TWO, verify_oid=True) as lab:
        await lab.push(b"".join(record(n, oid=oid) + b"\n" for n, oid in enumerate((A, B, B, A))))
        await lab.outlet.until(4)
        assert lab.outlet.records == {
            "acme": [record(0, oid=A), record(3, oid=A)],
            "globex": [record(1, oid=B), record(2, oid=B)],
        }


async def test_an_allow_list_of_ones_own(start, record):
    """`allow_oids` replaces the organizations' own oids."""
    async with start(orgs=(Org(oid=A),), allow_oids=[C.upper()]) as lab:
        await lab.push(record(1, oid=C) + b"\n")
        await lab.push(record(2, oid=A) + b"\n")
        await lab.until(lambda: lab.report.counts.get("stranger"))
        assert lab.outlet.all == [record(1, oid=C)]


async def test_without_a_known_oid_everybody_is_let_in(start, record):
    """An organization without an id takes what comes."""
    async with start(orgs=(Org(),)) as lab:
        await lab.push(record(1, oid=C) + b"\n")
        assert await lab.outlet.until(1) == [record(1, oid=C)]


async def test_a_token_must_be_in_the_header(start, record):
    """With `token`, records without it are refused and their connection is closed; the token is in no log."""
    good = b'<38>1 - h a - - [t token="sesame"] ' + record(1) + b"\n"
    async with start(token="sesame") as lab:
        await lab.push(good + good)
        await lab.outlet.until(2)
        await lab.push(record(2) + b"\n")
        await lab.until(lambda: lab.report.counts.get("stranger"))
        assert lab.outlet.refused == [(record(2), "stranger")]
        assert "sesame" not in str(lab.log)


@pytest.mark.parametrize(
    ("orgs", "config"),
    [
        ((Org("a", A), Org("b")), {}),
        (TWO, {"allow_oids": [C]}),
        ((Org(),), {"verify_oid": True}),
        ((Org(oid=A),), {"allow_oids": []}),
    ],
)
async def test_what_cannot_be_told_apart_does_not_start(start, orgs, config):
    """Organizations without ids, or ids without organizations, are a config error that names the key."""
    with pytest.raises(ConfigError) as caught:
        async with start(orgs=orgs, **config):
            pass
    assert caught.value.where == "sources.hose.allow_oids"


async def test_a_lone_gap_is_noted(start, record):
    """When an organization's last connection ends and it comes back later, the time between is a gap."""
    async with start(orgs=TWO) as lab:
        _, keeping = await lab.connect()
        keeping.write(record(0, oid=B) + b"\n")
        await lab.push(record(1, oid=A) + b"\n")
        await lab.outlet.until(2)
        await lab.until(lambda: len(lab.source._peers) == 1)
        await lab.push(record(2, oid=A) + b"\n" + record(3, oid=A) + b"\n")
        await lab.outlet.until(4)
        assert lab.report.gaps == [("no_connection", "acme")]
        keeping.close()
        await keeping.wait_closed()


async def test_a_gap_ends_with_the_source(start, record):
    """An organization that left and never came back is a gap that lasts; one that was there to the end is none."""
    async with start(orgs=TWO) as lab:
        _, keeping = await lab.connect()
        keeping.write(record(0, oid=B) + b"\n")
        await lab.push(record(1, oid=A) + b"\n")
        await lab.outlet.until(2)
        await lab.until(lambda: len(lab.source._peers) == 1)
        assert lab.report.gaps == []
        await lab.stop()
        assert (lab.report.gaps, lab.report.open_gaps) == ([], {"acme": "no_connection"})
        keeping.close()


async def test_a_cancelled_source_refuses_records_of_each_organization_once(start, record):
    """Cancelled between two organizations' runs of records, it refuses those that follow, and the nameless."""
    sent = [record(n, oid=oid) for n, oid in enumerate((A, B, B, A))]
    async with start(orgs=TWO, verify_oid=True) as lab:
        lab.outlet.gate.clear()
        _, first = await lab.connect()
        first.write(b"".join(raw + b"\n" for raw in sent))
        _, second = await lab.connect()
        second.write(b'{"event":1}\n')
        await lab.until(lambda: any(one.sending for one in lab.source._peers))
        await lab.until(lambda: any(one.unfinished for one in lab.source._peers))
        await lab.cancel()
        assert sorted(lab.outlet.refused) == sorted((raw, "shutdown") for raw in (*sent, b'{"event":1}'))
        for writer in (first, second):
            writer.transport.abort()
