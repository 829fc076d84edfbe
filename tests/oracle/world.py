"""What all pipelines of the oracle share: one LimaCharlie with TLS, its ledger, one Kafka."""

from __future__ import annotations

import asyncio
import importlib.util
import itertools
import json
import logging
import os
import re
import ssl
import sys
import time
import uuid
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import aiohttp
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

LC_PIPELINE = [sys.executable, "-m", "pipeline.cli"]
_OID = re.compile(rb'"oid":"([0-9a-f-]{36})"')
TIME = re.compile(rb'"event_time":[0-9]+')
CHUNK = 256
"""Records that are emitted with one request."""
LATE, PATIENCE = 5.0, 120.0
"""Seconds that the emulator may be late where that matters, and for how long that is waited for."""
TAIL = 1 << 20
"""Bytes at the end of a file that have a record in them."""


def load(path: Path) -> ModuleType:
    """Import a module by its file; the test folders are no packages."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


def environment(**more: str) -> dict[str, str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("LC_")}
    return clean | {"LC_EPHEMERAL_CREDS": "1"} | more


@dataclass
class Connection:
    """One stream connection in the ledger."""

    via: str
    stream: str
    number: int
    oid: bytes | None = None
    offset: int = 0
    lines: int = 0
    clean: bool = False


@dataclass
class Sent:
    """What was handed over to one organization's connections of one stream."""

    places: dict[bytes, list[tuple[str, int]]] = field(default_factory=dict)
    """Line -> connections, and its number there."""
    connections: dict[str, Connection] = field(default_factory=dict)


class Cloud:
    """`lc-pipeline emulate --tls`, with one organization for each pipeline, and its ledger."""

    def __init__(self, folder: Path, orgs: int, rate: float, seed: int) -> None:
        self.folder = folder
        self.orgs = orgs
        self.rate = rate
        self.seed = seed
        self.ready: dict[str, Any] = {}
        self._ledger = folder / "ledger"
        self._known: dict[str, Connection] = {}
        self._ends = 0
        self._sent: dict[tuple[bytes, str], Sent] = {}
        self._again: set[bytes] = set()
        """Lines that were sent more than once because we wanted it."""
        self._made: dict[tuple[bytes, str], list[bytes]] = {}
        """What was generated of an organization's stream, and nobody asked for yet."""
        self._made_offsets: Counter[str] = Counter()

    async def start(self) -> None:
        self.folder.mkdir(parents=True)
        ready = self.folder / "ready.json"
        options = {
            "--listen": "127.0.0.1:0", "--orgs": self.orgs, "--rate": self.rate, "--seed": self.seed,
            "--keepalive": 1, "--ready-file": ready, "--ledger": self._ledger,
        }  # fmt: skip
        arguments = [str(one) for pair in options.items() for one in pair]
        with (self.folder / "log").open("wb") as log:
            command = [*LC_PIPELINE, "emulate", "--tls", *arguments]
            self._process = await asyncio.create_subprocess_exec(*command, stderr=log, env=environment())
        while not ready.exists():
            assert self._process.returncode is None, (self.folder / "log").read_text()
            await asyncio.sleep(0.05)
        self.ready = json.loads(ready.read_text())
        context = ssl.create_default_context(cafile=self.ready["ca"])
        self._http = aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context))
        await self.turn("connect_delay", seconds=0.02)
        await self.turn("dialer", failures=1000, disable_for=0.1, backoff_base=0.02, backoff_cap=0.2)

    async def turn(self, knob: str, **arguments: Any) -> dict[str, Any]:
        url = f"{self.ready['url']}/_emulator/{knob}"
        async with self._http.post(url, json=arguments) as response:
            text = await response.text()
            assert response.status == 200, (knob, arguments, text)
            found: dict[str, Any] = json.loads(text)
            return found

    async def emit(self, oid: str, stream: str, lines: Sequence[bytes], *, again: bool = False) -> int:
        """Send these now, in addition; returns to how many connections. ``again``: some of them come more than once."""
        if again:
            self._again.update(lines)
        self._made.setdefault((oid.encode(), stream), []).extend(lines)
        least = 1 << 30
        for start in range(0, len(lines), CHUNK):
            texts = [line.decode() for line in lines[start : start + CHUNK]]
            least = min(least, (await self.turn("emit", stream=stream, oid=oid, records=texts))["connections"])
        return least

    def fresh(self, oid: str, stream: str, count: int) -> list[bytes]:
        """New records of an organization, made of such as were sent before."""
        self.read()
        known = list(itertools.islice(reversed(self.sent(oid, stream).places), 300))
        now = b'"event_time":%d' % (time.time() * 1000)
        found: list[bytes] = []
        for raw in itertools.islice(itertools.cycle(known), count):
            doc = json.loads(raw)
            name = doc["detect_id"] if stream == "detect" else doc["routing"]["event_id"]
            found.append(TIME.sub(now, raw.replace(name.encode(), str(uuid.uuid4()).encode())))
        return found

    async def timely(self) -> None:
        """Wait until what is generated is of now: on a busy machine it may be late, longer than a back-fill looks back."""
        end = time.monotonic() + PATIENCE
        while True:
            with (self._ledger / "generated-event.jsonl").open("rb") as file:
                file.seek(-min(TAIL, file.seek(0, os.SEEK_END)), os.SEEK_END)
                times = TIME.findall(file.read())
            if times and time.time() - int(times[-1].rpartition(b":")[2]) / 1000 < LATE:
                return
            assert time.monotonic() < end, f"the emulator is more than {LATE} s late; the machine has too much to do"
            await asyncio.sleep(0.1)

    def generated(self, oid: str, stream: str) -> list[bytes]:
        """What was generated of an organization's stream, sent or not, since this was asked last."""
        name = f"generated-{stream}.jsonl"
        with (self._ledger / name).open("rb") as file:
            file.seek(self._made_offsets[name])
            data = file.read()
        data = data[: data.rfind(b"\n") + 1]
        self._made_offsets[name] += len(data)
        for line in data.splitlines():
            found = _OID.search(line)
            assert found is not None, line
            self._made.setdefault((found[1], stream), []).append(line)
        return self._made.pop((oid.encode(), stream), [])

    async def stop(self) -> None:
        if hasattr(self, "_http"):
            await self._http.close()
        if hasattr(self, "_process") and self._process.returncode is None:
            self._process.terminate()
            await self._process.wait()

    def read(self) -> None:
        """Take in what the ledger has more of. It is written before the hand-over, so what arrived is in it."""
        for path in self._ledger.glob("*-*-*.jsonl"):
            if path.name not in self._known:
                via, stream, number = path.stem.split("-")
                self._known[path.name] = Connection(via, stream, int(number))
        for name, one in self._known.items():
            with (self._ledger / name).open("rb") as file:
                file.seek(one.offset)
                data = file.read()
            data = data[: data.rfind(b"\n") + 1]
            if not data:
                continue
            one.offset += len(data)
            lines = data.splitlines()
            if one.oid is None:
                found = _OID.search(lines[0])
                assert found is not None, lines[0]
                one.oid = found[1]
            sent = self.sent(one.oid.decode(), one.stream)
            sent.connections[name] = one
            for line in lines:
                places = sent.places.setdefault(line, [])
                assert not places or line in self._again, f"the emulator sent a record twice: {line[:200]!r}"
                places.append((name, one.lines))
                one.lines += 1
        ends = (self._ledger / "connections.jsonl").read_bytes().splitlines()
        for end in ends[self._ends :]:
            found = json.loads(end)
            if found["file"] in self._known:
                self._known[found["file"]].clean = found["clean"]
        self._ends = len(ends)

    def sent(self, oid: str, stream: str) -> Sent:
        return self._sent.setdefault((oid.encode(), stream), Sent())


class Lake:
    """A real Kafka; `disturbed` counts what was done to it."""

    def __init__(self, folder: Path) -> None:
        self.disturbed = 0
        self.quiet = asyncio.Lock()
        """Who holds it may disturb it, or rely on it."""
        logging.getLogger("aiokafka").setLevel(logging.CRITICAL + 1)
        broker = load(Path(__file__).parent.parent / "kafka_broker.py")
        self._broker = broker.Broker(folder)
        self.bootstrap = self._broker.bootstrap

    async def start(self) -> None:
        await asyncio.to_thread(self._broker.start)
        self._admin = AIOKafkaAdminClient(bootstrap_servers=self.bootstrap)
        await self._admin.start()

    async def stop(self) -> None:
        if hasattr(self, "_admin"):
            await self._admin.close()
        await asyncio.to_thread(self._broker.kill)

    async def make(self, topic: str) -> None:
        answer = await self._admin.create_topics([NewTopic(topic, 1, 1)])
        assert [code for _, code, *_ in answer.topic_errors] == [0], answer

    async def limit(self, topic: str, size: int) -> None:
        """Refuse records that are larger."""
        self.disturbed += 1  # the answer to a batch may be an error that came after a part of it
        change = ConfigResource(ConfigResourceType.TOPIC, topic, {"max.message.bytes": str(size)})
        await self._admin.alter_configs([change])

    async def pause(self, seconds: float) -> None:
        async with self.quiet:
            self.disturbed += 1
            self._broker.pause()
            try:
                await asyncio.sleep(seconds)
            finally:
                self._broker.resume()

    async def outage(self, seconds: float, *, kill: bool) -> None:
        async with self.quiet:
            self.disturbed += 1
            await asyncio.to_thread(self._broker.kill if kill else self._broker.stop)
            await asyncio.sleep(seconds)
            await asyncio.to_thread(self._broker.start)

    def reader(self, topic: str) -> Reader:
        return Reader(self, topic)


class Reader:
    """Reads a topic on from where it was."""

    def __init__(self, lake: Lake, topic: str) -> None:
        self._lake = lake
        self._place = TopicPartition(topic, 0)
        self._consumer: AIOKafkaConsumer | None = None

    async def more(self) -> list[bytes]:
        """All values that are new."""
        async with self._lake.quiet:
            if self._consumer is None:
                self._consumer = AIOKafkaConsumer(bootstrap_servers=self._lake.bootstrap, auto_offset_reset="earliest")
                await self._consumer.start()
                self._consumer.assign([self._place])
            end = (await self._consumer.end_offsets([self._place]))[self._place]
            found: list[bytes] = []
            while await self._consumer.position(self._place) < end:
                for records in (await self._consumer.getmany(timeout_ms=200)).values():
                    found += [record.value for record in records]
            return found

    async def close(self) -> None:
        if self._consumer is not None:
            await self._consumer.stop()
