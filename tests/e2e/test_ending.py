"""A stop comes to its end although something does not come back."""

import json
import os
import signal
import subprocess
import sys

SINK = '''
import asyncio, threading
from typing import Literal
from pipeline import Sink
from pipeline.core.config import SinkConfig

class HangConfig(SinkConfig):
    """A disk that hangs."""
    type: Literal["hang"] = "hang"

class Hang(Sink[HangConfig]):
    async def write(self, items):
        print("writing", flush=True)
        await asyncio.to_thread(threading.Event().wait)
'''
QUICK = "from pipeline.engine import ending; ending.GRACE = 0.5; from pipeline.cli import main; main()"


def test_a_write_that_hangs(tmp_path):
    """A write in a thread that never comes back holds a stop up for `stop_timeout` and the grace; then the log says so."""
    info = tmp_path / "hang-0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Name: hang\nVersion: 0\n")
    (info / "entry_points.txt").write_text("[pipeline.sinks]\nhang = hangsink:Hang\n")
    (tmp_path / "hangsink.py").write_text(SINK)
    (tmp_path / "in.jsonl").write_text('{"routing":{},"event":{}}\n')
    config = {
        "sources": {"in": {"type": "file", "paths": ["in.jsonl"], "follow": True}},
        "sinks": {"out": {"type": "hang"}},
        "routes": {"all": {"from": "in", "to": "out"}},
        "stop_timeout": "0.2s",
        "dead_letter": {"path": "letters"},
        "admin": {"listen": "127.0.0.1:0"},
    }
    (tmp_path / "lc.json").write_text(json.dumps(config))
    process = subprocess.Popen(
        [sys.executable, "-c", QUICK, "run", "lc.json"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout
    assert process.stdout.readline() == "writing\n"
    process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=18)[1]
    assert process.returncode == 1
    (last,) = [json.loads(line) for line in said.splitlines() if "does not come back" in line]
    assert any(name.startswith("asyncio_") for name in last["threads"])
    assert "Records were given up at the stop timeout." in said
