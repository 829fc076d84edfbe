"""Sink `ai_session`: opens an AI session about a record, and never a second one about the same."""

from __future__ import annotations

from collections import deque
from collections.abc import Container, Mapping
from typing import Any, ClassVar, Literal, Self

import orjson
from pydantic import field_validator, model_validator

from pipeline.core.batch import Origin
from pipeline.core.component import Context
from pipeline.core.config import BatchConfig, Field, Section, SinkConfig
from pipeline.core.errors import (
    NotFoundError,
    Partial,
    PermanentError,
    PipelineError,
    RateLimitedError,
    Rejected,
    RetryLater,
)
from pipeline.core.items import Item, Items
from pipeline.core.sink import Mark, Sink
from pipeline.core.types import Duration, RecordPath, Secret
from pipeline.limacharlie.ai.errors import InvalidRequestError, TooManySessionsError
from pipeline.limacharlie.ai.prompt import TOO_DEEP, PromptTemplate, Subject
from pipeline.limacharlie.client import LimaCharlie
from pipeline.limacharlie.failures import TooLargeError
from pipeline.sinks.acting import account_of, later
from pipeline.sinks.ai_session_case import DEBOUNCE, Case
from pipeline.sinks.intents import Intent, Intents

NO_ROOM = 30.0
"""Seconds until a session is tried again for which there was no room among those that are active."""
DAY = 86400.0
_DEBOUNCED = "debounced"


class BudgetConfig(Section):
    """What one session may use; LimaCharlie ends it there."""

    max_turns: int = Field(30, gt=0)
    """Turns of the model."""
    max_usd: float = Field(1.0, gt=0)
    """Costs in US dollars."""
    ttl: Duration = Field(900.0, ge=10)
    """How long the session may live."""


class LimitsConfig(Section):
    """How many sessions are opened; what is above waits. Restarts do not begin the count anew."""

    per_minute: int = Field(10, gt=0)
    """In any minute; LimaCharlie takes ten."""
    per_day: int = Field(200, gt=0, le=10_000)
    """In any 24 hours."""


class DebounceConfig(Section):
    """No second session about the same thing for a while."""

    by: list[RecordPath] = Field(min_length=1)
    """Records with the same values here are about the same thing, like `[routing/sid]`."""
    window: Duration = Field(600.0, gt=0)
    """For how long after a session was opened."""


class AiSessionSinkConfig(SinkConfig):
    """Open an AI session of the organization about each record, with a prompt. The source `ai_session` follows what it says.

    A record that comes again opens no second session. Records of the source `ai_session` itself are rejected.

    What a record says may be written by an attacker. In the prompt a value is one quoted line of at most 300 characters, `{record}`
    and `{detection}` at most 48 KiB between marks that cannot be guessed, and the prompt begins by saying what they mean. A model
    may still be talked into something: allow only tools that can do no harm.
    """

    type: Literal["ai_session"] = "ai_session"
    """Which component this is."""
    prompt: PromptTemplate
    """What the session is asked. `{record}` is the whole record, `{detection}` the detection that it is about, `{routing/hostname}` a
    single value, besides `{stream}` and `{org}`; `{{` is a brace."""
    agent: str | None = Field(None, min_length=1)
    """A definition in the hive `ai_agent` that says who pays and which tools, model and secrets the session has."""
    anthropic_key: Secret | None = None
    """In place of `agent`: the key that pays."""
    name: PromptTemplate | None = None
    """The session's name, like `Triage of {cat}`; default: the sink's."""
    allowed_tools: list[str] | None = None
    """Tools that run unasked; nobody is there to be asked for others. Default: what the agent says, else none."""
    denied_tools: list[str] | None = None
    """Tools that never run."""
    model: str | None = None
    """The model; default: what the agent says, else LimaCharlie's."""
    budget: BudgetConfig = BudgetConfig()
    """What one session may use, whatever the agent says."""
    detection: RecordPath = RecordPath("request/id")
    """Where a record that is no detection itself names the one that it is about; the filter `responses` puts it at `request/id`."""
    detection_wait: Duration = Field(60.0, ge=0)
    """How long after a record came its detection may take to be found; then the prompt says that it is not known."""
    debounce: DebounceConfig | None = None
    """Leave out records about what a session was opened for lately; they count as delivered."""
    limits: LimitsConfig = LimitsConfig()
    """How many sessions are opened."""
    confirm: bool = False
    """Nothing is opened until this is true: the log says what would be, and the records count as delivered."""
    origins: tuple[Origin, ...] = ("live",)
    """Records of other origins (`replay`, `backfill`) are filtered."""
    remember: Duration = Field(7 * DAY, ge=DAY)
    """How long a record's second copy is known as such; at most 10,000 are."""
    lookup_delay: Duration = Field(10.0, ge=0)
    """After a crash or a failure of unknown outcome, how long LimaCharlie may take until a session that it opened is listed."""
    batch: BatchConfig = BatchConfig(max_events=16, max_bytes=16 << 20, max_wait=0.0)
    """How many items it gets in one write."""

    @field_validator("anthropic_key")
    @classmethod
    def _no_reference(cls, key: Secret | None) -> Secret | None:
        if key is not None and key.get_secret_value().startswith("hive://"):
            raise ValueError("a secret of a hive is resolved for an `agent` only; name one")
        return key

    @model_validator(mode="after")
    def _one_payer(self) -> Self:
        if (self.agent is None) == (self.anthropic_key is None):
            raise ValueError("give either `agent` or `anthropic_key`: one of them pays")
        if self.debounce is not None and self.debounce.window > self.remember:
            raise ValueError("the window of `debounce` is longer than `remember`")
        return self


class AiSessionSink(Sink[AiSessionSinkConfig]):
    """Its marks are its `Intents`, by organization and the record's key, and by what `debounce` looks at.

    Reasons of a rejection: ``undecodable``, ``no_org``, ``own_transcript``, ``refused`` (by LimaCharlie).
    """

    has_marks: ClassVar[bool] = True
    needs_disk_spool: ClassVar[bool] = True
    alone: ClassVar[bool] = True

    def __init__(self, config: AiSessionSinkConfig, context: Context) -> None:
        super().__init__(config, context)
        self._accounts = {org.name: org.account for org in self.orgs}
        self._intents = Intents(self.commit_mark, self.clock, keep=config.remember)
        self._opened: deque[float] = deque(maxlen=config.limits.per_day)
        """When sessions were opened, in Unix seconds."""

    @classmethod
    def needs_account(cls, config: AiSessionSinkConfig) -> bool:
        return config.confirm

    @property
    def origins(self) -> Container[Origin]:
        return self.config.origins

    async def open(self, marks: Mapping[str, Any]) -> None:
        """Take over what was meant and done before."""
        self._intents.restore(marks)
        self._opened.clear()
        self._opened.extend(
            sorted(
                float(mark["at"])
                for key, mark in marks.items()
                if not key.startswith(DEBOUNCE) and mark.get("result") != _DEBOUNCED
            )
        )
        if not self.config.confirm:
            self.log.warning("No session is opened until `confirm: true` is set; the log says what would be.")

    async def check(self) -> None:
        """Ask each organization for a session. Raises what a request raises."""
        if self.config.confirm:
            for name in self._accounts:
                async for _ in account_of(self._accounts, self.id, name).ai.org_sessions.list(limit=1):
                    break

    async def write(self, items: Items) -> Mark:
        """Open a session for each item. Raises `Partial` for those that it could not, after committing what it did."""
        failures: dict[int, RetryLater | Rejected] = {}
        down: dict[str, RetryLater] = {}
        for index, item in enumerate(items):
            if item.org in down:
                failures[index] = down[item.org]
                continue
            try:
                await self._serve(item)
            except (RetryLater, Rejected) as verdict:
                failures[index] = verdict
            except PipelineError as error:
                failures[index] = down[item.org] = later(error)
        if failures:
            await self._intents.commit()
            raise Partial(failures)
        return self._intents.changes()

    async def _serve(self, item: Item) -> None:
        """See to it that there is one session for this item. Raises `Rejected`, and for what may work later any other error."""
        debounce = self.config.debounce
        case = Case.of(item, self.id, self.config.detection, debounce.by if debounce is not None else ())
        if not self.config.confirm:
            self.log.info("Would open a session.", **case.shown(), prompt=len(self.config.prompt.render(case.subject)))
            self.report.count("dry_run")
            return
        key = f"{item.org}/{case.opened.key}"
        intent = self._intents.find(key)
        if intent is not None and intent.done:
            self.report.count("known")
            return
        account = account_of(self._accounts, self.id, item.org)
        if intent is not None:
            found = await self._find(account, case, intent)
            if found is not None:
                self._intents.finish(key, found)
                self.report.count("found")
                self.log.info("A session of unknown outcome had been opened.", session=found, **case.shown())
                return
        elif self._is_debounced(case):
            self._intents.finish(key, _DEBOUNCED)
            self.report.count("debounced")
            return
        subject = await self._complete(account, case)
        if intent is None:
            self._take_turn()
        await self._open(account, case, subject, key)

    def _is_debounced(self, case: Case) -> bool:
        last = self._intents.find(case.debounce) if case.debounce else None
        debounce = self.config.debounce
        return last is not None and debounce is not None and 0 <= self.clock.now() - last.at < debounce.window

    async def _complete(self, account: LimaCharlie, case: Case) -> Subject:
        """The subject with its detection, where the prompt wants it. Raises `RetryLater` while that may still come."""
        subject = case.subject
        if subject.detection is not None or case.detect_id is None or not self.config.prompt.wants_detection:
            return subject
        try:
            found = await account.history.detection(case.detect_id)
        except NotFoundError:
            left = case.received_at + self.config.detection_wait - self.clock.now()
            if left > 0:
                raise RetryLater("the detection is not found yet", where=self.id, after=min(left, 2.0)) from None
            self.report.count("detection_not_found")
            self.log.warning("The detection is not found; the session is opened without it.", **case.shown())
            return subject
        try:
            shown = orjson.dumps(found)
        except orjson.JSONEncodeError:
            shown = TOO_DEEP.encode()
        return Subject(subject.doc, subject.payload, subject.stream, subject.org, shown)

    def _take_turn(self) -> None:
        """Take one of the sessions that the limits allow. Raises `RetryLater`."""
        now, limits = self.clock.now(), self.config.limits
        for count, span in ((limits.per_minute, 60.0), (limits.per_day, DAY)):
            if len(self._opened) >= count and 0 <= (since := now - self._opened[-count]) < span:
                if span == DAY:
                    self.report.state("degraded", f"{count} sessions were opened within a day: the next one waits.")
                raise RetryLater("the limit of sessions is reached", where=self.id, after=span - since)
        self._opened.append(now)

    async def _open(self, account: LimaCharlie, case: Case, subject: Subject, key: str) -> None:
        if case.debounce:
            self._intents.finish(case.debounce, key)
        await self._intents.begin(key)
        try:
            session = await self._start(account, case, subject)
        except (PermanentError, RateLimitedError) as error:
            self._withdraw(case, key)
            if isinstance(error, TooManySessionsError):
                raise RetryLater(error.what, where=error.where, fix=error.fix, after=NO_ROOM) from error
            if isinstance(error, InvalidRequestError | TooLargeError):
                raise Rejected("refused", str(error)) from None
            raise
        self._intents.finish(key, session)
        self.report.count("opened")
        self.log.info("Opened a session.", session=session, **case.shown())

    def _withdraw(self, case: Case, key: str) -> None:
        """It was refused: no session was opened, and none is counted."""
        self._intents.withdraw(key)
        if case.debounce:
            self._intents.withdraw(case.debounce)
        if self._opened:
            self._opened.pop()

    async def _start(self, account: LimaCharlie, case: Case, subject: Subject) -> str:
        config = self.config
        settings: dict[str, Any] = {
            "allowed_tools": config.allowed_tools,
            "denied_tools": config.denied_tools,
            "model": config.model,
            "max_turns": config.budget.max_turns,
            "max_budget_usd": config.budget.max_usd,
            "ttl_seconds": config.budget.ttl,
            "one_shot": True,
        }
        settings = {name: value for name, value in settings.items() if value is not None}
        common: dict[str, Any] = {
            "name": case.opened.name(config.name.title(subject) if config.name else self.id),
            "idempotent_key": case.opened.idempotent_key,
            # After a failure of unknown outcome it is looked up first.
            "repeatable": False,
        }
        prompt = config.prompt.render(subject)
        if config.agent is not None:
            return (await account.ai.agents.start(config.agent, prompt=prompt, **common, **settings)).id
        key = config.anthropic_key.get_secret_value() if config.anthropic_key else None
        return (await account.ai.org_sessions.start(prompt, anthropic_key=key, profile=settings, **common)).id

    async def _find(self, account: LimaCharlie, case: Case, intent: Intent) -> str | None:
        """The session that may have been opened, or None. Raises `RetryLater` while it may not be listed yet."""
        found = await case.opened.find(account.ai.org_sessions, intent.at)
        age = self.clock.now() - intent.at
        if found is None and 0 <= age < self.config.lookup_delay:
            wait = self.config.lookup_delay - age
            raise RetryLater("whether a session was opened is not known yet", where=self.id, after=wait)
        return found
