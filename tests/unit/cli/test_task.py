"""`lc-pipeline task`, against a local LimaCharlie that a process of its own serves."""

import json
import os
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

Done = subprocess.CompletedProcess[str]

pytestmark = pytest.mark.timeout(60)  # up to six processes one after the other, on machines that do other things too


class Lab:
    """The emulator, a sensor that is online, and one that is not."""

    def __init__(self, ready: dict[str, Any]) -> None:
        self.url = ready["url"]
        self.env = {"LC_URL": ready["url"], "LC_OID": ready["oid"], "LC_API_KEY": ready["api_key"]}
        self.token = ""
        self.token = self.ask("/", f"oid={ready['oid']}&secret={ready['api_key']}".encode())["jwt"]
        sensors = self.ask(f"/v1/sensors/{ready['oid']}")["sensors"]
        self.online, self.offline = [one["sid"] for one in sensors if one["plat"] == 0x10000000 and one["arch"] != 9][
            :2
        ]
        self.presence(self.online, online=True)
        self.presence(self.offline, online=False)

    def ask(self, path: str, body: bytes | None = None) -> Any:
        """Call the API: GET without a body, else POST."""
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        with urllib.request.urlopen(urllib.request.Request(self.url + path, body, headers), timeout=5) as response:
            return json.load(response)

    def turn(self, knob: str, **arguments: Any) -> None:
        request = urllib.request.Request(
            f"{self.url}/_emulator/{knob}", json.dumps(arguments).encode(), {"Content-Type": "application/json"}
        )
        urllib.request.urlopen(request, timeout=5).close()

    def presence(self, sid: str, *, online: bool) -> None:
        self.turn("presence", sensor=sid, online=online)


@pytest.fixture(scope="module")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    ready = tmp_path_factory.mktemp("lab") / "ready.json"
    args = ["emulate", "--listen", "127.0.0.1:0", "--rate", "0", "--events", "0", "--ready-file", str(ready)]
    with subprocess.Popen(
        [sys.executable, "-c", "from pipeline.cli import main; main()", *args], stderr=subprocess.DEVNULL
    ) as process:
        try:
            while not ready.exists() or not ready.read_text():
                assert process.poll() is None
                time.sleep(0.05)  # another process, which has no event to wait for
            yield json.loads(ready.read_text())
        finally:
            process.terminate()


@pytest.fixture
def lab(emulator: dict[str, Any], run: Callable[..., Done]) -> Lab:
    lab = Lab(emulator)
    assert run("task", "cancel", "--all", env=lab.env).returncode == 0
    return lab


@pytest.fixture
def task(lab: Lab, run: Callable[..., Done]) -> Callable[..., Done]:
    """Gives a function that runs `lc-pipeline task`."""
    return lambda *args: run("task", *args, env=lab.env)


@pytest.fixture
def run_watch(lab: Lab, tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Gives a function that starts `lc-pipeline task` and leaves it running."""
    started: list[subprocess.Popen[str]] = []

    def start(*args: str) -> subprocess.Popen[str]:
        clean = {key: value for key, value in os.environ.items() if not key.startswith("LC_")}
        command = [sys.executable, "-c", "from pipeline.cli import main; main()", "task", *args]
        started.append(
            subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path, env=clean | lab.env
            )
        )
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_a_command_waits_and_is_listed_and_taken_back(lab: Lab, task: Callable[..., Done]) -> None:
    """Each step prints JSON for programs."""
    sent = task("send", "--sid", lab.offline, "--context", "inc", "--ttl", "1h", "file_get /etc/hosts", "--json")
    assert sent.returncode == 0, sent.stderr
    accepted = json.loads(sent.stdout)
    assert (accepted["command"], accepted["tasked"], accepted["queued"]) == ("file_get /etc/hosts", 0, 1)
    (waiting,) = json.loads(task("list", "--context", "inc", "--json").stdout)
    assert (waiting["task_id"], waiting["sid"]) == (accepted["task_id"], lab.offline)
    assert 3500 < waiting["expires_at"] - time.time() <= 3600
    assert json.loads(task("cancel", accepted["task_id"], "--json").stdout) == {"deleted": 1}
    assert json.loads(task("list", "--json").stdout) == []


def test_watch_prints_answers_until_all_have_come(lab: Lab, run_watch: Callable[..., Any]) -> None:
    """Each as a line of JSON; the sensor comes online while it is watched."""
    watching = run_watch("send", "--sid", lab.offline, "--context", "inc", "--watch", "--json", "os_version", "netstat")
    for _ in range(2):
        assert "1 wait" in watching.stderr.readline()
    with run_watch("watch", "inc", "--json") as second:
        assert "Waiting for 2 answers." in second.stderr.readline()
        lab.presence(lab.offline, online=True)
        for process in (watching, second):
            out, err = process.communicate(timeout=15)
            assert process.returncode == 0, err
            assert "Answers: 2 of 2." in err
            kinds = [json.loads(line)["routing"]["event_type"] for line in out.splitlines()]
            assert sorted(kinds) == ["NETSTAT_REP", "OS_VERSION_REP"]


def test_watch_tells_who_is_missing(lab: Lab, task: Callable[..., Done]) -> None:
    """At the end of the time, after what came, with exit code 1."""
    both = f"sid == '{lab.online}' or sid == '{lab.offline}'"
    done = task("send", "--selector", both, "--watch", "--timeout", "2s", "os_version")
    assert (done.returncode, "Answers: 1 of 2." in done.stderr) == (1, True), done.stderr
    head, *payload = done.stdout.splitlines()
    assert f"({lab.online}): OS_VERSION_REP" in head
    assert json.loads("".join(payload))


def test_nobody_to_send_to_is_an_error(lab: Lab, task: Callable[..., Done]) -> None:
    """With the exit code for what is not there, and at the first command: sensors that join later do not get it."""
    for more in ([], ["--watch"]):
        done = task("send", "--selector", "hostname == nobody", *more, "os_version", "netstat")
        assert done.returncode == 3, done.stderr
        assert "0 sensors" in (done.stderr if more else done.stdout)
        assert "netstat" not in done.stdout + done.stderr
        assert "No sensor is meant" in done.stderr
        assert "hostname == nobody" in done.stderr


def test_watch_does_not_guess_how_many_answers_come(lab: Lab, task: Callable[..., Done]) -> None:
    """Where LimaCharlie does not say how many sensors have a command, the time ends it."""
    lab.turn("respond", route="extension", status=200, body='{"task_id": "t1"}')
    done = task("send", "--all", "--watch", "--timeout", "300ms", "os_version")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "t1: os_version\nError: Answers: 0 of an unknown number.\n"


def test_watch_needs_something_to_watch(lab: Lab, task: Callable[..., Done]) -> None:
    """Where no command waits it says so, with exit code 3."""
    done = task("watch", "nothing")
    assert (done.returncode, done.stdout) == (3, "")
    assert "send with --watch" in done.stderr


def test_people_get_a_table(lab: Lab, task: Callable[..., Done]) -> None:
    """With what waits where, and how many sensors have a command."""
    sent = task("send", "--sid", lab.offline, "--context", "inc", "os_version", "netstat")
    assert [line.split(": ")[1] for line in sent.stdout.splitlines()] == [
        "os_version (1 sensors, 0 have it, 1 wait)",
        "netstat (1 sensors, 0 have it, 1 wait)",
    ]
    head, *rows = task("list", "--sid", lab.offline).stdout.splitlines()
    assert head.split() == ["TASK", "SENSOR", "EXPIRES", "CONTEXT", "COMMAND"]
    assert sorted(row.split()[-1] for row in rows) == ["netstat", "os_version"]
    assert task("cancel", "--sid", lab.offline).stdout == "Commands taken back: 2.\n"
    assert task("list").stderr == "No command waits.\n"


def test_now_prints_the_answers(lab: Lab, task: Callable[..., Done]) -> None:
    """For programs one line each, the whole event."""
    done = task("send", "--sid", lab.online, "--now", "--context", "inc", "--json", "os_version", "netstat")
    assert done.returncode == 0, done.stderr
    answers = [json.loads(line)["routing"] for line in done.stdout.splitlines()]
    assert sorted(answer["event_type"] for answer in answers) == ["NETSTAT_REP", "OS_VERSION_REP"]
    assert all(answer["investigation_id"].startswith("inc/") for answer in answers)


def test_now_prints_the_answers_for_people(lab: Lab, task: Callable[..., Done]) -> None:
    """The kind of event and what is in it."""
    done = task("send", "--sid", lab.online, "--now", "--until-done", "hidden_module_scan -1")
    *_, last = done.stdout.split("HIDDEN_MODULE_DETECTED\n")
    assert json.loads(last)["ERROR_MESSAGE"] == "done"


def test_missing_answers_end_in_an_error_after_those_that_came(lab: Lab, task: Callable[..., Done]) -> None:
    """What came is not lost."""
    done = task("send", "--sid", lab.online, "--now", "--answers", "2", "--timeout", "500ms", "--json", "os_version")
    assert json.loads(done.stdout)["routing"]["event_type"] == "OS_VERSION_REP"
    assert (done.returncode, "1 of 2 answers" in done.stderr) == (1, True)


def test_now_says_that_a_sensor_is_offline(lab: Lab, task: Callable[..., Done]) -> None:
    """And what to do instead."""
    done = task("send", "--sid", lab.offline, "--now", "os_version")
    assert (done.returncode, done.stdout) == (1, "")
    assert "is offline" in done.stderr
    assert "Leave --now out" in done.stderr


def test_all_sensors_are_reached_when_asked_for(lab: Lab, task: Callable[..., Done]) -> None:
    """With --all, and no other way."""
    accepted = json.loads(task("send", "--all", "--json", "os_version").stdout)
    assert accepted["total"] == accepted["tasked"] + accepted["queued"] > 2
    for target in ([], ["--selector", "*"], ["--selector", " * "], ["--all", "--tag", "x"]):
        refused = task("send", *target, "os_version")
        assert (refused.returncode, refused.stdout) == (4, ""), target
        assert "--all" in refused.stderr


@pytest.mark.parametrize(
    ("args", "problem"),
    [
        (["send", "--tag", "x", "os_verison"], "Did you mean os_version?"),
        (["send", "--tag", "x", "file_get", "/etc/hosts"], "lacks its arguments"),
        (["send", "--tag", "x", "--now", "os_version"], "goes to one sensor"),
        (["send", "--sid", "x", "--now", "--ttl", "1h", "os_version"], "does not wait"),
        (["send", "--sid", "x", "--now", "--watch", "os_version"], "does not wait"),
        (["watch", " "], "context is empty"),
        (["send", "--all", "--context", "", "os_version"], "context is empty"),
        (["send", "--selector", "", "os_version"], "Write --all if you mean all"),
        (["cancel", "--tag", " "], "Write --all if you mean all"),
        (["send", "--all", "--timeout", "1s", "os_version"], "only waited for with --now or --watch"),
        (["watch", "x", "--timeout", "never"], "a duration is"),
        (["send", "--tag", "x", "--answers", "1", "os_version"], "only waited for with --now"),
        (["send", "--sid", "x", "--now", "--answers", "1", "--until-done", "os_version"], "by number or when all"),
        (["send", "--tag", "x", "--ttl", "soon", "os_version"], "a duration is"),
        (["send", "--tag", "x", "--ttl", "0s", "os_version"], "no time to wait"),
        (["send", "--sid", "x", "os_version"], "sensor id"),
        (["send", "--tag", "x", "--oid", "nonsense", "os_version"], "UUID"),
        (["list", "--tag", "x", "--sid", "y"], "More than one target"),
        (["cancel"], "not said which sensors"),
        (["cancel", ""], "id is empty"),
    ],
)
def test_mistakes_are_told_before_anything_is_sent(run: Callable[..., Done], args: list[str], problem: str) -> None:
    """With the exit code of usage errors; there is nothing to connect to."""
    env = {"LC_URL": "http://127.0.0.1:9", "LC_OID": "8cbe27f4-bfa1-4afb-ba19-138cd51389cd", "LC_API_KEY": "k"}
    done = run("task", *args, env=env)
    assert (done.returncode, done.stdout) == (4, "")
    assert problem in " ".join(done.stderr.split())


def test_an_unknown_command_can_be_sent_unchecked(lab: Lab, task: Callable[..., Done]) -> None:
    """LimaCharlie then decides, in its own words."""
    done = task("send", "--sid", lab.online, "--now", "--unchecked", "new_thing")
    assert (done.returncode, done.stdout) == (1, "")
    assert "unknown command" in done.stderr


def test_commands_of_sensors_are_completed(run: Callable[..., Done]) -> None:
    """With what they do."""
    words = {"_LC_PIPELINE_COMPLETE": "zsh_complete", "COMP_WORDS": "lc-pipeline task send file_h", "COMP_CWORD": "3"}
    assert run(env=words).stdout.splitlines()[:3] == [
        "plain",
        "file_hash",
        "hash and signature of a file: file_hash FILE",
    ]


def test_rules_are_converted(lab: Lab, task: Callable[..., Done]) -> None:
    """Shown first, written with --no-dry-run, and what cannot be is told by the exit code."""
    hive = f"/v1/hive/dr-general/{lab.env['LC_OID']}"
    for name, action in (("good", "list"), ("bad", "explode")):
        request = {"action": "service request", "name": "reliable-tasking", "request": {"action": action}}
        rule = {"detect": {"op": "exists", "path": "event"}, "respond": [request]}
        lab.ask(f"{hive}/{name}/data", urllib.parse.urlencode({"data": json.dumps(rule)}).encode())
    shown = task("convert-rules")
    assert shown.returncode == 1
    assert "Rule bad in dr-general: not converted.\n  The extension has no action 'explode'." in shown.stdout
    assert "Rule good in dr-general: would change." in shown.stdout
    assert '-   "action": "service request",' in shown.stdout
    assert '+   "action": "extension request",' in shown.stdout
    assert "Nothing was written" in shown.stdout
    lines = task("convert-rules", "--no-dry-run", "--json").stdout.splitlines()
    assert [(line["rule"], line["written"]) for line in map(json.loads, lines)] == [("bad", False), ("good", True)]
    assert [json.loads(line)["rule"] for line in task("convert-rules", "--json").stdout.splitlines()] == ["bad"]
    lab.ask(f"{hive}/bad/data", urllib.parse.urlencode({"data": json.dumps(rule | {"respond": []})}).encode())
    assert task("convert-rules").stdout == "No rule asks the old service.\n"


def test_help_is_quick(tmp_path: Path) -> None:
    """No HTTP client and no models are loaded for it."""
    code = "import sys, pipeline.cli.task; print([m for m in ('aiohttp', 'pydantic', 'orjson') if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, timeout=15, check=True
    )
    assert done.stdout == "[]\n"
