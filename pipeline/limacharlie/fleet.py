"""Doing the same to many, a few at a time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

from pipeline.core.errors import AuthenticationError, PermissionDeniedError, PipelineError

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Outcome(Generic[Item, Result]):
    """What became of one of many: a value, or the error instead."""

    item: Item
    value: Result | None = None
    error: PipelineError | None = None

    @property
    def ok(self) -> bool:
        return self.error is None


async def each(
    items: Iterable[Item] | AsyncIterable[Item], call: Callable[[Item], Awaitable[Result]], *, limit: int = 8
) -> list[Outcome[Item, Result]]:
    """Await ``call`` for each item, at most ``limit`` at once, and return what became of each, in the order of ``items``.

    One that fails does not end the others, except by refused credentials or a missing permission, which would fail them all: that
    error is raised, as is one that is not a `PipelineError`.
    """
    outcomes: dict[int, Outcome[Item, Result]] = {}
    source = _numbered(items)
    turn = asyncio.Lock()

    async def work() -> None:
        while True:
            async with turn:
                try:
                    number, item = await anext(source)
                except StopAsyncIteration:
                    return
            try:
                outcomes[number] = Outcome(item, await call(item))
            except (AuthenticationError, PermissionDeniedError):
                raise
            except PipelineError as error:
                outcomes[number] = Outcome(item, error=error)

    first: BaseException | None = None
    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(max(1, limit)):
                group.create_task(work())
    except BaseExceptionGroup as failed:
        first = failed.exceptions[0]
    finally:
        await source.aclose()
    if first is not None:
        raise first
    return [outcomes[number] for number in sorted(outcomes)]


async def _numbered(items: Iterable[Item] | AsyncIterable[Item]) -> AsyncGenerator[tuple[int, Item], None]:
    number = 0
    if isinstance(items, AsyncIterable):
        async for item in items:
            yield number, item
            number += 1
    else:
        for item in items:
            yield number, item
            number += 1
