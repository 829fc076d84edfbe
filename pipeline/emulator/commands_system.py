"""Commands about the system: version, processes, services, users, network, and running others."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pipeline.emulator.machine import Machine
from pipeline.emulator.records import Dice

MISSING = 87
"""An argument is missing: what the sensor says in ERROR."""
NOT_FOUND = 2
NO_PROCESS = 3

Replies = Iterable[tuple[str, dict[str, Any]]]
Given = Mapping[str, str]


def os_version(machine: Machine, _: Given) -> Replies:
    if machine.platform == "windows":
        yield (
            "OS_VERSION_REP",
            {
                "VERSION_MAJOR": 10,
                "VERSION_MINOR": 0,
                "BUILD_NUMBER": 20348,
                "SUITE": 272,
                "PRODUCT_TYPE": 3,
                "SERVICE_PACK": {},
            },
        )
    else:
        major, minor = {
            "linux": ("6.1.0-21-amd64", "#1 SMP PREEMPT_DYNAMIC"),
            "macos": ("23.5.0", "Darwin Kernel Version 23.5.0"),
        }.get(machine.platform, ("126.0", "CrOS"))
        yield "OS_VERSION_REP", {"VERSION_MAJOR": major, "VERSION_MINOR": minor}


def os_processes(machine: Machine, given: Given) -> Replies:
    rows = machine.processes()
    if "pid" in given:
        rows = [row for row in rows if str(row["PROCESS_ID"]) == given["pid"]]
    if "--is-no-modules" not in given:
        rows = [{**row, "MODULES": machine.modules()} for row in rows]
    yield "OS_PROCESSES_REP", {"PROCESSES": rows} if rows else {"PROCESSES": [], "ERROR": NO_PROCESS}


def os_services(machine: Machine, _: Given) -> Replies:
    yield "OS_SERVICES_REP", {"SVCS": machine.services()}


def os_drivers(machine: Machine, _: Given) -> Replies:
    yield "OS_DRIVERS_REP", {"SVCS": machine.drivers()}


def os_packages(machine: Machine, _: Given) -> Replies:
    yield "OS_PACKAGES_REP", {"PACKAGES": machine.packages()}


def os_autoruns(machine: Machine, _: Given) -> Replies:
    yield "OS_AUTORUNS_REP", {"AUTORUNS": machine.autoruns()}


def os_users(machine: Machine, _: Given) -> Replies:
    yield "OS_USERS_REP", {"USERS": machine.users()}


def os_kill_process(machine: Machine, given: Given) -> Replies:
    process = machine.process(given.get("pid") or given.get("atom", ""))
    payload = _about_process(machine, given)
    if process is not None:
        machine.kill(process)
    yield "OS_KILL_PROCESS_REP", payload


def os_suspend(machine: Machine, given: Given) -> Replies:
    yield "OS_SUSPEND_REP", _about_process(machine, given)


def os_resume(machine: Machine, given: Given) -> Replies:
    yield "OS_RESUME_REP", _about_process(machine, given)


def _about_process(machine: Machine, given: Given) -> dict[str, Any]:
    target = given.get("pid") or given.get("atom")
    if not target:
        return {"ERROR": MISSING}
    process = machine.process(target)
    if process is not None:
        return {"ERROR": 0, "PROCESS_ID": process.pid}
    return {"ERROR": NO_PROCESS} | ({"PROCESS_ID": int(target)} if target.isdecimal() and len(target) < 12 else {})


def netstat(machine: Machine, _: Given) -> Replies:
    rows = [
        {
            "DESTINATION": {"IP_ADDRESS": "0.0.0.0", "PORT": 0},  # noqa: S104 - shown, not bound
            "PROCESS_ID": row["PROCESS_ID"],
            "PROTOCOL": "tcp4",
            "SOURCE": {"IP_ADDRESS": "0.0.0.0", "PORT": 1024 + row["PROCESS_ID"] % 40_000},  # noqa: S104 - same
        }
        for row in machine.processes()
    ]
    yield "NETSTAT_REP", {"FRIENDLY": 0, "NETWORK_ACTIVITY": rows}


def dns_resolve(_: Machine, given: Given) -> Replies:
    domain = given.get("domain")
    if not domain:
        yield "DNS_REQUEST", {"ERROR": MISSING}
        return
    dice = Dice(domain)
    for _number in range(2):
        address = f"198.51.100.{dice.between(1, 254)}"
        yield "DNS_REQUEST", {"DOMAIN_NAME": domain, "DNS_TYPE": 1, "DNS_FLAGS": 0, "IP_ADDRESS": address}


def run(machine: Machine, given: Given) -> Replies:
    """A shell command prints what a machine of the platform would; a payload prints that it ran."""
    if "payload" in given:
        arguments = given.get("arguments", "")
        yield "RECEIPT", {"ERROR": 0, "STDOUT": f"{given['payload']} {arguments}".strip() + "\n", "STDERR": ""}
        return
    command = given.get("command", "").strip()
    if not command:
        yield "RECEIPT", {"ERROR": MISSING}
        return
    program, _, rest = command.partition(" ")
    system = machine.platform == "windows"
    end = "\r\n" if system else "\n"
    if program == "whoami":
        yield "RECEIPT", {"ERROR": 0, "STDOUT": ("nt authority\\system" if system else "root") + end, "STDERR": ""}
    elif program == "echo":
        yield "RECEIPT", {"ERROR": 0, "STDOUT": rest + end, "STDERR": ""}
    elif program == "exit":
        code = int(rest) if rest.isdecimal() and len(rest) < 6 else 0
        yield "RECEIPT", {"ERROR": code, "STDOUT": "", "STDERR": ""}
    elif program in ("hostname", "uname", "id", "ver", "dir", "ls"):
        yield "RECEIPT", {"ERROR": 0, "STDOUT": f"{machine.platform} {command}{end}", "STDERR": ""}
    else:
        yield "RECEIPT", {"ERROR": 127, "STDOUT": "", "STDERR": f"{program}: command not found{end}"}


def segregate_network(_: Machine, __: Given) -> Replies:
    yield "SEGREGATE_NETWORK", {"ERROR": 0}


def rejoin_network(_: Machine, __: Given) -> Replies:
    yield "REJOIN_NETWORK", {"ERROR": 0}


def silent(_: Machine, __: Given) -> Replies:
    """Commands without an answer of their own."""
    return ()
