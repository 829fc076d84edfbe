"""What importing the client costs: it is to be usable on its own."""

import json
import subprocess
import sys

import pytest

CODE = """
import json, sys
before = set(sys.modules)
{}
print(json.dumps(sorted(set(sys.modules) - before)))
"""


def loaded(code: str) -> list[str]:
    command = [sys.executable, "-W", "error", "-c", CODE.format(code)]
    found: list[str] = json.loads(subprocess.run(command, capture_output=True, timeout=15, check=True).stdout)
    return found


def test_the_package_alone_is_nearly_nothing():
    """Without a warning, and without any other package or an event loop."""
    found = loaded("import pipeline.limacharlie")
    assert [name for name in found if name.startswith("pipeline")] == ["pipeline", "pipeline.limacharlie"]
    assert len(found) < 20
    assert not {"asyncio", "aiohttp", "pydantic", "orjson"} & set(found)


@pytest.mark.parametrize("name", ["LimaCharlie", "LimaCharlieConfig"])
def test_the_client_brings_nothing_of_the_pipeline(name):
    """Neither engine, sources, sinks, Kafka nor command line, and no YAML as long as no file is read."""
    found = loaded(f"from pipeline.limacharlie import {name}")
    rooms = {found.split(".")[1] for found in found if found.startswith("pipeline.")}
    assert rooms <= {"core", "kit", "limacharlie"}
    others = {found.partition(".")[0] for found in found}
    assert not {"aiokafka", "confluent_kafka", "ruamel", "yaml", "click", "cryptography", "zstandard", "re2"} & others
