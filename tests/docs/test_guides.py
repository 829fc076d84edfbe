"""docs/guides.yaml names only what exists, and leaves out none of the client's nouns."""

import ast
import asyncio
import importlib
import importlib.util
import re
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

import click
import pytest

from pipeline.cli import cli
from pipeline.emulator.server import Emulator
from pipeline.emulator.state import Settings
from pipeline.limacharlie.client import LimaCharlie

ROOT = Path(__file__).parents[2]


def _generate() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


SECTIONS: list[dict[str, Any]] = _generate().guides()
ITEMS: list[dict[str, Any]] = [item for section in SECTIONS for item in section["items"]]
AI_TABLE = " ".join(
    item["guide"] for section in SECTIONS if section["title"].startswith("AI sessions") for item in section["items"]
)
NAMES = sorted({name for item in ITEMS for name in item["code"]})
COMMANDS = sorted({name for item in ITEMS for name in item["command"]})
TESTS = sorted({name for item in ITEMS for name in item["test"]})


def resolve(name: str) -> Any:
    """The module, class, function or method of this name. Raises AttributeError where there is none."""
    parts = name.split(".")
    for count in range(len(parts), 0, -1):
        try:
            found: Any = importlib.import_module(".".join(parts[:count]))
        except ModuleNotFoundError:
            continue
        for part in parts[count:]:
            found = getattr(found, part)
        return found
    raise AttributeError(name)


def command_of(line: str) -> bool:
    """Whether a command with these options exists."""
    words = line.split()
    command: click.Command | None = cli
    while words and not words[0].startswith("-"):
        if not isinstance(command, click.Group):
            return False
        command = command.get_command(click.Context(command), words.pop(0))
    if command is None:
        return False
    known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    return set(words) <= known


def has_test(name: str) -> bool:
    """Whether a file has a test function of this name."""
    path, _, function = name.partition("::")
    if not (ROOT / path).is_file():
        return False
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    return any(isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name == function for node in tree.body)


@pytest.mark.parametrize("name", NAMES)
def test_code_exists(name: str) -> None:
    """Each name can be imported, and says what it is."""
    found = resolve(name)
    assert found.__doc__ or not callable(found)


@pytest.mark.parametrize("line", COMMANDS)
def test_commands_exist(line: str) -> None:
    """Each command exists, with the options that are named."""
    assert command_of(line)


@pytest.mark.parametrize("name", TESTS)
def test_tests_exist(name: str) -> None:
    """Each test exists."""
    assert has_test(name)


def test_what_does_not_exist_is_noticed() -> None:
    """The checks themselves fail for a name, a command, an option and a test that are not there."""
    with pytest.raises(AttributeError):
        resolve("pipeline.limacharlie.sensors.Sensors.no_such")
    with pytest.raises(AttributeError):
        resolve("pipeline.limacharlie.no_such")
    assert not command_of("task no-such")
    assert not command_of("task send --no-such")
    assert not command_of("tail sub")
    assert not has_test("tests/docs/test_guides.py::test_no_such")
    assert not has_test("tests/docs/test_no_such.py::test_it")


def test_every_item_is_shown_by_a_test() -> None:
    """Nothing is claimed without code and without a test."""
    assert [item["guide"] for item in ITEMS if not item["code"] or not item["test"]] == []


def test_no_noun_is_left_out() -> None:
    """Each noun of the client is in the table."""
    nouns = {
        value.func.__annotations__["return"]
        for value in vars(LimaCharlie).values()
        if isinstance(value, cached_property)
    }
    named = {part for name in NAMES for part in name.split(".")}
    assert nouns - named == set()


AI_SESSIONS = [
    "/v1/register",
    "/v1/sessions",
    "/v1/sessions/{sessionId}",
    "/v1/sessions/{sessionId}/record",
    "/v1/sessions/{sessionId}/fork-preflight",
    "/v1/sessions/{sessionId}/fork",
    "/v1/profiles",
    "/v1/profiles/{profileId}",
    "/v1/profiles/{profileId}/default",
    "/v1/sessions/{sessionId}/capture-profile",
    "/v1/auth/claude/start",
    "/v1/auth/claude/url",
    "/v1/auth/claude/code",
    "/v1/auth/claude/apikey",
    "/v1/auth/claude/status",
    "/v1/auth/claude",
    "/v1/io/sessions/{sessionId}/upload",
    "/v1/io/sessions/{sessionId}/upload/complete",
    "/v1/io/sessions/{sessionId}/download",
    "/v1/sessions/{sessionId}/ws",
    "400",
    "401",
    "403",
    "409",
    "410",
    "412",
    "413",
    "429",
    "4001",
    "4003",
    "4004",
    "4009",
    "4100",
    "4101",
    "4500",
    "prompt",
    "interrupt",
    "heartbeat",
    "upload_request",
    "upload_complete",
    "download_request",
    "assistant",
    "tool_use",
    "tool_result",
    "user",
    "system",
    "result",
    "session_status",
    "session_end",
    "session_error",
    "error",
    "upload_url",
    "download_url",
    "completed",
    "failed",
    "job_completed",
    "user_requested",
    "org_api_requested",
    "max_duration_exceeded",
    "startup_timeout",
    "heartbeat_stale",
    "session_not_found",
    "session_not_running",
    "session_crashed",
    "invalid_message",
    "rate_limited",
]


@pytest.mark.parametrize("word", AI_SESSIONS)
def test_nothing_of_ai_sessions_is_left_out(word: str) -> None:
    """Each endpoint, status, close code, message, end reason and error code of the guide is in the table."""
    assert re.search(rf"(?<![\w/{{]){re.escape(word)}(?![\w/{{])", AI_TABLE)


async def test_the_example_for_programs_runs(monkeypatch, capsys) -> None:
    """The Python of docs/limacharlie.md lists sensors and finds events, with credentials from the environment."""
    text = (ROOT / "docs" / "limacharlie.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"^```py\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    emulator = Emulator(Settings(port=0, rate=500))
    await emulator.start()
    try:
        ready = emulator.ready()
        for name, value in {"LC_OID": ready["oid"], "LC_API_KEY": ready["api_key"], "LC_URL": ready["url"]}.items():
            monkeypatch.setenv(name, value)
        for name in ("LC_UID", "LC_API_URL", "LC_JWT_URL"):
            monkeypatch.delenv(name, raising=False)
        while not emulator.hub.live.history.find(ready["oid"], "event", lambda one: one.event_type == "NEW_PROCESS"):
            await asyncio.sleep(0.05)
        await eval(compile(code, "limacharlie.md", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT), {})
    finally:
        await emulator.stop()
    shown = capsys.readouterr().out
    assert "frozenset(" in shown
    assert "NEW_PROCESS" in shown
