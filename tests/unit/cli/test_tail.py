"""What `lc-pipeline tail` says when it cannot show records."""

import http.server
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from .conftest import Run

OID = "8cbe27f4-bfa1-4afb-ba19-138cd51389cd"


class Refusing(http.server.BaseHTTPRequestHandler):
    """Takes no key."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        body = json.dumps({"error": "unauthorized."}).encode()
        self.send_response(401)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        """Be silent."""


@pytest.fixture
def refusing() -> Iterator[str]:
    """The address of a LimaCharlie that refuses all keys."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Refusing) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(("args", "times"), [([], 1), (["--log-level", "error"], 3)])
def test_a_refused_key_is_told_once(run: Run, refusing: str, args: list[str], times: int) -> None:
    """The plain line says it; the log says it too only for those who ask for a log level."""
    done = run("tail", *args, env={"LC_URL": refusing, "LC_OID": OID, "LC_API_KEY": "bad"})
    assert (2, times) == (done.returncode, done.stderr.count("LimaCharlie refuses the credentials")), done.stderr
    assert "(401: unauthorized). Check oid" in done.stderr


@pytest.mark.parametrize(
    ("args", "env", "said"),
    [
        ([], {"LC_API_KEY": "k"}, "Error: There is an API key, but no organization id."),
        ([], {"LC_API_KEY": "k", "LC_OID": "notauuid"}, "Error: The value of LC_OID is wrong: an organization id is"),
        (["-f", "priority"], {}, "Error: The filter 'priority' is not a path, a sign and a value."),
        (["-f", "priority>abc"], {}, "Error: The value in the filter 'priority>abc' is wrong: it must be a number."),
    ],
)
def test_mistakes_end_it(run: Run, args: list[str], env: dict[str, str], said: str) -> None:
    """What cannot work ends with a sentence and the exit code of mistakes."""
    done = run("tail", *args, env={"LC_EPHEMERAL_CREDS": "1", **env})
    assert (4, True) == (done.returncode, done.stderr.startswith(said)), done.stderr


def test_it_imports_only_what_it_needs() -> None:
    """Until it connects it has read no other component, no YAML, Kafka or certificates: somebody waits for its first line."""
    code = (
        "import sys; from pipeline.engine import runner\n"
        "async def run(self):\n"
        "  print(len(sys.modules), *{name.split('.')[0] for name in sys.modules}, *sys.modules, file=sys.stderr)\n"
        "  raise SystemExit\n"
        "runner.Runner.run = run\n"
        "from pipeline.cli import invoke; invoke(['tail'])"
    )
    account = {"LC_OID": OID, "LC_API_KEY": "k", "LC_URL": "http://127.0.0.1:1"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={**os.environ, **account}
    )
    count, *names = done.stderr.split()
    assert {
        "aiokafka",
        "cryptography",
        "limacharlie",
        "ruamel.yaml",
        "pipeline.admin",
        "pipeline.config.parse",
    }.isdisjoint(names)
    assert {name for name in names if name.startswith("pipeline.sinks.")} == {
        "pipeline.sinks.stdout",
        "pipeline.sinks.pretty",
    }
    assert {name for name in names if name.startswith("pipeline.sources.")} == {"pipeline.sources.spout"}
    assert int(count) < 700
