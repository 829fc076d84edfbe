"""Every built-in component keeps the same contract that `pipeline.testing` asks of anybody's."""

import asyncio
import gzip
import os
import re
import ssl
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from pipeline.config.registry import BUILT_IN, Registry, config_class
from pipeline.core.component import Context, Org
from pipeline.emulator import ai_org
from pipeline.emulator.server import Emulator
from pipeline.emulator.state import Settings
from pipeline.kit.clock import SystemClock
from pipeline.limacharlie.client import LimaCharlie
from pipeline.limacharlie.config import LimaCharlieConfig
from pipeline.sinks.stdout import StdoutSink
from pipeline.sources.firehose import Firehose
from pipeline.sources.stdin import StdinSource
from pipeline.testing import RECORDS, check_filter, check_sink, check_source, context

LINES = b"".join(raw + b"\n" for raw in RECORDS)


def maker(kind: Any, name: str, **keys: Any) -> Callable[[Context], Any]:
    """Builds the component of this name, with these keys as its configuration."""
    component = Registry().component(kind, name)
    config = config_class(component).model_validate({"type": name, **keys})
    return lambda surroundings: component(config, surroundings)


FILTERS = {
    "match": [{"op": "exists", "path": "routing/hostname"}, {"op": "is", "path": "priority", "value": 5, "not": True}],
    "events": [{"exclude": ["NEW_PROCESS"]}, {"include": ["DNS_REQUEST"]}],
    "responses": [{"context": "triage"}, {"context": ["a", "b/c"], "join": None, "also": ["NEW_PROCESS"]}],
    "sample": [{"rate": 1}, {"rate": 2}, {"rate": 2, "key": "routing/hostname"}],
}


@pytest.mark.parametrize(("name", "keys"), [(name, keys) for name, all_keys in FILTERS.items() for keys in all_keys])
async def test_filter(name, keys):
    """A filter keeps the contract, with each of its ways to be configured."""
    await check_filter(maker("filters", name, **keys))


@pytest.mark.parametrize("ending", ["", ".gz", ".zst"])
async def test_sink_file(tmp_path, ending):
    """The file sink keeps the contract, plain and compressed."""
    import zstandard

    def stored() -> list[bytes]:
        found = b""
        for path in sorted(tmp_path.rglob(f"*.jsonl{ending}")):
            data = path.read_bytes()
            if ending == ".gz":
                data = gzip.decompress(data)
            elif ending == ".zst":
                data = zstandard.ZstdDecompressor().stream_reader(data, read_across_frames=True).read()
            found += data
        return found.splitlines()

    await check_sink(maker("sinks", "file", path=f"{tmp_path}/all.jsonl{ending}"), stored)


async def test_sink_stdout(tmp_path):
    """The stdout sink keeps the contract; a file stands for the pipe."""
    path = tmp_path / "out"
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    class ToFile(StdoutSink):
        pass

    ToFile.fd = fd
    config = config_class(StdoutSink).model_validate({"type": "stdout", "format": "json"})
    try:
        await check_sink(lambda surroundings: ToFile(config, surroundings), lambda: path.read_bytes().splitlines())
    finally:
        os.close(fd)


@pytest.mark.timeout(120)
async def test_sink_kafka(kafka, kafka_topics):
    """The Kafka sink keeps the contract against a real broker."""
    topic = await kafka_topics.make(configs={"max.message.bytes": str(4 << 20)})

    async def stored() -> list[bytes]:
        return [record.value for record in await kafka_topics.read(topic)]

    await check_sink(maker("sinks", "kafka", bootstrap_servers=kafka, topic=topic), stored, large=200_000)


async def test_sink_reliable_task():
    """The tasking sink keeps the contract: each record is one task in the queue of a sensor that is offline."""
    cloud = Emulator(Settings(port=0, rate=0))
    await cloud.start()
    ready = cloud.ready()
    section = LimaCharlieConfig.model_validate({key: ready[key] for key in ("url", "oid", "api_key")})
    payloads: dict[str, bytes] = {}

    try:
        async with LimaCharlie(section, environ={}) as account:
            sids = [sensor.sid async for sensor in account.sensors.list("plat == windows")]
            sid = next(sid for sid, online in (await account.sensors.online(sids)).items() if not online)
            make = maker("sinks", "reliable_task", task="os_version", selector=f"sid == '{sid}'", confirm=True)
            orgs = tuple(Org(name, ready["oid"], account) for name in ("", "acme", "globex"))

            def with_account(surroundings: Context) -> Any:
                sink = make(replace(surroundings, orgs=orgs, clock=SystemClock()))
                write = sink.write

                async def remember(items: Any) -> Any:
                    payloads.update({sink.order(item).context: item.payload for item in items})
                    return await write(items)

                sink.write = remember
                return sink

            async def stored() -> list[bytes]:
                return [payloads[task.context] for task in await account.reliable_tasking.list()]

            await check_sink(with_account, stored, ordered=False)
    finally:
        await cloud.stop()


async def test_sink_ai_session(monkeypatch):
    """The sink of AI sessions keeps the contract: each record is in the prompt of one session."""
    monkeypatch.setattr(ai_org, "MAX_SESSIONS", 1000)
    cloud = Emulator(Settings(port=0, rate=0))
    await cloud.start()
    ready = cloud.ready()
    section = LimaCharlieConfig.model_validate({key: ready[key] for key in ("url", "oid", "api_key")})
    keys = {"prompt": "{record}", "anthropic_key": "sk-ant-x", "limits": {"per_minute": 1000, "per_day": 1000}}
    make = maker("sinks", "ai_session", confirm=True, **keys)
    try:
        async with LimaCharlie(section, environ={}) as account:
            orgs = tuple(Org(name, ready["oid"], account) for name in ("", "acme", "globex"))
            cloud.panel.ai.account(f"org:{ready['oid']}").creations.limit = 1000

            def stored() -> list[bytes]:
                prompts = [session.prompt for session in cloud.panel.ai.sessions.values()]
                return [re.findall(r"\n<data \w+>\n(.*)\n</data", prompt)[0].encode() for prompt in prompts]

            await check_sink(
                lambda surroundings: make(replace(surroundings, orgs=orgs, clock=SystemClock())),
                stored,
                large=40_000,
                ordered=False,
            )
    finally:
        await cloud.stop()


async def test_source_file(tmp_path):
    """The file source keeps the contract."""
    path = tmp_path / "in.jsonl"
    path.write_bytes(LINES)
    await check_source(maker("sources", "file", paths=[str(path)]), expect=RECORDS)


async def test_source_stdin():
    """The stdin source keeps the contract; each instance reads a pipe of its own."""
    pipes: list[int] = []

    def make(surroundings: Context) -> StdinSource:
        read, write = os.pipe()
        pipes.extend((read, write))
        os.write(write, LINES)
        source = StdinSource(config_class(StdinSource).model_validate({"type": "stdin"}), surroundings)
        source.fd = read  # type: ignore[misc]
        return source

    try:
        await check_source(make, expect=RECORDS)
    finally:
        for fd in pipes:
            os.close(fd)


async def test_source_firehose():
    """The firehose keeps the contract, fed by a TLS client."""
    writers: list[asyncio.StreamWriter] = []

    async def feed(source: Firehose) -> None:
        trusting = ssl.create_default_context()
        trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
        address = source.address
        _, writer = await asyncio.open_connection("127.0.0.1", address.port, ssl=trusting)
        writers.append(writer)
        writer.write(LINES)
        await writer.drain()

    await check_source(maker("sources", "firehose", listen="127.0.0.1:0"), feed=feed, expect=RECORDS)
    for writer in writers:
        writer.transport.abort()


@pytest.mark.parametrize("transport", ["https", "websocket"])
async def test_source_spout(transport):
    """The spout keeps the contract against the local LimaCharlie, in both its forms."""
    cloud = Emulator(Settings(port=0, rate=0, events=50))
    await cloud.start()
    ready = cloud.ready()
    section = LimaCharlieConfig.model_validate({key: ready[key] for key in ("url", "oid", "api_key")})
    try:
        async with LimaCharlie(section, environ={}) as account:
            org = Org("", ready["oid"], account)
            await check_source(
                maker("sources", "spout", stream="detect", transport=transport),
                surroundings=lambda: context(clock=SystemClock(), orgs=[org]),
                at_least=50,
            )
    finally:
        await cloud.stop()


async def test_source_ai_session():
    """The source of AI sessions keeps the contract against the local LimaCharlie."""
    cloud = Emulator(Settings(port=0, rate=0))
    await cloud.start()
    ready = cloud.ready()
    section = LimaCharlieConfig.model_validate({key: ready[key] for key in ("url", "oid", "api_key")})
    try:
        async with LimaCharlie(section, environ={}) as account:
            await account.ai.org_sessions.start("Investigate.", anthropic_key="sk-ant-x", profile={"one_shot": True})
            org = Org("", ready["oid"], account)
            await check_source(
                maker("sources", "ai_session", poll="100ms"),
                surroundings=lambda: context(clock=SystemClock(), orgs=[org]),
                at_least=4,
            )
    finally:
        await cloud.stop()


def test_nothing_is_left_out():
    """A component that joins the registry needs its entry here."""
    tests = {name.removeprefix("test_") for name in globals() if name.startswith("test_")}
    assert set(BUILT_IN["filters"]) == set(FILTERS)
    assert {f"sink_{name}" for name in BUILT_IN["sinks"]} == {name for name in tests if name.startswith("sink_")}
    assert {f"source_{name}" for name in BUILT_IN["sources"]} == {name for name in tests if name.startswith("source_")}
