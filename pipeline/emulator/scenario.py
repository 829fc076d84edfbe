"""A file that turns knobs at given times."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import orjson
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from pipeline.emulator.knobs import parse
from pipeline.emulator.panel import Knob, Panel
from pipeline.kit.log import get

log = get(component="scenario")


class Scenario:
    """Steps ``{"at": seconds after the start, "fault": name, …arguments}``, as JSON lines or a YAML list.

    Raises `ValueError` for a file that cannot be read or a step that cannot be understood.
    """

    def __init__(self, path: Path | None) -> None:
        steps = [] if path is None else [_step(number, given) for number, given in enumerate(_load(path), 1)]
        self._steps = sorted(steps, key=lambda step: step[0])

    async def run(self, panel: Panel) -> None:
        loop = asyncio.get_running_loop()
        start = loop.time()
        for at, name, knob in self._steps:
            await asyncio.sleep(start + at - loop.time())
            try:
                knob.turn(panel)
            except (LookupError, ValueError) as error:
                reason = str(error.args[0])
                log.error("A step of the scenario failed.", fault=name, at=at, reason=reason)  # noqa: TRY400 - the file is wrong, not the code
            else:
                log.info("A step of the scenario is done.", fault=name, at=at)


def _load(path: Path) -> list[Any]:
    try:
        text = path.read_text()
        if text.lstrip().startswith("{"):
            return [orjson.loads(line) for line in text.splitlines() if line.strip()]
        steps = YAML(typ="safe").load(text)
    except (OSError, UnicodeDecodeError, orjson.JSONDecodeError, YAMLError) as error:
        raise ValueError(f"{path}: {error}") from error
    if not isinstance(steps, list):
        raise ValueError(f"{path}: expected JSON lines or a YAML list")  # noqa: TRY004 - of the file, not of an argument
    return steps


def _step(number: int, given: Any) -> tuple[float, str, Knob]:
    if not isinstance(given, dict):
        raise ValueError(f"scenario step {number}: expected an object")  # noqa: TRY004 - of the file, not of an argument
    arguments = dict(given)
    at, name = arguments.pop("at", 0), arguments.pop("fault", "")
    if not isinstance(at, int | float) or at < 0:
        raise ValueError(f"scenario step {number}: at is not a number of seconds")
    try:
        return float(at), str(name), parse(str(name), arguments)
    except (LookupError, ValueError) as error:
        raise ValueError(f"scenario step {number}: {error.args[0]}") from error
