"""What the knobs turn, and what a knob is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from pipeline.emulator.ai_state import Ai
from pipeline.emulator.dialer import Dialer
from pipeline.emulator.faults import Faults
from pipeline.emulator.hub import Hub
from pipeline.emulator.jwt import Tokens
from pipeline.emulator.rest import Rest

Seconds = Annotated[float, Field(ge=0, le=86_400)]
Times = Annotated[int, Field(ge=1)] | None
Result = dict[str, Any]


@dataclass
class Panel:
    """All that knobs turn."""

    hub: Hub
    tokens: Tokens
    faults: Faults
    dialer: Dialer
    rest: Rest
    ai: Ai = field(default_factory=Ai)
    requests: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    """Status → count, by method and route."""


class Knob(BaseModel, ABC):
    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    @abstractmethod
    def turn(self, panel: Panel) -> Result:
        """Do it; raises `ValueError` or `LookupError` for what cannot be."""
