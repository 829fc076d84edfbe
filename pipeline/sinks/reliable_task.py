"""Sink `reliable_task`: gives a sensor a command for each record, now or when it comes online, and never the same one twice."""

from __future__ import annotations

import re
from collections.abc import Container, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, ClassVar, Literal, Self

from pydantic import field_validator, model_validator

from pipeline.core.batch import Origin
from pipeline.core.component import Context
from pipeline.core.config import BatchConfig, Field, Section, SinkConfig
from pipeline.core.errors import (
    Partial,
    PermanentError,
    PipelineError,
    RateLimitedError,
    Rejected,
    RequestRefusedError,
    RetryLater,
    UsageError,
)
from pipeline.core.event import Undecodable, decode
from pipeline.core.items import Item, Items
from pipeline.core.sink import Mark, Sink
from pipeline.core.types import Duration
from pipeline.limacharlie import records
from pipeline.limacharlie.client import LimaCharlie
from pipeline.limacharlie.config import UUID
from pipeline.limacharlie.reliable_tasking import DEFAULT_TTL
from pipeline.limacharlie.sensor_commands import check
from pipeline.limacharlie.task_template import CommandTemplate, SelectorTemplate, UnfitError
from pipeline.sinks.acting import account_of, later
from pipeline.sinks.intents import Intent, Intents

PATIENCE = 30.0
"""Seconds that one write waits for the rate limit; what is left then is offered again later."""
CLOCKS = 300.0
"""Seconds by which our clock and LimaCharlie's may differ."""
_NO_SENSOR = "00000000-0000-0000-0000-000000000000"
_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_CONTEXT = re.compile(r"(?!__)[A-Za-z0-9._-]{1,64}")


class RateLimitConfig(Section):
    """So many tasks in so much time; a burst may take all of it at once."""

    tasks: int = Field(60, gt=0)
    """How many."""
    per: Duration = Field(60.0, gt=0)
    """In how much time."""


class ReliableTaskConfig(SinkConfig):
    """Send a command to the sensor that a record is about, or to others, through LimaCharlie's extension Reliable Tasking.

    A sensor that is offline gets it when it comes online. The answers carry `CONTEXT/ID` in `routing/investigation_id`: the id is
    the record's (`detect_id`, else the event's id, else a hash of its content). A record that comes again makes no second task.
    """

    type: Literal["reliable_task"] = "reliable_task"
    """Which component this is."""
    task: CommandTemplate
    """The command, like `os_processes` or `file_get {event/FILE_PATH}`. A value from the record is always one word, never an option;
    between quotes, and in the arguments of `run`, it may only have letters, digits and `._:/@-`. `{{` is a brace."""
    selector: SelectorTemplate | None = None
    """The sensors that get it, like `plat == windows and hostname == {routing/hostname}`; default: the record's own sensor."""
    context: str | None = None
    """The first part of the investigation id: letters, digits and `._-`; default: the sink's name."""
    ttl: Duration = Field(float(DEFAULT_TTL), ge=1, lt=1e9)
    """How long the command waits for a sensor that is offline."""
    confirm: bool = False
    """Nothing is sent until this is true: the log says what would be (within the rate limit), and the records count as delivered."""
    origins: tuple[Origin, ...] = ("live",)
    """Records of other origins (`replay`, `backfill`) are filtered."""
    rate_limit: RateLimitConfig = RateLimitConfig()
    """How many tasks are sent at most."""
    unchecked: bool = False
    """Take a command that this program does not know as it is."""
    remember: Duration = Field(86400.0, ge=3600)
    """How long a record's second copy is known as such; at most 10,000 are."""
    lookup_delay: Duration = Field(60.0, ge=0)
    """After a crash or a failure of unknown outcome, how long LimaCharlie may take until a task that it accepted can be seen."""
    if_unknown: Literal["dead_letter", "repeat"] = "dead_letter"
    """What becomes of a record whose task is not in the queue when nothing else tells whether it was sent: a task for a selector, or
    a key without `insight.evt.get`."""
    batch: BatchConfig = BatchConfig(max_events=16, max_bytes=16 << 20, max_wait=0.0)
    """How many items it gets in one write."""

    @field_validator("context")
    @classmethod
    def _plain(cls, context: str | None) -> str | None:
        if context is not None and not _CONTEXT.fullmatch(context):
            raise ValueError("a context has up to 64 letters, digits and ._- and does not begin with __")
        return context

    @model_validator(mode="after")
    def _known_command(self) -> Self:
        if not self.unchecked:
            try:
                check(self.task.example())
            except UsageError as error:
                raise ValueError(f"{error.what} {error.fix}".rstrip()) from None
        return self


@dataclass(frozen=True, slots=True)
class Order:
    """A task to be given."""

    context: str
    command: str
    sid: str | None
    """The sensor that is meant; None where the selector says which are."""
    selector: str | None

    def shown(self) -> dict[str, str]:
        """For a log line."""
        target = {"sid": self.sid} if self.sid else {"selector": self.selector or ""}
        return {"command": self.command, **target, "context": self.context}


class ReliableTaskSink(Sink[ReliableTaskConfig]):
    """Its marks are its `Intents`, by organization and context.

    Reasons of a rejection: ``undecodable``, ``no_org``, ``no_sensor_id``, ``missing_value``, ``unsafe_value``, ``refused`` (by
    LimaCharlie), ``no_sensor`` (the target means none), ``outcome_unknown``.
    """

    has_marks: ClassVar[bool] = True
    needs_disk_spool: ClassVar[bool] = True
    alone: ClassVar[bool] = True

    def __init__(self, config: ReliableTaskConfig, context: Context) -> None:
        super().__init__(config, context)
        self._accounts = {org.name: org.account for org in self.orgs}
        self._context_prefix = config.context or self.id
        self._intents = Intents(self.commit_mark, self.clock, keep=config.remember)
        self._tokens = float(config.rate_limit.tasks)
        self._filled = self.clock.monotonic()

    @classmethod
    def needs_account(cls, config: ReliableTaskConfig) -> bool:
        return config.confirm

    @property
    def origins(self) -> Container[Origin]:
        return self.config.origins

    async def open(self, marks: Mapping[str, Any]) -> None:
        """Take over what was meant and done before."""
        self._intents.restore(marks)
        if not self.config.confirm:
            self.log.warning("Nothing is sent until `confirm: true` is set; the log says what would be.")

    async def check(self) -> None:
        """Ask each organization's extension for a list. Raises `NotSubscribedError` and what a request raises."""
        if self.config.confirm:
            for name in self._accounts:
                await account_of(self._accounts, self.id, name).reliable_tasking.list(sid=_NO_SENSOR)

    async def write(self, items: Items) -> Mark:
        """Give a task for each item. Raises `Partial` for those that it could not, after committing what it did."""
        failures: dict[int, RetryLater | Rejected] = {}
        down: dict[str, RetryLater] = {}
        until = self.clock.monotonic() + PATIENCE
        for index, item in enumerate(items):
            if item.org in down:
                failures[index] = down[item.org]
                continue
            try:
                await self._serve(item, until)
            except (RetryLater, Rejected) as verdict:
                failures[index] = verdict
            except PipelineError as error:
                failures[index] = down[item.org] = later(error)
        if failures:
            await self._intents.commit()
            raise Partial(failures)
        return self._intents.changes()

    async def _serve(self, item: Item, until: float) -> None:
        """See to it that there is one task for this item. Raises `Rejected`, and for what may work later any other error."""
        order = self.order(item)
        if not self.config.confirm:
            self.report.count("dry_run")
            if self._until_allowed() <= 0:  # a storm of records is none of log lines
                self._tokens -= 1
                self.log.info("Would send a task.", **order.shown())
            return
        key = f"{item.org}/{order.context}"
        intent = self._intents.find(key)
        if intent is not None and intent.done:
            self.report.count("known")
            return
        account = account_of(self._accounts, self.id, item.org)
        if intent is not None and await self._is_done(account, order, intent):
            self._intents.finish(key, "found")
            self.report.count("found")
            self.log.info("A task whose outcome was unknown had been accepted.", context=order.context)
            return
        await self._wait_for_rate(until)
        await self._send(account, order, key)

    def order(self, item: Item) -> Order:
        try:
            doc = decode(item.payload)
        except Undecodable as error:
            raise Rejected("undecodable", str(error)) from None
        try:
            command = self.config.task.render(doc)
            selector = self.config.selector.render(doc) if self.config.selector else None
        except UnfitError as error:
            raise Rejected(error.reason, error.detail) from None
        sid = None if selector else records.routing(doc).get("sid")
        if not selector and (not isinstance(sid, str) or not UUID.fullmatch(sid)):
            raise Rejected("no_sensor_id", "the record has no routing/sid that is a sensor's id")
        found = records.unique_id(doc) or ""
        name = found if _ID.fullmatch(found) else blake2b(item.payload, digest_size=16).hexdigest()
        return Order(f"{self._context_prefix}/{name}", command, sid, selector)

    async def _send(self, account: LimaCharlie, order: Order, key: str) -> None:
        await self._intents.begin(key)
        try:
            accepted = await account.reliable_tasking.task(
                order.command,
                sid=order.sid,
                selector=order.selector,
                context=order.context,
                ttl=self.config.ttl,
            )
        except (RequestRefusedError, UsageError) as error:
            self._intents.withdraw(key)
            raise Rejected("refused", str(error)) from None
        except (PermanentError, RateLimitedError):
            self._intents.withdraw(key)
            raise
        if accepted.total == 0:
            self._intents.withdraw(key)
            raise Rejected("no_sensor", "LimaCharlie knows no sensor that is meant")
        self._intents.finish(key, accepted.task_id)
        self.report.count("sent")
        self.log.info(
            "Sent a task.", task=accepted.task_id, **order.shown(), online=accepted.tasked, waiting=accepted.queued
        )

    async def _is_done(self, account: LimaCharlie, order: Order, intent: Intent) -> bool:
        """Whether a task that may have been sent was. Raises `RetryLater` while that cannot be known, `Rejected` if it never can."""
        waiting = await account.reliable_tasking.list(sid=order.sid, selector=order.selector, context=order.context)
        if any(task.command == order.command for task in waiting):
            return True
        told = order.sid is not None
        try:
            if order.sid and await self._was_received(account, order.sid, order.context, intent):
                return True
        except (PermanentError, UsageError) as error:
            self.log.warning("The sensor's history cannot be asked.", context=order.context, error=str(error))
            told = False
        age = self.clock.now() - intent.at
        if 0 <= age < self.config.lookup_delay:
            raise RetryLater("whether a task was accepted is not known yet", after=self.config.lookup_delay - age)
        if told or self.config.if_unknown == "repeat":
            return False
        raise Rejected("outcome_unknown", f"{order.command} may have been sent; neither queue nor history tells")

    async def _was_received(self, account: LimaCharlie, sid: str, context: str, intent: Intent) -> bool:
        """Whether the sensor has had it: then it left the queue, and the sensor's confirmation is in its history."""
        start, end = intent.at - CLOCKS, self.clock.now() + 1
        async for doc in account.history.events(sid, start, end, event_type="CLOUD_NOTIFICATION"):
            if records.routing(doc).get("investigation_id") == context:
                return True
        return False

    async def _wait_for_rate(self, until: float) -> None:
        """Take one of the tasks that the rate limit allows. Raises `RetryLater` where it is too far, or the process is stopping."""
        wait, now = self._until_allowed(), self.clock.monotonic()
        if wait > 0:
            if now + wait <= until:
                await self.sleep(wait)
            if now + wait > until or self.stopping.is_set():
                raise RetryLater("the rate limit of tasks is reached", after=wait)
        self._tokens -= 1

    def _until_allowed(self) -> float:
        """Seconds until the rate limit allows a task; 0 or less where it does now."""
        limit = self.config.rate_limit
        now = self.clock.monotonic()
        self._tokens = min(float(limit.tasks), self._tokens + (now - self._filled) * limit.tasks / limit.per)
        self._filled = now
        return (1 - self._tokens) * limit.per / limit.tasks
