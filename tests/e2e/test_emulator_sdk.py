"""The official SDK, only its addresses changed, against a real emulator process.

It runs in a process of its own, as its users do; each script prints one JSON value.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

EMULATE = [sys.executable, "-m", "pipeline.cli", "emulate"]

PROLOGUE = """
import json, os, sys, time
import limacharlie.sdk.spout as spout_module
from limacharlie.client import Client
from limacharlie.sdk.firehose import Firehose
from limacharlie.sdk.organization import Organization
from limacharlie.sdk.outputs import Outputs
from limacharlie.sdk.spout import Spout

ready = json.loads(os.environ["READY"])
spout_module._STREAM_URL = ready["url"] + os.environ.get("STREAM_PATH", "")
org = Organization(Client(oid=ready["oid"], api_key=os.environ.get("KEY", ready["api_key"])))
"""


class Process:
    """An emulator process."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.ledger = folder / "ledger"
        ready_file = folder / "ready.json"
        ready_file.unlink(missing_ok=True)
        paths = ["--ready-file", str(ready_file), "--ledger", str(self.ledger)]
        self.popen = subprocess.Popen([*EMULATE, "--listen", "127.0.0.1:0", *paths, *arguments])
        while not ready_file.exists():
            assert self.popen.poll() is None, "the emulator ended"
            time.sleep(0.02)
        self.ready: dict[str, Any] = json.loads(ready_file.read_text())

    def turn(self, knob: str, **arguments: Any) -> Any:
        request = urllib.request.Request(f"{self.ready['url']}/_emulator/{knob}", json.dumps(arguments).encode())
        with urllib.request.urlopen(request, timeout=10) as response:
            return json.load(response)

    def sdk(self, script: str, **environment: str) -> Any:
        """Run a script after the prologue; gives the JSON that it printed."""
        clean = {name: value for name, value in os.environ.items() if not name.startswith("LC_")}
        url = self.ready["url"]
        fixed = {"LC_API_URL": url, "LC_JWT_URL": url, "LC_EPHEMERAL_CREDS": "1", "READY": json.dumps(self.ready)}
        done = subprocess.run(
            [sys.executable, "-c", PROLOGUE + textwrap.dedent(script)],
            env=clean | fixed | environment,
            capture_output=True,
            timeout=18,
            check=False,
        )
        assert done.returncode == 0, done.stderr.decode()
        return json.loads(done.stdout)

    def records(self, name: str) -> list[Any]:
        return [json.loads(line) for line in (self.ledger / name).read_bytes().splitlines()]

    def ends(self) -> dict[str, bool]:
        return {row["file"]: row["clean"] for row in self.records("connections.jsonl")}

    def stop(self) -> int:
        if self.popen.poll() is None:
            self.popen.send_signal(signal.SIGTERM)
        return self.popen.wait(10)


@pytest.fixture
def emulate(tmp_path: Path) -> Iterator[Callable[..., Process]]:
    started: list[Process] = []

    def start(*arguments: str) -> Process:
        started.append(Process(tmp_path, *arguments))
        return started[-1]

    yield start
    for process in started:
        process.stop()


def test_token_and_api(emulate):
    """The SDK mints a token, asks who it is, and reads the organization, its services and its sensors."""
    process = emulate()
    result = process.sdk("""
        result = {"who": org.who_am_i(), "info": org.get_info(), "urls": org.get_urls(), "errors": org.get_errors()}
        result["sensors"] = [sensor["sid"] for sensor in org.list_sensors()]
        print(json.dumps(result))
    """)
    assert result["who"]["orgs"] == [process.ready["oid"]]
    assert result["info"]["oid"] == process.ready["oid"]
    assert result["urls"]["live"] == process.ready["url"].removeprefix("http://")
    assert result["errors"] == []
    assert len(result["sensors"]) >= 7


def test_outputs(emulate):
    """The SDK creates, lists and deletes an output."""
    result = emulate().sdk("""
        outputs = Outputs(org)
        made = outputs.create("one", "s3", "detect", bucket="b", key_id="k")
        listed = outputs.list()
        outputs.delete("one")
        print(json.dumps([made, listed, outputs.list()]))
    """)
    made, listed, after = result
    assert (made["for"], made["bucket"]) == ("detect", "b")
    assert listed == {"one": made}
    assert after == {}


def test_wrong_key(emulate):
    """The SDK says that the key is unknown."""
    text = emulate().sdk(
        """
        try:
            org.who_am_i()
        except Exception as error:
            print(json.dumps(f"{type(error).__name__}: {error}"))
        """,
        KEY="00000000-0000-0000-0000-000000000000",
    )
    assert text.startswith("AuthenticationError")
    assert "unknown api key" in text


def test_expired_token_is_renewed(emulate):
    """A token that the emulator no longer takes makes the SDK mint another one, once."""
    process = emulate()
    process.sdk("""
        import urllib.request
        org.who_am_i()
        urllib.request.urlopen(urllib.request.Request(ready["url"] + "/_emulator/expire_tokens", b"{}"), timeout=5)
        print(json.dumps(org.who_am_i()))
    """)
    with urllib.request.urlopen(process.ready["url"] + "/_emulator/requests", timeout=5) as response:
        assert json.load(response) == {"POST /": {"200": 2}, "GET /v1/who": {"200": 2, "401": 1}}


@pytest.mark.parametrize("stream", ["event", "detect", "audit", "deployment", "billing"])
@pytest.mark.parametrize("path", ["", "/stream"])
def test_spout(emulate, stream, path):
    """The SDK's Spout receives each stream, record for record, when its buffer is large enough."""
    process = emulate("--rate", "0", "--events", "300")
    received = process.sdk(
        f"""
        spout = Spout(org, "{stream}", max_buffer=10000)
        assert spout.wait_connected(5)
        print(json.dumps([spout.get(timeout=5) for _ in range(300)]), flush=True)
        os._exit(0)  # its shutdown waits for the next line
        """,
        STREAM_PATH=path,
    )
    assert received == process.records(f"spout-{stream}-1.jsonl")


def test_over_tls(emulate):
    """With the emulator's authority trusted, the SDK speaks HTTPS with it."""
    process = emulate("--tls", "--rate", "0", "--events", "100")
    received = process.sdk(
        """
        org.who_am_i()
        spout = Spout(org, "event")
        assert spout.wait_connected(5)
        print(json.dumps([spout.get(timeout=5) for _ in range(100)]), flush=True)
        os._exit(0)
        """,
        SSL_CERT_FILE=process.ready["ca"],
        REQUESTS_CA_BUNDLE=process.ready["ca"],
    )
    assert received == process.records("spout-event-1.jsonl")


def test_spout_live(emulate):
    """The SDK's Spout receives what is generated while it is connected."""
    process = emulate("--rate", "200")
    received = process.sdk("""
        spout = Spout(org, "event")
        assert spout.wait_connected(5)
        print(json.dumps([spout.get(timeout=5) for _ in range(50)]), flush=True)
        os._exit(0)
    """)
    assert received == process.records("spout-event-1.jsonl")[:50]


def test_spout_refused(emulate):
    """The SDK's Spout understands the refusal after the 200."""
    text = emulate().sdk(
        """
        spout = Spout(org, "event")
        try:
            spout.wait_connected(5)
        except Exception as error:
            print(json.dumps(str(error)), flush=True)
        os._exit(0)
        """,
        KEY="00000000-0000-0000-0000-000000000000",
    )
    assert "error: unauthorized" in text


FIREHOSE = """
    hose = Firehose(
        org, os.environ["ADDRESS"], "event", public_dest=os.environ["ADDRESS"], name="sdk",
        ssl_cert=os.environ["CERT"], ssl_key=os.environ["CERT"], max_buffer=100000,
    )
    received, quiet = [], 0
    while len(received) + hose.dropped < int(os.environ["WANTED"]) and quiet < 2:
        record = hose.get(timeout=1)
        quiet += record is None
        if record is not None:
            received.append(record)
    print(json.dumps({"received": received, "dropped": hose.dropped, "outputs": list(Outputs(org).list())}), flush=True)
    os._exit(0)
"""


def firehose(process: Process, folder: Path, wanted: int) -> Any:
    """Let the SDK's Firehose listen with a certificate that the emulator trusts, as its strict output asks."""
    authority = trustme.CA()
    pem, cert = folder / "ca.pem", folder / "cert.pem"
    authority.cert_pem.write_to_path(pem)
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(cert)
    process.turn("trust", ca=str(pem))
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    return process.sdk(FIREHOSE, ADDRESS=f"127.0.0.1:{port}", CERT=str(cert), WANTED=str(wanted))


def test_firehose_one_record_a_write(emulate, tmp_path):
    """The SDK's Firehose registers itself and receives all, when each TLS record holds one event."""
    process = emulate("--rate", "0", "--events", "400")
    process.turn("shape", via="firehose", write="record")
    result = firehose(process, tmp_path, 400)
    assert result["outputs"] == ["tmp_live_sdk"]
    assert result["dropped"] == 0
    assert result["received"] == process.records("firehose-event-1.jsonl")


def test_firehose_loses_records_that_are_split(emulate, tmp_path):
    """The SDK's Firehose loses what spans two reads: with full TLS records of 16 KiB, some of everything."""
    process = emulate("--rate", "0", "--events", "2000")
    result = firehose(process, tmp_path, 4000)
    sent = process.records("firehose-event-1.jsonl")
    lost = len(sent) - len(result["received"])
    assert len(sent) == 2000
    assert lost > 0
    assert result["dropped"] >= lost


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_end_it(emulate, number):
    """A signal ends the emulator in order, with exit code 0."""
    process = emulate()
    assert process.ready["pid"] == process.popen.pid
    process.popen.send_signal(number)
    assert process.popen.wait(10) == 0


def test_signal_in_mid_stream(emulate):
    """A reader that closes when the stream ends is clean though a signal ended it, and has exactly what was sent."""
    process = emulate("--rate", "0", "--events", "200000")
    body = f"type=event&api_key={process.ready['api_key']}".encode()
    with urllib.request.urlopen(f"{process.ready['url']}/stream/{process.ready['oid']}", body, timeout=10) as response:
        assert response.readline() == b'{"__trace":"connected"}\n'
        received = [response.readline() for _ in range(1000)]
        process.popen.send_signal(signal.SIGTERM)
        received += response.readlines()
    assert process.popen.wait(10) == 0
    assert process.ends() == {"spout-event-1.jsonl": True}
    assert b"".join(received) == (process.ledger / "spout-event-1.jsonl").read_bytes()


def test_ledger_folder_used_again(emulate):
    """A second emulator on the same ledger adds to it and overwrites nothing."""
    for _ in range(2):
        process = emulate("--rate", "0", "--events", "5")
        body = f"type=audit&api_key={process.ready['api_key']}".encode()
        url = f"{process.ready['url']}/stream/{process.ready['oid']}"
        with urllib.request.urlopen(url, body, timeout=10) as response:
            for _ in range(6):
                response.readline()
        process.stop()
    assert set(process.ends()) == {"spout-audit-1.jsonl", "spout-audit-2.jsonl"}
    assert len(process.records("spout-audit-1.jsonl")) == len(process.records("spout-audit-2.jsonl")) == 5


@pytest.mark.parametrize("arguments", [["--scenario", "/no/such"], ["--listen", "nowhere"], ["--rate", "-1"]])
def test_wrong_arguments(arguments):
    """Wrong arguments end the command with exit code 4 and a message, not a traceback."""
    done = subprocess.run([*EMULATE, *arguments], capture_output=True, timeout=15, check=False)
    assert done.returncode == 4
    assert arguments[0].lstrip("-").encode() in done.stderr or arguments[1].encode() in done.stderr
    assert b"Traceback" not in done.stderr
