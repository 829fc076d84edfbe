"""What is packed around the code agrees with it."""

import http.server
import json
import os
import re
import subprocess
import sys
import threading
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from ruamel.yaml import YAML

from pipeline import __version__

ROOT = Path(__file__).parents[3]
CHART = ROOT / "helm" / "lc-pipeline"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def yaml(path: Path) -> Any:
    return YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))


def test_all_have_one_version() -> None:
    """The package, the distribution and the chart have one version."""
    chart = yaml(CHART / "Chart.yaml")
    assert [__version__] * 3 == [PROJECT["version"], chart["version"], chart["appVersion"]]


def paths(schema: dict[str, Any], values: dict[str, Any], prefix: str = "") -> tuple[set[str], set[str]]:
    """The paths that the schema lists, and those that the values have, as deep as the schema goes."""
    listed, given = set(schema["properties"]), set(values)
    result = {prefix + name for name in listed}, {prefix + name for name in given}
    for name in listed & given:
        if "properties" in schema["properties"][name]:
            inner = paths(schema["properties"][name], values[name], f"{prefix}{name}.")
            result[0].update(inner[0])
            result[1].update(inner[1])
    return result


def test_chart_values_and_schema_list_the_same() -> None:
    """values.yaml shows each value that the schema allows, and the schema allows each that is shown."""
    schema = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
    listed, given = paths(schema, yaml(CHART / "values.yaml"))
    assert listed - {"global"} == given  # Helm itself adds `global`


def test_chart_templates_use_values_that_exist() -> None:
    """Each value that a template reads is one of values.yaml."""
    values = yaml(CHART / "values.yaml")
    used = {
        match
        for file in (CHART / "templates").iterdir()
        for match in re.findall(r"\.Values\.([\w.]+)", file.read_text(encoding="utf-8"))
    }
    missing = []
    for path in used:
        value = values
        for part in path.split("."):
            if not isinstance(value, dict) or part not in value:
                missing.append(path)
                break
            value = value[part]
    assert [] == missing
    assert set() == set(values) - {path.split(".")[0] for path in used}


def test_constraints_fit_the_ranges_and_name_no_address() -> None:
    """constraints.txt has plain versions only, one for each direct dependency and within its range."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [re.fullmatch(r"([A-Za-z0-9._-]+)==([A-Za-z0-9._!+-]+)", line) for line in lines if not line.startswith("#")]
    versions = {canonicalize_name(pin[1]): pin[2] for pin in pins if pin}
    assert len(versions) == len(pins)
    wanted = [*PROJECT["dependencies"], *(one for extra in PROJECT["optional-dependencies"].values() for one in extra)]
    for requirement in map(Requirement, wanted):
        assert requirement.specifier.contains(versions[canonicalize_name(requirement.name)]), str(requirement)


class _Answer(http.server.BaseHTTPRequestHandler):
    status = 200

    def do_GET(self) -> None:
        self.send_response(self.status if self.path == "/healthz" else 404)
        self.end_headers()

    def log_message(self, *_: Any) -> None: ...


@pytest.mark.parametrize(("status", "expected"), [(200, 0), (503, 1), (None, 1)])
def test_the_image_health_check_asks_healthz(status: int | None, expected: int) -> None:
    """The Dockerfile's health check passes for 200 only, not for another answer and not for none."""
    found = re.search(
        r"HEALTHCHECK.*?CMD (\[.*?\])$", (ROOT / "Dockerfile").read_text("utf-8"), re.DOTALL | re.MULTILINE
    )
    assert found
    command = [sys.executable, *json.loads(found[1])[1:]]
    with http.server.HTTPServer(("127.0.0.1", 0), type("Answer", (_Answer,), {"status": status})) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        if status is not None:
            thread.start()
        else:
            server.socket.close()
        env = os.environ | {"LC_ADMIN_PORT": str(server.server_port), "http_proxy": "http://127.0.0.1:1"}
        done = subprocess.run(command, env=env, capture_output=True, timeout=15, check=False)
        if status is not None:
            server.shutdown()
            thread.join()
    assert expected == done.returncode, done.stderr
