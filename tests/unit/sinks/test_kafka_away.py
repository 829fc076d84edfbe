"""The sink `kafka` where there is no broker."""

from __future__ import annotations

import asyncio
import logging
import socket

import pytest
import structlog
from kafka_sinks import build, part, records

from pipeline.core.errors import RetryLater, UnavailableError
from pipeline.core.items import Items
from pipeline.kit.kafka import Ear


@pytest.fixture
def nowhere() -> str:
    """An address where nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


async def test_close_without_open_and_twice() -> None:
    """Closing is safe without `open` and twice."""
    sink = build(bootstrap_servers="k:1", topic="t")
    await sink.close()
    await sink.close()


async def test_unreachable_broker_is_temporary_everywhere(nowhere: str) -> None:
    """open and write raise RetryLater, check the error it is made of; each says what to check, none leaves a task."""
    sink = build(bootstrap_servers=nowhere, topic="t")
    with pytest.raises(RetryLater, match="cannot be reached") as caught:
        await sink.open({})
    assert "bootstrap_servers" in caught.value.fix
    with pytest.raises(RetryLater, match="cannot be reached"):
        await sink.write(Items([part(records(1))]))
    with pytest.raises(UnavailableError, match="cannot be reached"):
        await sink.check()
    await sink.close()
    await asyncio.sleep(0.01)
    assert {asyncio.current_task()} == asyncio.all_tasks()


async def test_peer_that_says_nothing_ends_in_time() -> None:
    """A listener that accepts and never answers is given up within the timeout."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        sink = build(bootstrap_servers=address, topic="t", timeout="500ms")
        async with asyncio.timeout(2):
            with pytest.raises(RetryLater):
                await sink.open({})
            await sink.close()


async def test_clients_complaints_do_not_reach_the_root_log(nowhere: str, caplog: pytest.LogCaptureFixture) -> None:
    """What aiokafka logs about our connection stays out of the root logger; what it logs about others does not."""
    with pytest.raises(RetryLater):
        await build(bootstrap_servers=nowhere, topic="t").open({})
    assert not caplog.records
    logging.getLogger("aiokafka").error("Somebody else's.")
    assert [record.getMessage() for record in caplog.records] == ["Somebody else's."]


async def test_ear_keeps_the_error_behind_a_complaint() -> None:
    """An ear keeps the last complaint and the exception that came with one, for all tasks started while it listens."""
    ear = Ear(structlog.get_logger())
    reason = OSError("cable cut")

    async def complain() -> None:
        logging.getLogger("aiokafka.conn").warning("Lost %s: %s", "it", reason)
        logging.getLogger("aiokafka.conn").warning("Again.")

    with ear.listening():
        task = asyncio.create_task(complain())
    await task
    assert ("Again.", reason) == (ear.text, ear.error)
    ear.forget()
    assert ("", None) == (ear.text, ear.error)
