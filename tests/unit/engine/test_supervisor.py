"""The supervisor, where the machine does not do what it wants."""

import asyncio
import sys

import structlog

from pipeline.config.load import load
from pipeline.engine.supervisor import Supervisor

OPTIONS = {"log_level": "error", "log_format": "json", "debug": False}
CONFIG = """
workers: 2
sources: {{in: {{type: file, paths: ["{0}/in.jsonl"]}}}}
sinks: {{out: {{type: file, path: "{0}/data/all.jsonl"}}}}
routes: {{all: {{from: in, to: out}}}}
"""


async def test_a_worker_that_cannot_be_started_is_tried_again(tmp_path):
    """No process to be had is no reason to end the others: it is told and tried until there is one."""
    (tmp_path / "in.jsonl").write_bytes(b'{"a":1}\n')
    (tmp_path / "lc.yaml").write_text(CONFIG.format(tmp_path))
    command = tmp_path / "worker"
    supervisor = Supervisor(load(tmp_path / "lc.yaml"), [str(command)], OPTIONS)
    with structlog.testing.capture_logs() as said:
        async with asyncio.timeout(30), asyncio.TaskGroup() as group:
            run = group.create_task(supervisor.run())
            while not any("not started" in line.get("how", "") for line in said):
                await asyncio.sleep(0.01)
            ready = tmp_path / "ready"
            ready.write_text(f'#!/bin/sh\nexec {sys.executable} -m pipeline.cli.worker "$@"\n')
            ready.chmod(0o755)
            ready.rename(command)
        assert (await run).exit_code == 0
    assert [path.read_bytes() for path in (tmp_path / "data").iterdir()] == [b'{"a":1}\n']
