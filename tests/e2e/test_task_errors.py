"""What goes wrong between `lc-pipeline task` and LimaCharlie ends in few requests, clear words and the right exit code."""

import os
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

REQUEST = "POST /v1/extension/request/{name}"
SID = "00000000-0000-4000-8000-000000000000"

pytestmark = pytest.mark.timeout(60)  # several processes one after the other, on machines that do other things too


@pytest.fixture(scope="module")
def emulator(shared_emulator) -> Any:
    return shared_emulator("--rate", "0", "--events", "0")


@pytest.fixture(autouse=True)
def _clear(emulator) -> Iterator[None]:
    yield
    emulator.turn("clear")


def count(emulator, call: str) -> int:
    return sum(emulator.requests().get(call, {}).values())


def task(emulator, *args: str, **changed: str) -> tuple[int, str, str]:
    """Run `lc-pipeline task`; gives its exit code, what it printed, and what it said."""
    ready = emulator.ready
    clean = {name: value for name, value in os.environ.items() if not name.startswith("LC_")}
    ours = {"LC_URL": ready["url"], "LC_OID": ready["oid"], "LC_API_KEY": ready["api_key"], "LC_EPHEMERAL_CREDS": "1"}
    command = [sys.executable, "-m", "pipeline.cli", "task", *args]
    done = subprocess.run(command, env=clean | ours | changed, capture_output=True, text=True, timeout=18, check=False)
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout, done.stderr


def test_a_missing_permission(emulator):
    """It is named, and what to do about it."""
    key = emulator.turn("key", permissions=["sensor.get", "sensor.list"])["api_key"]
    before = count(emulator, "POST /")
    code, shown, said = task(emulator, "send", "--all", "os_version", LC_API_KEY=key)
    assert (code, shown) == (2, "")
    assert "missing permission" in said
    assert "Give the API key the permission" in said
    assert count(emulator, "POST /") - before <= 2
    assert key not in said


def test_a_wrong_key(emulator):
    """One request, and the credentials are to blame, with where they are from."""
    before = count(emulator, "POST /")
    code, _, said = task(emulator, "list", LC_API_KEY=SID)
    assert code == 2
    assert "unknown api key" in said
    assert "the environment" in said
    assert SID not in said
    assert count(emulator, "POST /") - before == 1


def test_a_sensor_that_is_not_there(emulator):
    """Tasking it at once is an error of its own."""
    code, _, said = task(emulator, "send", "--now", "--sid", SID, "os_version")
    assert code == 3
    assert "404" in said


def test_a_missing_subscription(emulator):
    """One request, and the words say where to subscribe."""
    ready = emulator.ready
    body = urllib.parse.urlencode({"oid": ready["oid"], "secret": ready["api_key"]}).encode()
    with urllib.request.urlopen(ready["url"] + "/", body, timeout=5) as answer:
        token = answer.read().decode().split('"')[3]
    path = f"{ready['url']}/v1/orgs/{ready['oid']}/subscription/extension/ext-reliable-tasking"
    before = count(emulator, REQUEST)
    for method, codes in (("DELETE", (2, 2)), ("POST", (0, 0))):
        request = urllib.request.Request(path, method=method, headers={"Authorization": f"Bearer {token}"})
        urllib.request.urlopen(request, timeout=5).close()
        results = [task(emulator, "list"), task(emulator, "send", "--all", "os_version")]
        assert tuple(code for code, _, _ in results) == codes
        assert all("not subscribed" in said and "add-ons" in said for code, _, said in results if code)
    assert count(emulator, REQUEST) - before == 4


def test_a_storm_of_429(emulator):
    """A demand for a pause that is longer than anybody waits ends at once, with the exit code for it."""
    emulator.turn("respond", route="extension", status=429, times=None, headers={"Retry-After": "600"})
    before, began = count(emulator, REQUEST), time.monotonic()
    code, _, said = task(emulator, "send", "--all", "os_version")
    assert code == 5
    assert "429" in said
    assert "[bulk]" in said
    assert count(emulator, REQUEST) - before == 1
    assert time.monotonic() - began < 15


@pytest.mark.parametrize(("args", "tries"), [(("list",), 4), (("send", "--all", "os_version"), 1)])
def test_a_504(emulator, args, tries):
    """A list is asked for four times; a task, which may have come through, is given once."""
    emulator.turn("respond", route="extension", status=504, times=None)
    before = count(emulator, REQUEST)
    code, _, said = task(emulator, *args)
    assert code == 1
    assert "504" in said
    assert count(emulator, REQUEST) - before == tries


def test_nobody_is_there(emulator):
    """An address where nobody listens is named."""
    code, _, said = task(emulator, "list", LC_URL="http://127.0.0.1:9")
    assert code == 1
    assert "127.0.0.1:9" in said
