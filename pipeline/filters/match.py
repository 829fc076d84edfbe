"""Keeps the records that satisfy a condition in LimaCharlie's own rule language."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from pipeline.core.config import Field, FilterConfig
from pipeline.core.filter import Decider, Needs
from pipeline.filters.predicate import PredicateFilter
from pipeline.rules.compile import compile_rule
from pipeline.rules.condition import RuleError
from pipeline.rules.needs import needs_of
from pipeline.rules.values import Scalar

_NOT_THE_RULE = frozenset(FilterConfig.model_fields)


class MatchConfig(FilterConfig):
    """Keep the records that satisfy one condition, written as in a LimaCharlie detection rule.

    A path goes from the record's root (`event/FILE_PATH`, `routing/hostname`, `cat`); `?` is one level, `*` any number of levels,
    and a list is as if each of its elements were at its place. The condition holds when any value at the path satisfies it.
    """

    type: Literal["match"] = "match"
    """Which component this is."""
    op: str
    """`is`, `exists`, `contains`, `starts with`, `ends with`, `matches`, `is greater than`, `is lower than`, `and` or `or`."""
    event: str | None = None
    """Only records of this type, exactly (as filter `events` has it); others do not satisfy the condition, `not` or not."""
    events: list[str] | None = None
    """Only records of one of these types, in place of `event`."""
    path: str | None = None
    """Where the value is in the record; for all but `and`, `or`."""
    value: Scalar | None = None
    """What to compare with. `is` compares loosely: `4625`, `'4625'` and `'0x1211'` equal the number 4625."""
    re: str | None = None
    """For `matches`: a regular expression in RE2's syntax, found anywhere in the value, in upper or lower case."""
    rules: list[dict[str, Any]] | None = None
    """For `and`, `or`: the conditions, each with keys like this one."""
    negate: bool = Field(False, alias="not")
    """Keep the records that do not satisfy the condition."""
    case_sensitive: bool | None = Field(None, alias="case sensitive")
    """Whether upper and lower case differ; by default they do, but not with `matches`."""
    count: int | None = None
    """For `contains`: how many times at least."""
    truthy: bool | None = None
    """For `exists`: null and the empty text count as absent."""
    length_of: bool | None = Field(None, alias="length of")
    """For `is greater than`, `is lower than`: compare the length of a text, list or object."""

    @model_validator(mode="before")
    @classmethod
    def _check_rule(cls, data: Any) -> Any:
        if isinstance(data, Mapping):
            try:
                compile_rule({key: value for key, value in data.items() if key not in _NOT_THE_RULE})
            except RuleError as error:
                raise _at_their_places(error) from None
        return data

    def rule(self) -> dict[str, Any]:
        """Return the condition as written."""
        return self.model_dump(by_alias=True, exclude_unset=True, exclude=set(_NOT_THE_RULE))


class Match(PredicateFilter[MatchConfig]):
    """Decides by the compiled rule."""

    def needs(self) -> Needs:
        return needs_of(self.config.rule())

    def decider(self) -> Decider:
        return compile_rule(self.config.rule())


def _at_their_places(error: RuleError) -> ValidationError:
    """Return what makes pydantic report each mistake at its own place in the configuration."""
    return ValidationError.from_exception_data(
        "match",
        [
            InitErrorDetails(
                type=PydanticCustomError("rule", "{text}", {"text": f"{mistake.what} {mistake.fix}".rstrip()}),
                loc=mistake.location,
                input=None,
            )
            for mistake in error.mistakes
        ],
    )
