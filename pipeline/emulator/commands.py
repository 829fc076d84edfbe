"""The commands that a sensor runs, and what it answers to each."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.emulator import commands_files as files
from pipeline.emulator import commands_memory as memory
from pipeline.emulator import commands_system as system
from pipeline.emulator.commandline import Syntax, TaskError, split
from pipeline.emulator.machine import Machine

Reply = tuple[str, dict[str, Any]]
"""An event type and its payload."""

Arguments = Mapping[str, str]
Answer = Callable[[Machine, Arguments], Iterable[Reply]]

ENDPOINTS = frozenset({"windows", "linux", "macos"})
EVERYWHERE = ENDPOINTS | {"chrome"}
WINDOWS = frozenset({"windows"})

ALIASES = {"os_info": "os_version", "kill": "os_kill_process"}
"""Names that guides use and no reference has."""

_PID = {"-p": "pid", "--pid": "pid", "--processid": "pid"}
_TARGET = {**_PID, "-a": "atom", "--atom": "atom", "--processatom": "atom"}
_FILE = {"-f": "file", "--file": "file", "--file_path": "file", "--filepath": "file"}
_MOVE = {"-s": "source", "--source": "source", "-d": "destination", "--destination": "destination"}
_LIST = {
    "-r": "root",
    "--root": "root",
    "--rootdir": "root",
    "-d": "depth",
    "--depth": "depth",
    "-e": "expression",
    "--expression": "expression",
    "--fileexp": "expression",
}
_ARTIFACT = {**_FILE, "--days-retention": "days", "--type": "type", "--payload-id": "id"}
_HISTORY = {"-r": "root", "--rootatom": "root", "-a": "atom", "--atom": "atom", "-e": "event", "--eventid": "event"}
_SCAN = {
    **_PID,
    "-f": "file",
    "--filePath": "file",
    "-e": "expression",
    "--processExpr": "expression",
    "-r": "root",
    "--root-dir": "root",
    "-d": "depth",
    "--depth": "depth",
}
_NONE = Syntax()


@dataclass(frozen=True)
class Command:
    answer: Answer
    syntax: Syntax = _NONE
    platforms: frozenset[str] = ENDPOINTS


@dataclass(frozen=True)
class Task:
    """A task that was understood."""

    name: str
    command: Command
    arguments: Arguments

    @property
    def notification(self) -> str:
        """What the sensor's confirmation calls it."""
        return f"{self.name.upper()}_REQ"

    def run(self, machine: Machine) -> list[Reply]:
        now = int(time.time() * 1000)
        return [(kind, {"TIMESTAMP": now, **payload}) for kind, payload in self.command.answer(machine, self.arguments)]


def understand(text: str, platform: str, *, aliases: bool) -> Task:
    """Read a task for a sensor of a platform; raises `TaskError`."""
    words = split(text)
    if not words:
        raise TaskError("the task is empty")
    name = ALIASES.get(words[0], words[0]) if aliases else words[0]
    command = COMMANDS.get(name)
    if command is None:
        raise TaskError(f"unknown command: {words[0][:80]}")
    if platform not in command.platforms:
        raise TaskError(f"UNSUPPORTED_FOR_PLATFORM: {name} on {platform}")
    return Task(name, command, command.syntax.parse(name, words[1:]))


COMMANDS: dict[str, Command] = {
    "os_version": Command(system.os_version, platforms=EVERYWHERE),
    "os_processes": Command(system.os_processes, Syntax(_PID, frozenset({"--is-no-modules"}), ("pid",))),
    "os_services": Command(system.os_services),
    "os_drivers": Command(system.os_drivers, platforms=WINDOWS),
    "os_packages": Command(system.os_packages, platforms=EVERYWHERE),
    "os_autoruns": Command(system.os_autoruns),
    "os_users": Command(system.os_users, platforms=WINDOWS),
    "os_kill_process": Command(system.os_kill_process, Syntax(_TARGET, words=("pid",))),
    "os_suspend": Command(system.os_suspend, Syntax(_TARGET, words=("pid",))),
    "os_resume": Command(system.os_resume, Syntax(_TARGET, words=("pid",))),
    "netstat": Command(system.netstat),
    "dns_resolve": Command(
        system.dns_resolve,
        Syntax({"-d": "domain", "--domain": "domain", "--hostname": "domain"}, words=("domain",)),
        EVERYWHERE,
    ),
    "run": Command(
        system.run,
        Syntax(
            {
                "--shell-command": "command",
                "--command": "command",
                "--payload-name": "payload",
                "--arguments": "arguments",
                "--timeout": "timeout",
                "--interpreter": "interpreter",
            },
            frozenset({"--is-ignore-cert"}),
        ),
    ),
    "put": Command(
        files.put,
        Syntax({"--payload-name": "payload", "--payload-path": "path"}, frozenset({"--is-ignore-cert"})),
    ),
    "segregate_network": Command(system.segregate_network, platforms=EVERYWHERE),
    "rejoin_network": Command(system.rejoin_network, platforms=EVERYWHERE),
    "restart": Command(system.silent),
    "upgrade_core": Command(system.silent),
    "deny_tree": Command(system.silent, Syntax({"-a": "atom", "--atom": "atom"}, words=("atom",), rest=True)),
    "artifact_get": Command(
        system.silent,
        Syntax(_ARTIFACT, frozenset({"--is-ignore-cert"}), ("file",)),
    ),
    "file_info": Command(files.file_info, Syntax(_FILE, words=("file",))),
    "file_get": Command(
        files.file_get,
        Syntax({**_FILE, "-o": "offset", "--offset": "offset", "-s": "size", "--size": "size"}, words=("file",)),
    ),
    "file_hash": Command(files.file_hash, Syntax(_FILE, words=("file",))),
    "file_del": Command(files.file_del, Syntax(_FILE, words=("file",))),
    "file_mov": Command(
        files.file_mov,
        Syntax(_MOVE, words=("source", "destination")),
    ),
    "dir_list": Command(
        files.dir_list,
        Syntax(_LIST, words=("root", "expression")),
    ),
    "mem_map": Command(memory.mem_map, Syntax(_TARGET, words=("pid",))),
    "mem_strings": Command(memory.mem_strings, Syntax(_TARGET, words=("pid",))),
    "hidden_module_scan": Command(memory.hidden_module_scan, Syntax(_PID, words=("pid",)), WINDOWS),
    "history_dump": Command(
        memory.history_dump,
        Syntax(_HISTORY),
        EVERYWHERE,
    ),
    "yara_scan": Command(
        memory.yara_scan,
        Syntax(_SCAN, words=("rule",)),
    ),
}
"""Every command by its name."""
