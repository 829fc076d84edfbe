"""Commands about files."""

from __future__ import annotations

import base64
import fnmatch
import hashlib
import time
from typing import Any

from pipeline.emulator.commands_system import MISSING, NOT_FOUND, Given, Replies
from pipeline.emulator.machine import Machine

TOO_BIG = 223
MAX_FILE = 10 << 20
"""Bytes that a sensor sends of one file."""
NO_ROOM = 112
MAX_LISTED = 500

_SIGNATURE = {
    "CERT_ISSUER": "C=US, O=Example Signing Authority, CN=Example Code Signing",
    "CERT_SUBJECT": "C=US, O=Example, CN=Example",
    "CERT_CHAIN_STATUS": 124,
}


def _info(path: str, content: bytes) -> dict[str, Any]:
    now = int(time.time() * 1000)
    return {
        "FILE_PATH": path,
        "FILE_SIZE": len(content),
        "ATTRIBUTES": 32,
        "CREATION_TIME": now - 86_400_000,
        "MODIFICATION_TIME": now - 3_600_000,
        "ACCESS_TIME": now,
        "FILE_IS_SIGNED": int(content.startswith(b"MZ")),
    }


def file_info(machine: Machine, given: Given) -> Replies:
    path, problem = _known(machine, given)
    yield "FILE_INFO_REP", problem or _info(path, machine.files[path])


def file_get(machine: Machine, given: Given) -> Replies:
    path, problem = _known(machine, given)
    if problem:
        yield "FILE_GET_REP", problem
        return
    start, size = _number(given, "offset", 0), _number(given, "size", MAX_FILE + 1)
    content = machine.files[path]
    part = content[start : start + size]
    if len(part) > MAX_FILE:
        yield "FILE_GET_REP", {"FILE_PATH": path, "FILE_SIZE": len(content), "ERROR": TOO_BIG}
    else:
        encoded = base64.b64encode(part).decode()
        yield "FILE_GET_REP", {"FILE_PATH": path, "FILE_SIZE": len(content), "FILE_CONTENT": encoded}


def file_hash(machine: Machine, given: Given) -> Replies:
    path, problem = _known(machine, given)
    if problem:
        yield "FILE_HASH_REP", problem
        return
    signed = machine.files[path].startswith(b"MZ")
    digest = hashlib.sha256(machine.files[path]).hexdigest()
    payload = {"FILE_PATH": path, "HASH": digest, "FILE_IS_SIGNED": int(signed)}
    yield "FILE_HASH_REP", payload | ({"SIGNATURE": {**_SIGNATURE, "FILE_PATH": path}} if signed else {})


def file_del(machine: Machine, given: Given) -> Replies:
    path, problem = _known(machine, given)
    if not problem:
        del machine.files[path]
    yield "FILE_DEL_REP", problem or {"FILE_PATH": path}


def file_mov(machine: Machine, given: Given) -> Replies:
    source, destination = given.get("source", ""), given.get("destination", "")
    payload: dict[str, Any] = {"SOURCE": source, "DESTINATION": destination}
    if not source or not destination:
        payload["ERROR"] = MISSING
    elif source not in machine.files:
        payload["ERROR"] = NOT_FOUND
    else:
        machine.files[destination] = machine.files.pop(source)
    yield "FILE_MOV_REP", payload


def dir_list(machine: Machine, given: Given) -> Replies:
    """The files in a folder, and below it as deep as asked, whose names fit an expression with ``*`` and ``?``."""
    root, expression = given.get("root", ""), given.get("expression", "")
    if not root or not expression:
        yield "DIR_LIST_REP", {"ERROR": MISSING}
        return
    sep = machine.separator
    inside = root.rstrip(sep) + sep
    rows = []
    for path, content in list(machine.files.items())[:MAX_LISTED]:
        folder, _, name = path.removeprefix(inside).rpartition(sep)
        deep = len(folder.split(sep)) if folder else 0
        if path.startswith(inside) and deep <= _number(given, "depth", 0) and fnmatch.fnmatch(name, expression):
            rows.append({"FILE_NAME": name, **_info(path, content)})
    yield "DIR_LIST_REP", {"DIRECTORY_LIST": rows}


def put(machine: Machine, given: Given) -> Replies:
    """The payload becomes a file; the receipt says whether it could."""
    name = given.get("payload")
    if not name:
        yield "RECEIPT", {"ERROR": MISSING}
        return
    done = machine.put(given.get("path") or name, name.encode())
    yield "RECEIPT", {"ERROR": 0 if done else NO_ROOM}


def _known(machine: Machine, given: Given) -> tuple[str, dict[str, Any] | None]:
    """Return the path of the file that is meant, and the answer if there is none."""
    path = given.get("file", "")
    if not path:
        return path, {"ERROR": MISSING}
    return path, None if path in machine.files else {"FILE_PATH": path, "ERROR": NOT_FOUND}


def _number(given: Given, name: str, default: int) -> int:
    text = given.get(name, "")
    return int(text) if text.isdecimal() and len(text) < 16 else default
