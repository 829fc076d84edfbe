"""`workers: N`: several processes behind one port, one admin address and one signal."""

import collections
import json
import os
import pathlib
import signal
import socket
import ssl
import subprocess

import pytest

LINE = b'{"routing":{"event_type":"X","hostname":"%d"},"event":{"n":%d}}'


@pytest.fixture
def connect():
    """Makes connections; those that are still open at the end are cut."""
    made = []

    def one_more(port, number):
        made.append(Peer(port, number))
        return made[-1]

    yield one_more
    for one in made:
        one.sock.close()


class Peer:
    """A TLS connection that sends numbered records, as LimaCharlie does."""

    def __init__(self, port, number):
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        self.number = number
        self.sent = 0
        self.sock = context.wrap_socket(socket.create_connection(("127.0.0.1", port), timeout=10))

    def send(self, count):
        lines = [LINE % (self.number, self.sent + n) for n in range(count)]
        self.sent += count
        self.sock.sendall(b"\n".join([*lines, b""]))

    def close(self):
        self.sock.unwrap().close()


def config(tmp_path, port, workers, **more):
    return {
        "workers": workers,
        "sources": {"telemetry": {"type": "firehose", "stream": "event", "listen": f"127.0.0.1:{port}"}},
        "sinks": {"out": {"type": "file", "path": f"{tmp_path}/data/all.jsonl", "batch": {"max_wait": "50ms"}}},
        "routes": {"all": {"from": "telemetry", "to": "out"}},
        "spool": {"type": "disk", "path": f"{tmp_path}/spool", "max_size": "1GiB"},
        **more,
    }


def numbers(lines, folder):
    """Peer -> the numbers of its records, in the order of the files."""
    found = collections.defaultdict(list)
    for line in lines(folder):
        record = json.loads(line)
        found[int(record["routing"]["hostname"])].append(record["event"]["n"])
    return found


def children(process):
    """Process ids of the workers, by their number."""
    found = {}
    for path in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            parent = int((path / "stat").read_text().rpartition(")")[2].split()[1])
        except (OSError, ValueError):
            continue
        if parent == process.process.pid:
            found[int(path.name)] = path
    return sorted(found)


def alive(worker):
    """Whether a process runs; one that only waits to be reaped does not."""
    try:
        return (pathlib.Path("/proc") / str(worker) / "stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def ready(process):
    process.wait_log("Serving metrics")
    return process.get("readyz")[0] == 200


@pytest.mark.timeout(60)
def test_connections_are_handed_over_in_turn_and_a_stop_loses_nothing(
    pipeline, tmp_path, free_port, lines, until, connect
):
    """Four connections are served by two workers, two each; a SIGTERM right after the last byte loses nothing of it."""
    port = free_port()
    settings = config(tmp_path, port, 2)
    process = pipeline(settings)
    until(lambda: ready(process), "both workers are ready")
    peers = [connect(port, number) for number in range(4)]
    for peer in peers:
        peer.send(5000)
    process.wait_metric("pipeline_lane_records_total", 20000, outcome="delivered")
    assert process.metric("pipeline_source_received_records_total") == 20000
    assert process.metric("pipeline_conservation_error_records") == 0
    for peer in peers:
        peer.send(2000)
        peer.close()
    assert process.stop() == 0
    process = pipeline(settings)
    until(lambda: ready(process), "both workers are ready")
    process.wait_delivered()
    assert process.stop() == 0
    got = numbers(lines, tmp_path / "data")
    assert {number: list(range(7000)) for number in range(4)} == dict(got)
    halves = [numbers(lambda path: path.read_bytes().splitlines(), file) for file in (tmp_path / "data").iterdir()]
    assert [2, 2] == [len(half) for half in halves]
    assert {"all.w1.jsonl", "all.w2.jsonl"} == {file.name for file in (tmp_path / "data").iterdir()}


@pytest.mark.timeout(60)
def test_a_worker_that_is_killed_is_started_again_on_its_own_spool(
    pipeline, tmp_path, free_port, lines, until, connect
):
    """kill -9 of one worker loses nothing that it had accepted, disturbs no other, and no counter of all goes back."""
    port = free_port()
    process = pipeline(config(tmp_path, port, 2))
    until(lambda: ready(process), "both workers are ready")
    peers = [connect(port, number) for number in range(2)]
    for peer in peers:
        peer.send(3000)
    process.wait_metric("pipeline_source_received_records_total", 6000)
    before = process.metric("pipeline_source_received_records_total")
    victim, _ = children(process)
    os.kill(victim, signal.SIGKILL)
    process.wait_log("A worker ended")
    assert process.get("readyz")[0] == 200
    assert before <= process.metric("pipeline_source_received_records_total")
    survivors = []
    for peer in peers:
        try:
            peer.send(1000)
            peer.close()
        except OSError:
            continue
        survivors.append(peer.number)
    assert len(survivors) == 1
    # until it runs nobody knows what waits for it
    until(lambda: sum(line["event"] == "Running." for line in process.log) == 3, "the worker is back")
    again = [connect(port, number) for number in (2, 3)]
    for peer in again:
        peer.send(1000)
        peer.close()
    process.wait_metric("pipeline_source_received_records_total", before + 3000)
    process.wait_delivered()
    assert process.metric("pipeline_conservation_error_records") == 0
    assert process.stop() == 0
    expected = {number: list(range(4000 if number in survivors else 3000)) for number in (0, 1)}
    assert expected | {2: list(range(1000)), 3: list(range(1000))} == dict(numbers(lines, tmp_path / "data"))


@pytest.mark.timeout(90)
@pytest.mark.parametrize("fewer", [1, 2])
def test_what_a_larger_number_of_workers_left_is_delivered(pipeline, tmp_path, free_port, lines, until, connect, fewer):
    """Started with fewer workers, the folders of the others are emptied into the sinks and removed, while new records come in."""
    port = free_port()
    (tmp_path / "data").write_text("a file where the directory should be, so that the sink cannot open")
    settings = config(tmp_path, port, 3)
    process = pipeline(settings)
    until(lambda: ready(process), "the workers are ready")
    peers = [connect(port, number) for number in range(3)]
    for peer in peers:
        peer.send(500)
        peer.close()
    process.wait_metric("pipeline_source_received_records_total", 1500)
    assert process.stop() == 0
    (tmp_path / "data").unlink()
    process = pipeline({**settings, "workers": fewer})
    until(lambda: ready(process), "the workers are ready")
    peer = connect(port, 3)
    peer.send(500)
    peer.close()
    gone = [tmp_path / "spool" / f"w{number}" for number in range(1, 4) if number > fewer or fewer == 1]
    until(lambda: not any(path.exists() for path in gone), "the folders are removed", timeout=30)
    process.wait_metric("pipeline_source_received_records_total", 500)
    process.wait_delivered()
    assert process.stop() == 0
    assert {number: list(range(500)) for number in range(4)} == dict(numbers(lines, tmp_path / "data"))


@pytest.mark.timeout(60)
def test_workers_end_with_their_supervisor_and_the_next_one_waits_for_them(
    pipeline, tmp_path, free_port, lines, until, connect
):
    """After kill -9 of the supervisor the workers end by themselves, and a new start goes on with what they accepted."""
    port = free_port()
    process = pipeline(config(tmp_path, port, 2))
    until(lambda: ready(process), "both workers are ready")
    peers = [connect(port, number) for number in range(2)]
    for peer in peers:
        peer.send(2000)
    process.wait_metric("pipeline_source_received_records_total", 4000)
    workers = children(process)
    process.process.kill()
    again = pipeline(config(tmp_path, port, 2))
    until(lambda: ready(again), "the workers are ready", timeout=30)
    assert not any(map(alive, workers))
    again.wait_delivered()
    assert again.stop() == 0
    assert {number: list(range(2000)) for number in range(2)} == dict(numbers(lines, tmp_path / "data"))


@pytest.mark.timeout(60)
def test_sources_without_a_listener_live_in_one_worker_each(pipeline, emulator, tmp_path, lines):
    """Two spouts in two workers bring each record once; the process ends by itself when all files are read."""
    cloud = emulator("--rate", "0", "--events", "2000")
    account = {"url": cloud.ready["url"], "oid": cloud.ready["oid"], "api_key": cloud.ready["api_key"]}
    process = pipeline({
        "workers": 2,
        "limacharlie": account,
        "sources": {"detections": {"type": "spout", "stream": "detect"}, "audit": {"type": "spout", "stream": "audit"}},
        "sinks": {"out": {"type": "file", "path": f"{tmp_path}/data/{{stream}}.jsonl", "batch": {"max_wait": "50ms"}}},
        "routes": {"all": {"from": ["detections", "audit"], "to": "out"}},
    })  # fmt: skip
    process.wait_metric("pipeline_lane_records_total", 4000, outcome="delivered")
    assert process.stop() == 0
    assert cloud.sent("spout", "detect") == (tmp_path / "data" / "detect.w1.jsonl").read_bytes().splitlines()
    assert cloud.sent("spout", "audit") == (tmp_path / "data" / "audit.w2.jsonl").read_bytes().splitlines()


@pytest.mark.timeout(60)
def test_a_file_that_is_read_to_its_end_ends_all_workers(pipeline, tmp_path, lines):
    """Where all sources are at their end, the workers and the supervisor end with exit code 0, and nothing is left out."""
    (tmp_path / "in.jsonl").write_bytes(b"\n".join([LINE % (0, n) for n in range(1000)]) + b"\n")
    process = pipeline({
        "workers": 3,
        "sources": {"in": {"type": "file", "paths": [f"{tmp_path}/in.jsonl"]}},
        "sinks": {"out": {"type": "file", "path": f"{tmp_path}/data/all.jsonl"}},
        "routes": {"all": {"from": "in", "to": "out"}},
    })  # fmt: skip
    assert process.process.wait(30) == 0
    assert {0: list(range(1000))} == dict(numbers(lines, tmp_path / "data"))


@pytest.mark.timeout(60)
def test_wrong_credentials_end_it_with_exit_code_2(pipeline, emulator, tmp_path):
    """When no source of any worker can authenticate, the exit code is 2, as with one process."""
    cloud = emulator()
    process = pipeline({
        "workers": 2,
        "limacharlie": {"url": cloud.ready["url"], "oid": cloud.ready["oid"], "api_key": "00000000-0000-0000-0000-000000000000"},
        "sources": {"detections": {"type": "spout", "stream": "detect"}, "audit": {"type": "spout", "stream": "audit"}},
        "sinks": {"out": {"type": "file", "path": f"{tmp_path}/data/{{stream}}.jsonl"}},
        "routes": {"all": {"from": ["detections", "audit"], "to": "out"}},
    })  # fmt: skip
    assert process.process.wait(30) == 2


def test_a_port_that_is_taken_is_a_clear_error(pipeline, tmp_path):
    """A listener that cannot be bound ends the start with exit code 4, before any worker is started."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        process = pipeline(config(tmp_path, taken.getsockname()[1], 2))
        assert process.process.wait(15) == 4
        entry = process.wait_log("annot listen on")
    assert "Address already in use" in str(entry["event"])
    assert not subprocess.run(["pgrep", "-P", str(process.process.pid)], check=False, capture_output=True).stdout
