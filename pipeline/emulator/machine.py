"""What a sensor finds on its machine: processes, files, services, programs, users."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable
from typing import Any

import orjson

from pipeline.emulator.fleet import Sensor
from pipeline.emulator.payloads_catalog import MODULES, USERS
from pipeline.emulator.payloads_endpoint import Endpoint, Process
from pipeline.emulator.payloads_file import file_create
from pipeline.emulator.payloads_network import dns_request
from pipeline.emulator.payloads_process import code_identity
from pipeline.emulator.records import Dice

PROCESSES = 16
"""Besides those that start with the machine."""

MAX_FILES = 10_000
"""Files on one machine; more cannot be put there."""

_FILES = {
    "windows": (
        ("C:\\Windows\\System32\\drivers\\etc\\hosts", b"127.0.0.1 localhost\r\n"),
        ("C:\\Windows\\win.ini", b"; for 16-bit app support\r\n[fonts]\r\n"),
    ),
    "linux": (
        ("/etc/passwd", b"root:x:0:0:root:/root:/bin/bash\ndeploy:x:1000:1000::/home/deploy:/bin/bash\n"),
        ("/etc/hosts", b"127.0.0.1 localhost\n"),
    ),
    "macos": (
        ("/etc/passwd", b"root:*:0:0:System Administrator:/var/root:/bin/sh\n"),
        ("/etc/hosts", b"127.0.0.1 localhost\n"),
    ),
}
_SERVICES = {
    "windows": ("Schedule", "EventLog", "WinDefend", "LanmanServer", "Dnscache"),
    "linux": ("ssh", "cron", "systemd-journald", "postgresql"),
    "macos": ("com.apple.mDNSResponder", "com.apple.sshd"),
}
_PACKAGES = {
    "windows": (
        ("Google Chrome", "126.0.6478.127"),
        ("7-Zip 24.07 (x64)", "24.07"),
        ("Microsoft Edge", "126.0.2592.81"),
    ),
    "linux": (("openssl", "3.0.13-1~deb12u1"), ("bash", "5.2.15-2"), ("curl", "7.88.1-10")),
    "macos": (("com.google.Chrome", "126.0.6478.127"), ("com.apple.Safari", "17.5")),
    "chrome": (("uBlock Origin Lite", "2024.6.30"), ("Google Docs Offline", "1.81.0")),
}


class Machine:
    """The same for the same sensor, until tasks change it."""

    def __init__(self, oid: str, sensor: Sensor) -> None:
        self.platform = sensor.platform
        self._end = Endpoint(oid, sensor, Dice(oid, sensor.sid, "machine"), [])
        # the first process of a machine has a number that everyone knows: 4 on Windows, else 1
        self._end.count_from(4 if self.platform == "windows" else 1)
        born = int(time.time() * 1000)
        for _ in self._end.roots:
            self._end.start_root(born)
        for _ in range(PROCESSES if self._end.roots else 0):
            self._end.start(born)
        modules = [*MODULES.get(self.platform, ()), *(row["FILE_PATH"] for row in self.processes())]
        self.files = {path: b"MZ" + hashlib.sha256(path.encode()).digest() * 8 for path in modules}
        self.files.update(_FILES.get(self.platform, ()))

    # -- processes

    def processes(self) -> list[dict[str, Any]]:
        """Return the live processes, as OS_PROCESSES_REP lists them."""
        return [orjson.loads(b"{%b}" % process.members) for process in self._end.processes]

    def process(self, given: str) -> Process | None:
        """Return the process with this id or atom."""
        for process in self._end.processes:
            if given in (str(process.pid), process.atom.decode()):
                return process
        return None

    def kill(self, process: Process) -> None:
        self._end.processes.remove(process)

    # -- events

    def atom(self) -> str:
        return self._end.atom(int(time.time() * 1000)).decode()

    def cached(self) -> list[tuple[str, dict[str, Any]]]:
        """Return events that the sensor did not send: their types and payloads."""
        if not self._end.roots:
            return []
        now = int(time.time() * 1000)
        drafts = [render(self._end, now) for render in (file_create, dns_request, code_identity, file_create)]
        return [(draft[0], orjson.loads(draft[1])) for draft in drafts]

    # -- what is installed

    @property
    def separator(self) -> str:
        return "\\" if self.platform == "windows" else "/"

    def put(self, path: str, content: bytes) -> bool:
        """Write a file; says whether there was room."""
        if path not in self.files and len(self.files) >= MAX_FILES:
            return False
        self.files[path] = content
        return True

    def modules(self) -> list[dict[str, Any]]:
        return [
            {
                "BASE_ADDRESS": 0x7FF800000000 + (number << 20),
                "FILE_PATH": path,
                "MEMORY_SIZE": 4096 << number,
                "MODULE_NAME": path.replace("\\", "/").rpartition("/")[2],
            }
            for number, path in enumerate(MODULES.get(self.platform, ()))
        ]

    def services(self) -> list[dict[str, Any]]:
        executable = next(iter(self._images()), "")
        return [
            {
                "EXECUTABLE": executable,
                "HASH": hashlib.sha256(executable.encode()).hexdigest(),
                "PROCESS_ID": 400 + 4 * number,
                "SVC_DISPLAY_NAME": name,
                "SVC_NAME": name,
                "SVC_STATE": 4,
                "SVC_TYPE": 32,
            }
            for number, name in enumerate(_SERVICES.get(self.platform, ()))
        ]

    def drivers(self) -> list[dict[str, Any]]:
        return [
            {
                "EXECUTABLE": f"\\SystemRoot\\System32\\drivers\\{name}.sys",
                "HASH": hashlib.sha256(name.encode()).hexdigest(),
                "PROCESS_ID": 0,
                "SVC_DISPLAY_NAME": name,
                "SVC_NAME": name,
                "SVC_STATE": 4,
                "SVC_TYPE": 1,
            }
            for name in ("tcpip", "ntfs", "disk", "hcp")
        ]

    def packages(self) -> list[dict[str, str]]:
        return [
            {"PACKAGE_NAME": name, "PACKAGE_VERSION": version} for name, version in _PACKAGES.get(self.platform, ())
        ]

    def users(self) -> list[dict[str, str]]:
        return [{"USER_NAME": name} for name in USERS.get(self.platform, ())]

    def autoruns(self) -> list[dict[str, Any]]:
        key = "HKLM\\SOFTWARE\\Microsoft\\Windows\\CurrentVersion\\Run" if self.platform == "windows" else None
        return [
            {"FILE_PATH": path, "HASH": hashlib.sha256(path.encode()).hexdigest()}
            | ({"REGISTRY_KEY": key} if key else {})
            for path in self._images()
        ]

    def _images(self) -> Iterable[str]:
        return [row["FILE_PATH"] for row in self.processes()[:3]]
