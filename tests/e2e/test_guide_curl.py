"""The curl lines of LimaCharlie's guides run as they are written, against a real emulator process.

Only their placeholders are filled in. curl asks for the real host names, over TLS; its configuration file alone points it here.
"""

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

JWT = r"""
curl -X POST "https://jwt.limacharlie.io" \
-H "Content-Type: application/x-www-form-urlencoded" \
-d "oid=YOUR_ORG_ID&secret=YOUR_API_KEY"
"""

REQUEST = r"""
curl --location 'https://api.limacharlie.io/v1/extension/request/ext-reliable-tasking' \
--header 'Authorization: Bearer $JWT' \
--header 'Content-Type: application/x-www-form-urlencoded' \
"""

TASK = (
    REQUEST
    + r"""--data 'oid=$YOUR_OID&action=task&data={"context":"version","selector":"plat==windows","task":"run --shell-command whoami","ttl":3600}'"""  # noqa: E501 - one line there
)
ONE_SENSOR = (
    REQUEST
    + r"""--data 'oid=$YOUR_OID&action=task&data={"task":"os_version","selector":"sid=='\''sensor-123-abc'\''","ttl":86400}'"""
)
TAGGED = (
    REQUEST
    + r"""--data 'oid=$YOUR_OID&action=task&data={"task":"file_get -f /etc/passwd","selector":"plat==linux and production in tags","context":"audit-2024","ttl":172800}'"""  # noqa: E501 - same
)
ALL_SENSORS = REQUEST + r"""--data 'oid=$YOUR_OID&action=task&data={"task":"os_version","ttl":3600}'"""
LIST = REQUEST + r"""--data 'oid=$YOUR_OID&action=list&data={}'"""

WINDOWS, LINUX = 0x10000000, 0x20000000
ADAPTER = 9
"""The architecture of what takes no tasks."""

Curl = Callable[..., Any]


@pytest.fixture(scope="module")
def ready(shared_emulator) -> dict[str, Any]:
    if shutil.which("curl") is None:
        if os.environ.get("CI", "").lower() in ("true", "1"):
            pytest.fail("There is no curl.")
        pytest.skip("There is no curl.")
    found: dict[str, Any] = shared_emulator("--tls", "--rate", "0").ready
    return found


@pytest.fixture
def curl(ready, tmp_path: Path) -> Curl:
    """Run a line in a shell; gives the JSON that came. Placeholders are filled in; ``given`` has more of them."""
    here = urlsplit(ready["url"]).netloc
    (tmp_path / ".curlrc").write_text(
        f'silent\nmax-time = 10\nshow-error\ncacert = "{ready["ca"]}"\nconnect-to = "::{here}"\n'
    )
    fixed = {"YOUR_ORG_ID": ready["oid"], "YOUR_API_KEY": ready["api_key"], "$YOUR_OID": ready["oid"]}

    def run(line: str, **given: str) -> Any:
        for name, value in (fixed | {f"${name}": value for name, value in given.items()}).items():
            line = line.replace(name, value)
        environment = {"PATH": "/usr/bin:/bin:/usr/local/bin", "HOME": str(tmp_path), "CURL_HOME": str(tmp_path)}
        done = subprocess.run(
            ["sh", "-c", line], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=15, check=False
        )
        assert (0, "") == (done.returncode, done.stderr), line
        try:
            return json.loads(done.stdout)
        except ValueError:
            return done.stdout

    return run


@pytest.fixture
def jwt(curl: Curl) -> str:
    """The token that the guide's first line gets."""
    token: str = curl(JWT)["jwt"]
    return token


@pytest.fixture
def api(curl: Curl, jwt: str) -> Curl:
    """Call a path of the REST API with curl."""

    def call(method: str, path: str, more: str = "") -> Any:
        return curl(
            f"curl -f -X {method} 'https://api.limacharlie.io/v1{path}' -H 'Authorization: Bearer {jwt}' {more}"
        )

    return call


def inner(answer: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = answer.get("data", answer)
    return found


def test_a_token(curl):
    """A key becomes a token, and nothing else is in the answer."""
    answer = curl(JWT)
    assert list(answer) == ["jwt"]
    assert answer["jwt"].count(".") == 2


def test_reliable_tasking_by_selector(curl, jwt, api):
    """The task for Windows reaches all Windows sensors, and waits for those that are offline."""
    windows = [row for row in api("GET", "/sensors/$YOUR_OID")["sensors"] if row["plat"] == WINDOWS]
    made = inner(curl(TASK, JWT=jwt))
    assert made["total_sensors"] == len(windows) > 1
    assert made["tasked_sensors"] + made["queued_sensors"] == len(windows)
    queues = inner(curl(LIST, JWT=jwt)).values()
    waiting = [entry for queue in queues for task, entry in queue.items() if task == made["task_id"]]
    assert len(waiting) == made["queued_sensors"] > 0
    assert {(entry["command"], entry["context"]) for entry in waiting} == {("run --shell-command whoami", "version")}


def test_reliable_tasking_of_one_sensor(curl, jwt):
    """A selector with a quoted id is understood, and reaches nobody where nobody has this id."""
    assert inner(curl(ONE_SENSOR, JWT=jwt))["total_sensors"] == 0


def test_reliable_tasking_by_tag(curl, jwt, api):
    """Only Linux sensors with the tag are meant."""
    linux = [row for row in api("GET", "/sensors/$YOUR_OID")["sensors"] if row["plat"] == LINUX]
    for row in linux:
        on = {"POST": "production"} if row is linux[0] else {"DELETE": "production"}
        for method, tag in on.items():
            api(method, f"/sensor/$YOUR_OID/{row['sid']}/tag", f"-d 'tag={tag}'")
    assert len(linux) > 1
    assert inner(curl(TAGGED, JWT=jwt))["total_sensors"] == 1


def test_reliable_tasking_of_all_sensors(curl, jwt, api):
    """Without a selector the task is for each sensor that can be tasked at all."""
    everyone = [row for row in api("GET", "/sensors/$YOUR_OID")["sensors"] if row["arch"] != ADAPTER]
    assert inner(curl(ALL_SENSORS, JWT=jwt))["total_sensors"] == len(everyone)


def test_endpoints_of_the_guide(api, tmp_path):
    """Each line of the guide's table of endpoints does what it says, on the path that it gives."""
    assert api("GET", "/orgs/$YOUR_OID")["name"]
    sid = next(row["sid"] for row in api("GET", "/sensors/$YOUR_OID")["sensors"] if row["arch"] != ADAPTER)
    sensor = f"/sensor/$YOUR_OID/{sid}"
    assert api("GET", sensor)["info"]["sid"] == sid
    assert api("POST", f"{sensor}/task", "-d tasks=os_version -d investigation_id=incident-2024-001") == {}
    tag = f"{sensor}/tag"
    api("POST", tag, "-d tags=guide -d ttl=3600")
    assert "guide" in api("GET", tag)["tags"][sid]
    api("DELETE", tag, "-d tag=guide")
    assert "guide" not in api("GET", tag)["tags"].get(sid, {})
    rule = """-d name=guide --data-urlencode 'detection={"op":"exists","path":"event"}' -d 'response=[]'"""
    api("POST", "/rules/$YOUR_OID", f"{rule} -d is_replace=true")
    assert api("GET", "/rules/$YOUR_OID")["guide"]["detect"] == {"op": "exists", "path": "event"}
    api("DELETE", "/rules/$YOUR_OID", "-d name=guide")
    file = tmp_path / "collected"
    file.write_bytes(b"an artifact")
    name = api("POST", "/artifacts/$YOUR_OID", f"--data-binary @{file} -H 'lc-source: guide'")["payload"]
    assert api("GET", f"/artifacts/$YOUR_OID/{name}", "-o back") == ""
    assert (tmp_path / "back").read_bytes() == b"an artifact"


@pytest.mark.parametrize(
    ("path", "status", "text"),
    [
        ("/sensor/$YOUR_OID/00000000-0000-4000-8000-000000000000", 404, "not found"),
        ("/sensors/$YOUR_OID?selector=a+b+c", 400, "selector"),
        ("/sensors/00000000-0000-4000-8000-000000000000", 401, "unauthorized"),
        ("/no/such/thing", 404, ""),
    ],
)
def test_errors_of_the_guide(curl, jwt, path, status, text):
    """What goes wrong has its status and a JSON error."""
    answer = curl(f"curl -w '\\n%{{http_code}}' 'https://api.limacharlie.io/v1{path}' -H 'Authorization: Bearer {jwt}'")
    body, code = answer.rsplit("\n", 1)
    assert int(code) == status
    assert text in json.loads(body)["error"].lower()


def test_a_wrong_key_gets_no_token(curl):
    """The token service says that it does not know the key."""
    assert "unknown api key" in curl(JWT.replace("YOUR_API_KEY", "00000000-0000-4000-8000-000000000000"))["error"]
