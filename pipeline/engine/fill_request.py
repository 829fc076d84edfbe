"""What `lc-pipeline gaps fill` asks of a running process."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from pipeline.core.errors import RequestRefusedError
from pipeline.engine.build import Plan
from pipeline.engine.gaps import Gap

LOOK = 0.1
"""Seconds between two looks at whether it is done."""


class FillRequest(BaseModel):
    """Fill these gaps, or all that can be."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["gaps"] = "gaps"
    numbers: tuple[int, ...] | None = Field(None, max_length=10_000)
    """None means all."""
    rate: float | None = Field(None, gt=0, allow_inf_nan=False)
    """Records a second at most."""


class FillReport:
    """How far it is. Whoever asked may go away: the gaps are filled all the same."""

    def __init__(self, plan: Plan, request: FillRequest) -> None:
        """Ask for it. Raises `NotFoundError` and `RequestRefusedError`."""
        if not plan.spool.durable:
            raise RequestRefusedError(
                "gaps are filled only with a disk spool, which knows what was delivered", where="spool"
            )
        self.gaps: Sequence[Gap] = plan.filler.want(request.numbers, request.rate)

    async def run(self) -> None:
        """Return when each is filled or given up."""
        while any(gap.state in ("open", "closed", "filling") for gap in self.gaps):  # noqa: ASYNC110 - a person waits, and nothing else wants to be told
            await asyncio.sleep(LOOK)

    def body(self) -> dict[str, Any]:
        """As JSON."""
        return {"gaps": [asdict(gap) for gap in self.gaps]}
