"""Which events a platform has, and how often: the event stream."""

from __future__ import annotations

from pipeline.emulator import payloads_file as files
from pipeline.emulator import payloads_network as network
from pipeline.emulator import payloads_process as processes
from pipeline.emulator import payloads_sensor as sensor
from pipeline.emulator import payloads_windows as windows
from pipeline.emulator.fleet import Fleet
from pipeline.emulator.payloads_adapter import ADAPTERS
from pipeline.emulator.payloads_endpoint import Endpoint, Renderer
from pipeline.emulator.records import Dice, Record, Stamp, stretch

_EVERYWHERE: list[tuple[Renderer, int]] = [
    (processes.new_process, 150),
    (processes.terminate_process, 120),
    (network.network_connections, 150),
    (network.dns_request, 150),
    (processes.code_identity, 100),
    (files.file_create, 60),
    (files.file_modified, 50),
    (files.file_delete, 40),
    (network.new_tcp4_connection, 16),
    (network.terminate_tcp4_connection, 10),
    (network.new_udp4_connection, 8),
    (network.new_tcp6_connection, 3),
    (network.new_udp6_connection, 2),
    (network.network_summary, 6),
    (sensor.task, 8),
    (files.user_observed, 4),
    (files.fim_hit, 4),
    (files.yara_detection, 3),
    (windows.service_change, 2),
    (sensor.connected, 2),
    (sensor.shutting_down, 1),
    (sensor.data_dropped, 1),
]
_DECKS: dict[str, list[tuple[Renderer, int]]] = {
    "windows": [
        *_EVERYWHERE,
        (processes.module_load, 60),
        (windows.registry_write, 40),
        (windows.wel, 40),
        (windows.registry_create, 10),
        (windows.registry_delete, 6),
        (windows.new_named_pipe, 8),
        (windows.open_named_pipe, 8),
        (files.new_document, 8),
        (files.file_type_accessed, 8),
        (processes.remote_process_handle, 5),
        (processes.sensitive_process_access, 4),
        (processes.new_remote_thread, 4),
        (processes.process_environment, 4),
        (windows.autorun_change, 3),
        (windows.driver_change, 2),
        (processes.thread_injection, 1),
        (files.volume_mount, 1),
        (files.volume_unmount, 1),
    ],
    "linux": [
        *_EVERYWHERE,
        (processes.module_load, 60),
        (processes.process_environment, 6),
        (processes.exec_oob, 1),
    ],
    "macos": [
        *_EVERYWHERE,
        (files.new_document, 8),
        (files.file_type_accessed, 6),
        (files.ssh_login, 3),
        (files.ssh_logout, 3),
        (processes.exec_oob, 1),
        (files.volume_mount, 1),
        (files.volume_unmount, 1),
    ],
    "chrome": [
        (network.http_request, 50),
        (network.dns_request, 40),
        (network.http_request_headers, 15),
        (network.http_response_headers, 15),
        (sensor.connected, 1),
    ],
    **{name: [(renderer, 1)] for name, renderer in ADAPTERS.items()},
}
_BUSY = {"windows": 10, "linux": 8, "macos": 6}
"""Events of a platform's sensor in proportion; one that is not named has 1."""


class Events:
    """Makes the records of the event stream, of all sensors that are ever online."""

    def __init__(self, fleet: Fleet, seed: int, start_ms: int) -> None:
        self._dice = Dice(fleet.oid, seed, start_ms, "events")
        self._stamp = Stamp()
        decks = {name: stretch(deck) for name, deck in _DECKS.items()}
        hosts = []
        for this in fleet.sensors:
            if this.presence == "never":
                continue
            host = Endpoint(fleet.oid, this, self._dice, decks[this.platform])
            if this.platform not in ADAPTERS:
                host.queue = sensor.boot(host)
            share = _BUSY.get(this.platform, 1)
            hosts.append((host, share if this.presence == "always" else (share + 1) // 2))
        self._hosts = stretch(hosts)

    def make(self, now: int) -> Record:
        host = self._dice.pick(self._hosts)
        draft = host.draw(now)
        event_id = self._dice.uuid()
        this = host.sensor
        return Record(
            host.seal(draft, event_id, now, self._stamp.at(now)),
            "event",
            draft[0],
            this.sid,
            this.tags,
            "",
            draft[3],
            now,
            event_id,
        )
