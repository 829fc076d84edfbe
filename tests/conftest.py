"""Fixtures for the whole suite: a real Kafka.

``kafka`` is the cluster of ``KAFKA_BOOTSTRAP``, or else our own broker. ``kafka_broker`` is always our own, with a SASL_SSL
listener, for tests that stop it or log in. Where none can be had, the tests are skipped with the reason; in CI (``CI=true`` or
``LC_PIPELINE_NO_SKIP=1``) they fail.
"""

from __future__ import annotations

import asyncio
import importlib.util
import logging
import os
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from types import ModuleType

import pytest
import structlog
from hypothesis import HealthCheck, settings

LONGEST = ("test_oracle.py",)
"""Files with tests that take minutes, each with a broker of its own."""

# how fast examples are made says something of the machine, and nothing of what is tested
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")


def _load(name: str) -> ModuleType:
    """Import a module that lies beside this file; the test folders are no packages."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


kafka_broker_module = _load("kafka_broker")
kafka_topics_module = _load("kafka_topics")
kafka_sinks_module = _load("kafka_sinks")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if {"kafka", "kafka_broker"} & set(getattr(item, "fixturenames", ())):
            item.add_marker("kafka")
            if item.get_closest_marker("timeout") is None:
                # the first test of a fresh clone fetches the broker
                item.add_marker(pytest.mark.timeout(120))
        if "e2e" in item.path.parts and item.get_closest_marker("timeout") is None:
            # processes that start, on a machine with other work
            item.add_marker(pytest.mark.timeout(60))
    # With several processes (`--dist loadgroup`) the tests of a file stay together, because they may share an emulator, all that
    # use the broker share one, and what takes longest begins first.
    for item in items:
        shared = item.get_closest_marker("kafka") and item.path.name not in LONGEST
        item.add_marker(pytest.mark.xdist_group("kafka" if shared else str(item.path)))
    items.sort(key=lambda item: (item.path.name not in LONGEST, "unit" in item.path.parts))


def _no_skip() -> bool:
    return os.environ.get("CI", "").lower() in ("true", "1") or os.environ.get("LC_PIPELINE_NO_SKIP") == "1"


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    """A command that a test runs in this process sets up logging for the process; the next test must not see that."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    structlog.reset_defaults()
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture(scope="session")
def _session_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[kafka_broker_module.Broker]:
    try:
        broker = kafka_broker_module.Broker(tmp_path_factory.mktemp("kafka"), secure=True)
    except kafka_broker_module.BrokerUnavailable as error:
        if _no_skip():
            pytest.fail(f"No Kafka: {error}")
        pytest.skip(f"No Kafka: {error}")
    try:
        broker.start()
        yield broker
    finally:
        broker.kill()


@pytest.fixture
def kafka_broker(_session_broker: kafka_broker_module.Broker) -> Iterator[kafka_broker_module.Broker]:
    """Our own broker (see `tests/kafka_broker.py`), running; a test may stop, kill or pause it."""
    _session_broker.start()
    yield _session_broker
    _session_broker.resume()


@pytest.fixture
def kafka(request: pytest.FixtureRequest) -> str:
    """``host:port`` of a cluster whose plain listener lets us do everything."""
    outside = os.environ.get("KAFKA_BOOTSTRAP")
    return outside or request.getfixturevalue("kafka_broker").bootstrap


@pytest.fixture
async def kafka_topics(kafka: str) -> AsyncIterator[kafka_topics_module.Topics]:
    """Makes topics with names of their own in ``kafka``, reads them, and removes them after the test."""
    topics = kafka_topics_module.Topics(kafka)
    yield topics
    await topics.clear()


@pytest.fixture
async def make_kafka_sink(kafka: str) -> AsyncIterator[kafka_sinks_module.MakeSink]:
    """Builds sinks `kafka` from the keys of their config; at the end they are closed and must leave no task behind."""
    made = []

    def make(**config: object) -> object:
        made.append(kafka_sinks_module.build(**{"bootstrap_servers": kafka} | config))
        return made[-1]

    yield make
    for sink in made:
        async with asyncio.timeout(5):
            await sink.close()
    await asyncio.sleep(0.01)  # cancelled tasks end
    assert {asyncio.current_task()} == asyncio.all_tasks()
