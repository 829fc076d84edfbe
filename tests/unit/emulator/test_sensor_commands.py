"""Each command that guides and references name: what a sensor that is online answers, in the stream, with which fields."""

import json

import pytest

from pipeline.emulator.commands import COMMANDS

EXE = "C:\\Windows\\System32\\kernel32.dll"
DONE = {"ERROR", "ERROR_MESSAGE"}
SERVICE = {"SVC_NAME", "SVC_DISPLAY_NAME", "SVC_TYPE", "SVC_STATE", "PROCESS_ID", "EXECUTABLE"}
FILE = {"FILE_PATH", "FILE_SIZE", "ATTRIBUTES", "CREATION_TIME", "MODIFICATION_TIME", "ACCESS_TIME", "FILE_IS_SIGNED"}
PROCESS = {
    "PROCESS_ID",
    "PARENT_PROCESS_ID",
    "FILE_PATH",
    "COMMAND_LINE",
    "HASH",
    "USER_NAME",
    "THREADS",
    "MEMORY_USAGE",
}
MODULE = {"MODULE_NAME", "FILE_PATH", "BASE_ADDRESS", "MEMORY_SIZE"}
REGION = {"BASE_ADDRESS", "MEMORY_SIZE", "MEMORY_TYPE", "MEMORY_ACCESS"}
FLOW = {"PROTOCOL", "SOURCE", "DESTINATION", "PROCESS_ID"}
WINDOWS_VERSION = {"VERSION_MAJOR", "VERSION_MINOR", "BUILD_NUMBER", "SUITE", "PRODUCT_TYPE", "SERVICE_PACK"}

COMMON = [
    # task, event of the answer, fields of its payload (with the first entry of a list after a dot)
    ("os_processes", "OS_PROCESSES_REP", {"PROCESSES": PROCESS | {"MODULES"}}),
    ("os_processes -p 1 --is-no-modules", "OS_PROCESSES_REP", {"PROCESSES": None}),
    ("os_services", "OS_SERVICES_REP", {"SVCS": SERVICE}),
    ("os_packages", "OS_PACKAGES_REP", {"PACKAGES": {"PACKAGE_NAME", "PACKAGE_VERSION"}}),
    ("os_autoruns", "OS_AUTORUNS_REP", {"AUTORUNS": {"FILE_PATH", "HASH"}}),
    ("os_kill_process --pid 999999", "OS_KILL_PROCESS_REP", {"ERROR", "PROCESS_ID"}),
    ("os_suspend -p 999999", "OS_SUSPEND_REP", {"ERROR", "PROCESS_ID"}),
    ("os_resume -p 999999", "OS_RESUME_REP", {"ERROR", "PROCESS_ID"}),
    ("netstat", "NETSTAT_REP", {"FRIENDLY": None, "NETWORK_ACTIVITY": FLOW}),
    ("dns_resolve example.com", "DNS_REQUEST", {"DOMAIN_NAME", "DNS_TYPE", "DNS_FLAGS", "TIMESTAMP"}),
    ("run --shell-command whoami", "RECEIPT", {"ERROR", "STDOUT", "STDERR"}),
    ("run --payload-name tool.exe --arguments '-v' --timeout 5", "RECEIPT", {"ERROR", "STDOUT", "STDERR"}),
    ("put --payload-name tool.exe", "RECEIPT", {"ERROR"}),
    ("yara_scan rule", "YARA_DETECTION", {"RULE_NAME", "FILE_PATH", "HASH"}),
    ("history_dump", "HISTORY_DUMP_REP", {"ERROR"}),
    ("segregate_network", "SEGREGATE_NETWORK", {"ERROR"}),
    ("rejoin_network", "REJOIN_NETWORK", {"ERROR"}),
    ("mem_map {pid}", "MEM_MAP_REP", {"PROCESS_ID": None, "MEMORY_MAP": REGION}),
    ("mem_strings -p {pid}", "MEM_STRINGS_REP", {"PROCESS_ID", "STRINGSA", "STRINGSW"}),
    # guides' short names
    ("kill 999999", "OS_KILL_PROCESS_REP", {"ERROR", "PROCESS_ID"}),
]
LINUX = [
    *COMMON,
    ("os_version", "OS_VERSION_REP", {"VERSION_MAJOR", "VERSION_MINOR"}),
    ("os_info", "OS_VERSION_REP", {"VERSION_MAJOR", "VERSION_MINOR"}),
    ("file_info /etc/hosts", "FILE_INFO_REP", FILE),
    ("file_get -f /etc/passwd", "FILE_GET_REP", {"FILE_PATH", "FILE_SIZE", "FILE_CONTENT"}),
    ("file_get /etc/passwd -o 1 -s 4", "FILE_GET_REP", {"FILE_PATH", "FILE_SIZE", "FILE_CONTENT"}),
    ("file_hash /etc/passwd", "FILE_HASH_REP", {"FILE_PATH", "HASH", "FILE_IS_SIGNED"}),
    ("dir_list /etc '*' -d 1", "DIR_LIST_REP", {"DIRECTORY_LIST": {"FILE_NAME"} | FILE}),
    ("file_mov /etc/hosts /tmp/hosts", "FILE_MOV_REP", {"SOURCE", "DESTINATION"}),
    ("file_del /tmp/hosts", "FILE_DEL_REP", {"FILE_PATH"}),
    ("file_hash /no/such", "FILE_HASH_REP", {"FILE_PATH", "ERROR"}),
]
WINDOWS = [
    *COMMON,
    ("os_version", "OS_VERSION_REP", WINDOWS_VERSION),
    ("os_drivers", "OS_DRIVERS_REP", {"SVCS": SERVICE - {"EXECUTABLE"}}),
    ("os_users", "OS_USERS_REP", {"USERS": {"USER_NAME"}}),
    ("hidden_module_scan -1", "HIDDEN_MODULE_DETECTED", DONE),
    (r"file_info C:\Windows\win.ini", "FILE_INFO_REP", FILE),
    (r"file_get --file C:\Windows\win.ini", "FILE_GET_REP", {"FILE_PATH", "FILE_SIZE", "FILE_CONTENT"}),
    (r"dir_list C:\Windows *.ini", "DIR_LIST_REP", {"DIRECTORY_LIST": {"FILE_NAME"} | FILE}),
]
SILENT = ["artifact_get --file /etc/hosts --days-retention 7", "deny_tree abc def", "upgrade_core"]


async def ask(local, stream, sid: str, task: str, number: int) -> list[dict]:
    """Send a task and a marker behind it; gives what came before the marker's answer."""
    for text, part in ((task, "task"), ("os_version", "end")):
        await local.api("POST", f"/v1/{sid}", {"tasks": text, "investigation_id": f"table/{number}-{part}"})
    found = []
    while True:
        doc = json.loads(await stream.line())
        ours = doc["routing"].get("investigation_id") == f"table/{number}-task"
        if ours:
            found.append(doc)
        elif doc["routing"]["event_type"] == "OS_VERSION_REP":
            return found


@pytest.mark.parametrize(("platform", "table"), [("linux", LINUX), ("windows", WINDOWS)])
async def test_answers(emulate, platform, table):
    """A command is confirmed as its request, then answered by its event with the fields that the references name."""
    local = await emulate(events=0)
    await local.turn("tasks", delay=0)
    sid = (await local.sensor(platform))["sid"]
    pid = ""
    async with local.stream(inv_id="table") as stream:
        await stream.line()
        for number, (text, event, fields) in enumerate(table):
            task = text.format(pid=pid) if "{pid}" in text else text
            confirmed, *answers = await ask(local, stream, sid, task, number)
            assert confirmed["routing"]["event_type"] == "CLOUD_NOTIFICATION", task
            name = {"os_info": "os_version", "kill": "os_kill_process"}.get(task.split()[0], task.split()[0])
            assert confirmed["event"]["NOTIFICATION_ID"] == f"{name.upper()}_REQ"
            answer = next(doc for doc in answers if doc["routing"]["event_type"] == event)
            assert answer["routing"]["sid"] == sid
            payload = answer["event"]
            assert set(fields) <= set(payload), task
            for key, inner in fields.items() if isinstance(fields, dict) else ():
                assert inner is None or inner <= set(payload[key][0]), (task, key)
            if task == "os_processes":
                pid = str(payload["PROCESSES"][0]["PROCESS_ID"])
                assert set(payload["PROCESSES"][0]["MODULES"][0]) >= MODULE


async def test_scans_say_that_they_are_done(emulate):
    """A scan ends with a record of its own, which requests that wait for completion look for."""
    local = await emulate(events=0)
    sid = (await local.sensor("windows"))["sid"]
    async with local.stream(inv_id="table") as stream:
        await stream.line()
        for number, task in enumerate(("yara_scan rule", "hidden_module_scan -1")):
            assert (await ask(local, stream, sid, task, number))[-1]["event"]["ERROR_MESSAGE"] == "done"


async def test_commands_without_an_answer(emulate):
    """These are confirmed, and that is all."""
    local = await emulate(events=0)
    sid = (await local.sensor("linux"))["sid"]
    async with local.stream(inv_id="table") as stream:
        await stream.line()
        for number, task in enumerate(SILENT):
            kinds = [doc["routing"]["event_type"] for doc in await ask(local, stream, sid, task, number)]
            assert kinds == ["CLOUD_NOTIFICATION"], task


def test_the_tables_leave_nothing_out():
    """Each command that the emulator knows is in a table here; `restart` has a test of its own."""
    named = {text.split()[0] for text, *_ in [*LINUX, *WINDOWS]} | {text.split()[0] for text in SILENT}
    assert set(COMMANDS) - {"restart"} == named - {"os_info", "kill"}
