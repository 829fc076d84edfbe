"""The sink `kafka`: records into the topics of an Apache Kafka cluster."""

from __future__ import annotations

import asyncio
import re
from collections import defaultdict, deque
from collections.abc import Iterable, Mapping
from itertools import repeat
from typing import Annotated, Any, Literal

from pydantic import AfterValidator

from pipeline.core.component import Context
from pipeline.core.config import BatchConfig, Field, SinkConfig
from pipeline.core.errors import AuthenticationError, Partial, PipelineError, Rejected, RetryLater, UnavailableError
from pipeline.core.items import NO_VALUES, Items, Part
from pipeline.core.sink import Sink
from pipeline.core.template import Seen, Template
from pipeline.core.types import RecordPath
from pipeline.kit.kafka import Ear, KafkaClientConfig, explain, unknown_topics
from pipeline.kit.kafka_batch import Headers, Row
from pipeline.kit.kafka_producer import Producer
from pipeline.kit.murmur2 import partition

_MAX_TOPIC = 249
"""Characters of a topic's name at most; Kafka's limit."""
_MAX_KEY = 1 << 16
"""Bytes of a key at most: hashing one takes time on the event loop."""
_BATCH, _BATCH_COMPRESSED = 1_040_000, 2_000_000
"""Bytes of a batch at most, before compression. A broker's default limit is 1,048,588 after it; with compression, which halves
JSON at the least, more fits."""
_PATIENCE = 5.0
"""Seconds without the broker's confirmation after which we say so."""


def _legal_topic(template: Template) -> Template:
    literal = re.sub(r"\{[^{}]*\}|%.", "", template.text)
    if not re.fullmatch(r"[A-Za-z0-9._-]*", literal):
        raise ValueError("a topic's name is made of A-Z a-z 0-9 . _ - only")
    if template.text in (".", "..") or len(literal) > _MAX_TOPIC:
        raise ValueError(f"a topic's name has at most {_MAX_TOPIC} characters and is not . or ..")
    return template


class KafkaSinkConfig(KafkaClientConfig, SinkConfig):
    """Write records to Apache Kafka, idempotently and confirmed by all in-sync replicas (`acks=all`).

    Topics are never created; a topic that is missing is an error that says how to create it, and the records wait.
    """

    type: Literal["kafka"] = "kafka"
    topic: Annotated[Template, AfterValidator(_legal_topic)]
    """The topic of a record: a template like `lc.{stream}`, with `{stream}`, `{org}`, record paths and times."""
    key: RecordPath | None = None
    """Record path whose value is the key, like `routing/sid`: equal keys go to the partition that Kafka's own clients would
    choose. Without it, and for a record that lacks it, the partition changes with each write."""
    headers: list[Literal["org", "source", "origin", "received_at"]] = Field(default_factory=list)
    """Headers besides `stream`, as text: the organization, the source's name, `live`, `replay` or `backfill`, the receive
    time in Unix milliseconds (which is the record's timestamp too)."""
    # A whole write fits into one batch with what Kafka adds to each record: a rest would be sent after the first is confirmed.
    batch: BatchConfig = BatchConfig(max_events=5000, max_bytes=928 << 10)
    """How many items it gets in one write."""
    compression: Literal["none", "gzip", "snappy", "lz4", "zstd"] = "zstd"
    """How batches are compressed. gzip and lz4 cost several times the CPU of zstd."""


Place = tuple[str, int]
"""Topic and partition."""
Verdicts = dict[int, RetryLater | Rejected]
"""Index in the write -> why it is not stored."""


class KafkaSink(Sink[KafkaSinkConfig]):
    """Stores each write as one batch per partition (or few), all partitions at once.

    Within a partition the order of the items is kept. Reasons of `Rejected`: `too_large` (the broker refused the record alone
    in a batch, or its key is over 64 KiB), `topic_name` (over 249 characters), `timestamp` (outside of what the topic
    allows), `no_key` (the topic is compacted).

    While aiokafka itself tries again, nothing is stored twice. When a write ends in `RetryLater` after a broker was lost or
    silent, its items may have been stored without our knowing, and the next write stores them again: at least once.
    """

    def __init__(self, config: KafkaSinkConfig, context: Context) -> None:
        super().__init__(config, context)
        self._producer: Producer | None = None
        self._connecting = asyncio.Lock()
        self._ear = Ear(self.log)
        self._silent = False
        """Whether we said that the broker does not confirm."""
        self._seen = Seen()
        self._sticky: dict[str, int] = {}
        self._limit = config.timeout * 0.9
        """Seconds that a write may take, so that it can still say why it failed."""

    @property
    def paths(self) -> Iterable[RecordPath]:
        return self.config.topic.paths | ({self.config.key} if self.config.key else set())

    async def open(self, marks: Mapping[str, Any]) -> None:
        """Connect and log in. Raises `RetryLater` that says what is wrong."""
        del marks
        if (self.config.security_protocol, self.config.sasl_mechanism) == ("SASL_PLAINTEXT", "PLAIN"):
            self.log.warning("The Kafka password travels in the clear: use SASL_SSL or a SCRAM mechanism.")
        try:
            await self._connected()
        except PipelineError as error:
            raise self._later(error) from error

    async def check(self) -> None:
        """Connect, and look for the topic where it is one for all records."""
        producer = await self._connect()
        try:
            if not self.config.topic.paths and self.config.topic.text == self.config.topic.prefix:
                for error in (await producer.learn([self.config.topic.text])).values():
                    raise error
        finally:
            await producer.stop()

    async def write(self, items: Items) -> None:
        """Store all items, or raise `Partial` or `RetryLater` as `Sink.write` says."""
        deadline = asyncio.get_running_loop().time() + self._limit
        verdicts: Verdicts = {}
        self._ear.forget()
        try:
            async with asyncio.timeout_at(deadline):
                producer = await self._connected()
                queues = await self._places(producer, items, verdicts)
        except (PipelineError, TimeoutError) as error:
            self._drop(self._producer)
            raise self._later(error) from error
        while queues:
            refused = await self._round(producer, queues, verdicts, deadline)
            if refused:
                # A failed batch leaves a hole in its partition's sequence numbers: only a new producer can go on.
                self._drop(producer)
            queues = {place: queue for place, queue in queues.items() if queue}
            if refused and queues:
                try:
                    async with asyncio.timeout_at(deadline):
                        producer = await self._connected()
                        await producer.learn({topic for topic, _ in queues})
                except (PipelineError, TimeoutError) as error:
                    self._drop(self._producer)
                    _postpone((rows for queue in queues.values() for rows in queue), self._later(error), verdicts)
                    queues = {}
        if len(verdicts) == len(items) and len({*map(id, verdicts.values())}) == 1:
            (verdict, *_) = verdicts.values()
            raise verdict
        if verdicts:
            raise Partial(verdicts)

    async def close(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            await producer.stop()

    # connection

    async def _connected(self) -> Producer:
        async with self._connecting:
            if self._producer is None:
                self._producer = await self._connect()
            return self._producer

    async def _connect(self) -> Producer:
        compression = self.config.compression
        return await Producer.connect(
            self.config,
            self._ear,
            compression=compression,
            batch=_BATCH if compression == "none" else _BATCH_COMPRESSED,
            timeout=self._limit,
        )

    def _drop(self, producer: Producer | None) -> None:
        """Give a producer up; the next write makes a new one. Other writes that use it end in `RetryLater`."""
        if self._producer is producer:
            self._producer = None
        if producer is not None:
            producer.cut()

    def _later(self, error: BaseException) -> RetryLater:
        told = error if isinstance(error, PipelineError) else explain(self.config, error, self._ear)
        return RetryLater(told.what, fix=told.fix)

    # from items to partitions

    async def _places(self, producer: Producer, items: Items, verdicts: Verdicts) -> dict[Place, deque[list[Row]]]:
        topics: dict[str, list[Row]] = {}
        start = 0
        for part in items.parts:
            self._add(part, start, topics)
            start += len(part.payloads)
        for topic in [topic for topic in topics if len(topic) > _MAX_TOPIC]:
            refused = Rejected("topic_name", f"the topic's name would have {len(topic)} characters")
            verdicts.update((row[0], refused) for row in topics.pop(topic))
        errors = await producer.learn(topics)
        for error in {id(error): error for error in errors.values()}.values():
            later = self._later(error)
            _postpone((topics.pop(topic) for topic in [*topics] if errors.get(topic) is error), later, verdicts)
        queues: dict[Place, deque[list[Row]]] = {}
        for topic, rows in topics.items():
            for number, group in self._partitions(producer, topic, rows, verdicts).items():
                queues[topic, number] = deque([group])
        return queues

    def _add(self, part: Part, start: int, topics: dict[str, list[Row]]) -> None:
        """Sort the items of a part, the first of which has the index ``start``, by topic."""
        template, path = self.config.topic, self.config.key
        indices = range(start, start + len(part.payloads))
        values = part.values if part.values is not None else [NO_VALUES] * len(indices)
        keys: Iterable[bytes | None] = repeat(None)
        if path is not None:
            found = [value.get(path) for value in values]
            keys = [None if text is None else text.encode(errors="replace") for text in found]
        timestamp = int(part.received_at * 1000)
        # zip ends with the payloads; what all items share costs nothing per item
        rows = zip(
            indices, part.payloads, keys, repeat(timestamp), repeat(self._headers(part, timestamp)), strict=False
        )
        if not template.paths:
            topics.setdefault(self._topic(part, NO_VALUES), []).extend(rows)
        else:
            for row, value in zip(rows, values, strict=True):
                topics.setdefault(self._topic(part, value), []).append(row)

    def _topic(self, part: Part, values: Mapping[str, str]) -> str:
        return self.config.topic.render(part.stream, part.org, part.received_at, values, self._seen)

    def _headers(self, part: Part, timestamp: int) -> Headers:
        facts = {"org": part.org, "source": part.log.source, "origin": part.origin, "received_at": str(timestamp)}
        return [("stream", part.stream.encode()), *((name, facts[name].encode()) for name in self.config.headers)]

    def _partitions(
        self, producer: Producer, topic: str, rows: list[Row], verdicts: Verdicts
    ) -> Mapping[int, list[Row]]:
        count, able = producer.partitions(topic)
        last = self._sticky.get(topic, -1)
        sticky = self._sticky[topic] = next((number for number in able if number > last), able[0])
        if self.config.key is None:
            return {sticky: rows}
        groups: defaultdict[int, list[Row]] = defaultdict(list)
        for row in rows:
            key = row[2]
            if key is None:
                groups[sticky].append(row)
            elif len(key) <= _MAX_KEY:
                groups[partition(key, count)].append(row)
            else:
                verdicts[row[0]] = Rejected("too_large", f"its key has {len(key)} bytes, more than {_MAX_KEY}")
        return groups

    # from partitions to the broker

    async def _round(
        self,
        producer: Producer,
        queues: Mapping[Place, deque[list[Row]]],
        verdicts: Verdicts,
        deadline: float,
    ) -> bool:
        """Send the next batch of each partition and wait for all; return whether one failed.

        A batch refused for its content is halved until the culprit stands alone.
        """
        sent: dict[asyncio.Future[Any], tuple[Place, list[Row]]] = {}
        try:
            for place, queue in queues.items():
                rows = queue.popleft()
                batch = producer.batch()
                taken = batch.fill(rows)
                if taken < len(rows):
                    queue.appendleft(rows[taken:])
                sent[await producer.send(batch, *place, deadline=deadline)] = (place, rows[:taken])
            trouble = await self._confirmation(producer, sent, deadline)
        except asyncio.CancelledError:
            self._drop(producer)
            raise
        failed = False
        for future, (place, rows) in sent.items():
            error = trouble if not future.done() else future.exception()
            future.cancel()
            if error is None:
                continue
            failed = True
            queue = queues[place]
            refusal = _REFUSALS.get(type(error).__name__)
            if refusal and len(rows) > 1:
                self.log.warning("The topic refuses a batch; it is sent in halves.", topic=place[0], reason=refusal)
                half = len(rows) // 2
                queue.extendleft((rows[half:], rows[:half]))
            elif refusal:
                size = len(rows[0][1])
                verdicts[rows[0][0]] = Rejected(refusal, f"refused by the topic {place[0]}; it has {size} bytes")
            else:
                _postpone((rows, *queue), self._later(error), verdicts)
                queue.clear()
        return failed

    async def _confirmation(
        self, producer: Producer, sent: Mapping[asyncio.Future[Any], tuple[Place, list[Row]]], deadline: float
    ) -> PipelineError | None:
        """Wait until each batch is confirmed or refused; return why where waiting ends before that."""
        clock = asyncio.get_running_loop().time
        pending = set(sent)
        while pending:
            left = deadline - clock()
            _, pending = await asyncio.wait(pending, timeout=max(0.0, min(left, _PATIENCE)))
            if not pending:
                break
            if gone := {topic for (topic, _), _ in map(sent.__getitem__, pending) if not producer.knows(topic)}:
                return unknown_topics(self.config, gone)
            trouble = explain(self.config, UnavailableError("no confirmation"), self._ear)
            if left <= _PATIENCE or isinstance(trouble, AuthenticationError):
                return trouble
            self._silent = True
            self.report.state("degraded", str(trouble), trouble.code)
            self.log.warning("Kafka has not confirmed a write yet.", reason=str(trouble))
        if self._silent:
            self._silent = False
            self.report.state("ok")
        return None


_REFUSALS = {
    "MessageSizeTooLargeError": "too_large",
    "RecordListTooLargeError": "too_large",
    "InvalidTimestampError": "timestamp",
    "InvalidRecordError": "no_key",
}
"""Errors of aiokafka (by name: it is imported late) that blame the records of a batch -> the reason for the dead letter."""


def _postpone(groups: Iterable[list[Row]], verdict: RetryLater, verdicts: Verdicts) -> None:
    for rows in groups:
        verdicts.update((row[0], verdict) for row in rows)
