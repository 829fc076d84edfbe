"""Commands that look into memory, and scans."""

from __future__ import annotations

import hashlib
from typing import Any

from pipeline.emulator.commands_system import MISSING, NO_PROCESS, Given, Replies
from pipeline.emulator.machine import Machine
from pipeline.emulator.payloads_endpoint import Process
from pipeline.emulator.records import Dice

DONE = {"ERROR": 0, "ERROR_MESSAGE": "done"}
"""What ends a scan."""


def mem_map(machine: Machine, given: Given) -> Replies:
    process, problem = _process(machine, given)
    if process is None:
        yield "MEM_MAP_REP", problem
        return
    dice = Dice(process.atom)
    regions = [
        {
            "BASE_ADDRESS": 94_100_802_174_976 + (number << 12),
            "MEMORY_SIZE": 4096,
            "MEMORY_TYPE": dice.between(1, 4),
            "MEMORY_ACCESS": dice.between(1, 8),
        }
        for number in range(24)
    ]
    yield "MEM_MAP_REP", {"MEMORY_MAP": regions, "PROCESS_ID": process.pid}


def mem_strings(machine: Machine, given: Given) -> Replies:
    process, problem = _process(machine, given)
    if process is None:
        yield "MEM_STRINGS_REP", problem
        return
    yield (
        "MEM_STRINGS_REP",
        {
            "PROCESS_ID": process.pid,
            "STRINGSA": [["!This program cannot be run", "kernel32"]],
            "STRINGSW": [["Mozilla"]],
        },
    )


def hidden_module_scan(_: Machine, __: Given) -> Replies:
    """Nothing is hidden, in one process or in all (-1)."""
    yield "HIDDEN_MODULE_DETECTED", dict(DONE)


def history_dump(machine: Machine, given: Given) -> Replies:
    """What the sensor kept to itself comes first, as the events that it is."""
    for kind, payload in machine.cached():
        if given.get("event", kind) == kind:
            yield kind, payload
    yield "HISTORY_DUMP_REP", {"ERROR": 0}


def yara_scan(machine: Machine, given: Given) -> Replies:
    """One hit, on the file that is named or the first process, and the end of the scan."""
    rule = given.get("rule")
    if not rule:
        yield "YARA_DETECTION", {"ERROR": MISSING}
        return
    rows = machine.processes()
    path = given.get("file") or (rows[0]["FILE_PATH"] if rows else "")
    digest = hashlib.sha256(machine.files.get(path, path.encode())).hexdigest()
    yield "YARA_DETECTION", {"RULE_NAME": rule, "FILE_PATH": path, "HASH": digest}
    yield "YARA_DETECTION", dict(DONE)


def _process(machine: Machine, given: Given) -> tuple[Process | None, dict[str, Any]]:
    target = given.get("pid") or given.get("atom")
    if not target:
        return None, {"ERROR": MISSING}
    known = {"PROCESS_ID": int(target)} if target.isdecimal() and len(target) < 12 else {}
    return machine.process(target), known | {"ERROR": NO_PROCESS}
