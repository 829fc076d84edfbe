"""What a command loads: each megabyte and each ten milliseconds is paid by every start."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = {
    "aiohttp",
    "aiokafka",
    "asyncio",
    "cryptography",
    "msgspec",
    "orjson",
    "prometheus_client",
    "pydantic",
    "ruamel",
    "ssl",
}
LISTENER = """
sources: {hose: {type: firehose, stream: event, listen: "127.0.0.1:0", tls: {cert: %(cert)s, key: %(key)s}}}
sinks: {out: {type: file, path: out/x.jsonl}}
routes: {all: {from: hose, filters: [{type: events, include: [NEW_PROCESS]}], to: out}}
admin: {listen: "127.0.0.1:0"}
"""
RUN = """
import asyncio, os, signal
from pathlib import Path
from pipeline.cli.run import run
from pipeline.config.load import load
from contextlib import asynccontextmanager

@asynccontextmanager
async def stop_at_once(runner):
    print("up")
    os.kill(os.getpid(), signal.SIGTERM)
    yield

run(load(Path("lc.yaml")), services=[stop_at_once])
"""


def loaded(code: str, folder: Path) -> set[str]:
    """The packages that a process has loaded in the end."""
    code += "\nimport sys\nprint(*sorted({name.partition('.')[0] for name in sys.modules}))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=folder,
        check=False,
        env={key: value for key, value in os.environ.items() if not key.startswith("LC_")},
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines()[-1].split())


@pytest.mark.parametrize(
    "args", [["--help"], ["--version"], ["run", "--help"], ["tail", "--help"], ["explain", "--help"]]
)
def test_help_loads_next_to_nothing(args, tmp_path):
    """Help needs neither an event loop, nor configurations, nor any network."""
    assert not HEAVY & loaded(f"from pipeline.cli import invoke; invoke({args})", tmp_path)


def test_a_listener_loads_no_http_client(tmp_path):
    """A worker that receives and writes files has no HTTP framework, no cryptography and no Kafka in its memory."""
    import trustme

    pair = trustme.CA().issue_cert("localhost")
    pair.private_key_pem.write_to_path(tmp_path / "key.pem")
    pair.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    (tmp_path / "lc.yaml").write_text(LISTENER % {"cert": tmp_path / "cert.pem", "key": tmp_path / "key.pem"})
    found = loaded(RUN, tmp_path)
    assert {"msgspec", "prometheus_client"} <= found
    assert not {"aiohttp", "aiokafka", "cryptography", "cramjam"} & found


def test_watching_a_stream_loads_little_of_the_api(tmp_path):
    """`tail` needs a stream's client, and not those of sessions, searches, rules and hives."""
    code = "import pipeline.cli.tail, pipeline.sources.spout, pipeline.sinks.stdout, pipeline.engine.accounts, pipeline.cli.run\n"
    code += "from pipeline.limacharlie import LimaCharlie\nimport sys\n"
    code += "rooms = [name.partition('limacharlie.')[2] for name in sys.modules if name.startswith('pipeline.limacharlie.')]\n"
    code += "sys.modules.update({f'room_{room}'.replace('.', '_'): None for room in rooms})"
    found = loaded(code, tmp_path)
    assert {"room_feed", "room_token"} <= found
    assert not {"room_ai_client", "room_hive", "room_rules", "room_search", "room_sensors", "room_artifacts"} & found
    assert not {"aiokafka", "cryptography", "re2"} & found
