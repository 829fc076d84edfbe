"""The commands that sensors are known to run: what each takes, to complete and check what is typed."""

from __future__ import annotations

import re
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Final

from pipeline.core.errors import UsageError

_CLOSED = re.compile(r"""(?:[^'"]++|'[^']*+'|"(?>\\["\\]|[^"])*+")*+""")
"""Text in which each quote is closed: ``'…'`` is literal, in ``"…"`` a backslash escapes a quote and itself."""


@dataclass(frozen=True, slots=True)
class SensorCommand:
    """What a command does, and its arguments."""

    summary: str
    usage: str = ""
    """Its arguments; in brackets what may be left out."""

    @property
    def needs_arguments(self) -> bool:
        return bool(self.usage) and not self.usage.startswith("[")


SENSOR_COMMANDS: Final = {
    "os_version": SensorCommand("version of the operating system"),
    "os_processes": SensorCommand("processes with their modules", "[-p PID] [--is-no-modules]"),
    "os_services": SensorCommand("services"),
    "os_drivers": SensorCommand("drivers (Windows)"),
    "os_packages": SensorCommand("installed packages"),
    "os_autoruns": SensorCommand("what starts by itself"),
    "os_users": SensorCommand("users (Windows)"),
    "os_kill_process": SensorCommand("end a process", "-p PID | -a ATOM"),
    "os_suspend": SensorCommand("suspend a process", "-p PID | -a ATOM"),
    "os_resume": SensorCommand("resume a process", "-p PID | -a ATOM"),
    "netstat": SensorCommand("network connections"),
    "dns_resolve": SensorCommand("resolve a name there", "DOMAIN"),
    "run": SensorCommand(
        "run a command or a payload",
        "--shell-command COMMAND | --payload-name NAME [--arguments ARGS] [--timeout SECONDS] [--interpreter PROGRAM]",
    ),
    "put": SensorCommand("store a payload", "--payload-name NAME [--payload-path PATH]"),
    "file_info": SensorCommand("facts about a file", "FILE"),
    "file_get": SensorCommand("content of a file", "FILE [-o OFFSET] [-s SIZE]"),
    "file_hash": SensorCommand("hash and signature of a file", "FILE"),
    "file_del": SensorCommand("delete a file", "FILE"),
    "file_mov": SensorCommand("move a file", "SOURCE DESTINATION"),
    "dir_list": SensorCommand("files of a folder", "ROOT EXPRESSION [-d DEPTH]"),
    "mem_map": SensorCommand("memory map of a process", "-p PID | -a ATOM"),
    "mem_strings": SensorCommand("texts in the memory of a process", "-p PID | -a ATOM"),
    "hidden_module_scan": SensorCommand("look for hidden modules (Windows)", "[PID] (-1 for all)"),
    "yara_scan": SensorCommand("scan with a YARA rule", "RULE [-p PID] [-f FILE] [-e EXPRESSION]"),
    "history_dump": SensorCommand("recent events that the sensor holds", "[-r ATOM] [-a ATOM] [-e EVENT]"),
    "artifact_get": SensorCommand("collect a file as an artifact", "--file FILE [--days-retention DAYS]"),
    "segregate_network": SensorCommand("cut off from the network until a restart"),
    "rejoin_network": SensorCommand("let back into the network"),
    "deny_tree": SensorCommand("end a process tree, and keep it from coming back", "ATOM ..."),
    "restart": SensorCommand("restart the sensor"),
    "upgrade_core": SensorCommand("upgrade the sensor"),
}
"""By name."""

_ALIASES: Final = {"os_info": "os_version", "kill": "os_kill_process"}
"""Names that guides use and sensors do not know."""
_BY_NUMBER: Final = re.compile(r"(os_kill_process|mem_map)\s+(\d+)\s*")
"""A process by its number alone, as guides write it."""


def as_sensors_know(text: str) -> str:
    """Return a command that a guide may have written in short (``os_info``, ``kill 4``) the way sensors understand it.

    Raises what `check` raises.
    """
    name, space, arguments = text.partition(" ")
    if name in _ALIASES:
        text = f"{_ALIASES[name]}{space}{arguments}"
    check(text)
    short = _BY_NUMBER.fullmatch(text)
    return f"{short[1]} -p {short[2]}" if short else text


def check(text: str) -> str:
    """Return the name of the command. Raises `UsageError` for one that is not known, lacks its arguments or has an open quote."""
    name, *arguments = text.split(maxsplit=1) or [""]
    command = SENSOR_COMMANDS.get(name)
    if command is None:
        near = [_ALIASES[name]] if name in _ALIASES else get_close_matches(name, SENSOR_COMMANDS, n=1)
        fix = f"Did you mean {near[0]}?" if near else "A command with its arguments is one argument: put it in quotes."
        raise UsageError(f"{name[:80]!r} is not a known sensor command.", fix=fix)
    if command.needs_arguments and not arguments:
        raise UsageError(f"The command {name} lacks its arguments.", fix=f'Write it like "{name} {command.usage}".')
    if not _CLOSED.fullmatch(text):
        raise UsageError(f"The command {name} has a quote that is not closed.")
    return name
