"""How a task's words are read, and what each command answers."""

import pytest

from pipeline.emulator.commandline import TaskError, split
from pipeline.emulator.commands import COMMANDS, understand
from pipeline.emulator.fleet import Fleet
from pipeline.emulator.machine import Machine

OID = "8cbe27f4-bfa1-4afb-ba19-138cd51389cd"


@pytest.fixture
def machines() -> dict[str, Machine]:
    return {sensor.platform: Machine(OID, sensor) for sensor in Fleet(OID, 7, 12).sensors}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", []),
        ("  os_version  ", ["os_version"]),
        ("file_get 'C:\\my dir\\x'", ["file_get", "C:\\my dir\\x"]),
        ('run --shell-command "a \\"b\\" c"', ["run", "--shell-command", 'a "b" c']),
        (r'x "a\b" "c\\d" e\f C:\x', ["x", r"a\b", r"c\d", r"e\f", r"C:\x"]),
        ("a # the rest is a comment", ["a"]),
        ("a b#c", ["a", "b#c"]),
        ("a'b c'd \"\"", ["ab cd", ""]),
    ],
)
def test_split(text, words):
    """Words are split at spaces; quotes and backslashes count as the sensor's shell has them."""
    assert words == split(text)


@pytest.mark.parametrize("text", ['run "x', "run 'x", '"c:\\my dir\\"', "x" * 100_000])
def test_split_refused(text):
    """A quote that is not closed and a line without end are refused."""
    with pytest.raises(TaskError):
        split(text)


TASKS = {
    "os_version": "OS_VERSION_REP",
    "os_info": "OS_VERSION_REP",
    "os_processes": "OS_PROCESSES_REP",
    "os_services": "OS_SERVICES_REP",
    "os_drivers": "OS_DRIVERS_REP",
    "os_packages": "OS_PACKAGES_REP",
    "os_autoruns": "OS_AUTORUNS_REP",
    "os_users": "OS_USERS_REP",
    "os_kill_process -p 4": "OS_KILL_PROCESS_REP",
    "kill 4": "OS_KILL_PROCESS_REP",
    "os_suspend --pid 4": "OS_SUSPEND_REP",
    "os_resume -a 00": "OS_RESUME_REP",
    "netstat": "NETSTAT_REP",
    "dns_resolve example.com": "DNS_REQUEST",
    "dns_resolve --hostname example.com": "DNS_REQUEST",
    "mem_map 4": "MEM_MAP_REP",
    "mem_map --pid 4": "MEM_MAP_REP",
    "mem_strings -p 4": "MEM_STRINGS_REP",
    "hidden_module_scan": "HIDDEN_MODULE_DETECTED",
    "hidden_module_scan -1": "HIDDEN_MODULE_DETECTED",
    "file_info C:\\Windows\\win.ini": "FILE_INFO_REP",
    "file_get -f C:\\Windows\\win.ini": "FILE_GET_REP",
    "file_hash --file_path C:\\Windows\\win.ini": "FILE_HASH_REP",
    "file_del C:\\Windows\\win.ini": "FILE_DEL_REP",
    "file_mov C:\\Windows\\win.ini C:\\x": "FILE_MOV_REP",
    "dir_list C:\\ * -d 3": "DIR_LIST_REP",
    "run --shell-command whoami": "RECEIPT",
    "run --payload-name tool.exe --arguments -v": "RECEIPT",
    "put --payload-name tool.exe --payload-path C:\\tool.exe": "RECEIPT",
    "history_dump": "HISTORY_DUMP_REP",
    "yara_scan -p 4 rule": "YARA_DETECTION",
    "segregate_network": "SEGREGATE_NETWORK",
    "rejoin_network": "REJOIN_NETWORK",
}


@pytest.mark.parametrize("text", TASKS)
def test_commands(machines, text):
    """Each command ends with its own reply, which says when it was made and holds no failure."""
    replies = understand(text, "windows", aliases=True).run(machines["windows"])
    kind, payload = replies[-1]
    assert kind == TASKS[text]
    assert payload["TIMESTAMP"] > 1.7e12
    assert payload.get("ERROR", 0) in (0, 3 if "-a 00" in text else 0)


def test_every_command_is_tried():
    """The tests above leave out only the commands that answer nothing."""
    tried = {understand(text, "windows", aliases=True).name for text in TASKS}
    assert set(COMMANDS) - tried == {"restart", "upgrade_core", "deny_tree", "artifact_get"}


def test_fields(machines):
    """Replies hold what the real ones hold."""

    def ask(text: str, platform: str = "linux") -> dict:
        return understand(text, platform, aliases=False).run(machines[platform])[-1][1]

    processes = ask("os_processes")["PROCESSES"]
    assert {"PROCESS_ID", "PARENT_PROCESS_ID", "FILE_PATH", "COMMAND_LINE", "HASH", "USER_NAME", "MODULES"} <= set(
        processes[0]
    )
    assert processes[0]["PROCESS_ID"] == 1
    assert "MODULES" not in ask("os_processes --is-no-modules")["PROCESSES"][0]
    assert len(ask("os_processes -p 1")["PROCESSES"]) == 1
    assert ask("os_version", "windows")["VERSION_MAJOR"] == 10
    assert {"PROTOCOL", "SOURCE", "DESTINATION", "PROCESS_ID"} == set(ask("netstat")["NETWORK_ACTIVITY"][0])
    assert {"SVC_NAME", "SVC_STATE", "EXECUTABLE", "HASH"} <= set(ask("os_services")["SVCS"][0])
    assert {"BASE_ADDRESS", "MEMORY_SIZE", "MEMORY_TYPE", "MEMORY_ACCESS"} == set(ask("mem_map 1")["MEMORY_MAP"][0])
    assert "REGISTRY_KEY" in ask("os_autoruns", "windows")["AUTORUNS"][0]
    assert ask("hidden_module_scan", "windows")["ERROR_MESSAGE"] == "done"
    assert ask("run --shell-command whoami")["STDOUT"] == "root\n"
    assert ask("run --shell-command 'exit 3'")["ERROR"] == 3
    assert ask("run --shell-command frobnicate")["ERROR"] == 127


def test_files(machines):
    """Files can be read in part, moved, listed, written and deleted, and what is gone is not found."""
    machine = machines["linux"]

    def ask(text: str) -> dict:
        return understand(text, "linux", aliases=False).run(machine)[0][1]

    assert ask("file_get -o 5 -s 3 /etc/passwd")["FILE_CONTENT"] == "eDow"
    assert ask("file_info /etc/passwd")["FILE_SIZE"] == ask("file_get /etc/passwd")["FILE_SIZE"]
    names = {row["FILE_NAME"] for row in ask("dir_list /etc *")["DIRECTORY_LIST"]}
    assert names == {"passwd", "hosts"}
    assert "ERROR" not in ask("file_mov /etc/hosts /tmp/h")
    assert ask("file_hash /etc/hosts")["ERROR"] == 2
    assert len(ask("file_hash /tmp/h")["HASH"]) == 64
    assert "ERROR" not in ask("file_del /tmp/h")
    assert ask("file_del /tmp/h")["ERROR"] == 2
    assert ask("put --payload-name p --payload-path /tmp/p")["ERROR"] == 0
    assert ask("file_info /tmp/p")["FILE_SIZE"] == 1
    assert ask("file_get")["ERROR"] == 87
    machine.files["/big"] = bytes(11 << 20)
    assert ask("file_get /big")["ERROR"] == 223


def test_killed_process_is_gone(machines):
    """A process that was killed is not listed any more, and cannot be killed again."""
    machine = machines["linux"]
    pid = machine.processes()[-1]["PROCESS_ID"]

    def kill() -> dict:
        return understand(f"kill {pid}", "linux", aliases=True).run(machine)[0][1]

    assert kill()["ERROR"] == 0
    assert pid not in [row["PROCESS_ID"] for row in machine.processes()]
    assert kill()["ERROR"] == 3


def test_history_comes_before_its_reply(machines):
    """A history dump sends what was cached as the events that it is, of one type if one is named."""
    kinds = [kind for kind, _ in understand("history_dump", "linux", aliases=False).run(machines["linux"])]
    assert len(kinds) > 2
    assert kinds[-1] == "HISTORY_DUMP_REP"
    chosen = understand("history_dump -e DNS_REQUEST", "linux", aliases=False).run(machines["linux"])
    assert [kind for kind, _ in chosen] == ["DNS_REQUEST", "HISTORY_DUMP_REP"]


@pytest.mark.parametrize(
    ("text", "platform", "said"),
    [
        ("", "linux", "empty"),
        ("bogus", "linux", "unknown command: bogus"),
        ("os_info", "linux", "unknown command: os_info"),
        ("os_drivers", "linux", "UNSUPPORTED_FOR_PLATFORM"),
        ("mem_map 4", "chrome", "UNSUPPORTED_FOR_PLATFORM"),
        ("netstat --all", "linux", "unrecognized arguments: --all"),
        ("file_get -f", "linux", "expected one argument"),
        ("file_get a b", "linux", "unrecognized arguments: b"),
    ],
)
def test_refused(text, platform, said):
    """A task that no sensor of the platform would understand is refused with the reason."""
    with pytest.raises(TaskError, match=said):
        understand(text, platform, aliases=False)
