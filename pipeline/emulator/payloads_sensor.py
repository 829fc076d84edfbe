"""Events about the sensor itself: its coming and going, and what it answers to tasks."""

from __future__ import annotations

import base64
from collections.abc import Callable

from pipeline.emulator.payloads_endpoint import Draft, Endpoint, Renderer, linked
from pipeline.emulator.payloads_process import existing_process


def boot(host: Endpoint) -> list[Renderer]:
    """Return what a sensor sends first, last first: it connects and reports the processes that run already."""
    return [*(existing_process for _ in host.roots), connected]


def connected(host: Endpoint, now: int) -> Draft:
    address = host.dice.bits(40)
    payload = (
        b'{"HOST_NAME":%b,"IS_SEGREGATED":0,"KERNEL_ACQ_AVAILABLE":1,"MAC_ADDRESS":"02-%02X-%02X-%02X-%02X-%02X"}'
        % (
            host.hostname,
            *address.to_bytes(5, "big"),
        )
    )
    return "CONNECTED", payload, linked(b"", host.atom(now)), ""


def starting_up(host: Endpoint, now: int) -> Draft:
    return "STARTING_UP", b'{"STARTING_UP":{"ts":%d}}' % (now // 1000), linked(b"", host.atom(now)), ""


def shutting_down(host: Endpoint, now: int) -> Draft:
    host.queue = [connected, starting_up]
    return "SHUTTING_DOWN", b'{"SHUTTING_DOWN":{"ts":%d}}' % (now // 1000), linked(b"", host.atom(now)), ""


def data_dropped(host: Endpoint, now: int) -> Draft:
    evicted = host.dice.bits(11)
    payload = (
        b'{"LOSS_ACCOUNTING":{"LOSS_EVICTED_BYTES":%d,"LOSS_EVICTED_EVENTS":%d,"LOSS_MAX_BYTES":52428800,"LOSS_MAX_EVENTS":10000,'
        b'"LOSS_QUEUED_BYTES":41904128,"LOSS_QUEUED_EVENTS":9998,"LOSS_REFUSED_BYTES":0,"LOSS_REFUSED_EVENTS":0}}'
        % (evicted * 3667, evicted)
    )
    return "DATA_DROPPED", payload, linked(b"", host.atom(now)), ""


def task(host: Endpoint, now: int) -> Draft:
    """The sensor confirms a task; its reply comes next."""
    dice = host.dice
    sensor = host.sensor
    request, kind, answer = dice.pick(_TASKS)
    investigation = f"{dice.pick(_INVESTIGATIONS)}/{dice.uuid()}"

    def reply(host: Endpoint, now: int) -> Draft:
        return kind, answer(host, now), _answering(host, now, investigation), investigation

    host.queue.append(reply)
    oid, sid, iid = (part.replace("-", "").encode() for part in (host.oid, sensor.sid, sensor.iid))
    payload = (
        b'{"EXPIRY":0,"HCP_IDENT":{"HCP_ARCHITECTURE":%d,"HCP_INSTALLER_ID":"%b","HCP_ORG_ID":"%b","HCP_PLATFORM":%d,"HCP_SENSOR_ID":"%b"},'
        b'"NOTIFICATION":{"INVESTIGATION_ID":"%b"},"NOTIFICATION_ID":"%b"}'
        % (sensor.arch, iid, oid, sensor.plat, sid, investigation.encode(), request)
    )
    return "CLOUD_NOTIFICATION", payload, _answering(host, now, investigation), investigation


def _answering(host: Endpoint, now: int, investigation: str) -> bytes:
    return b'"investigation_id":"%b",%b' % (investigation.encode(), linked(b"", host.atom(now)))


def _os_version(host: Endpoint, now: int) -> bytes:
    if host.sensor.platform == "windows":
        return (
            b'{"BUILD_NUMBER":20348,"PRODUCT_TYPE":3,"SERVICE_PACK":{},"SUITE":272,"TIMESTAMP":%d,"VERSION_MAJOR":10,"VERSION_MINOR":0}'
            % now
        )
    return b'{"TIMESTAMP":%d,"VERSION_MAJOR":"6.1.0-21-amd64","VERSION_MINOR":"#1 SMP PREEMPT_DYNAMIC"}' % now


def _os_processes(host: Endpoint, now: int) -> bytes:
    return b'{"PROCESSES":[%b],"TIMESTAMP":%d}' % (
        b",".join([b"{%b}" % process.members for process in host.processes]),
        now,
    )


def _netstat(host: Endpoint, now: int) -> bytes:
    listening = [
        b'{"DESTINATION":{"IP_ADDRESS":"0.0.0.0","PORT":0},"PROCESS_ID":%d,"PROTOCOL":"tcp4","SOURCE":{"IP_ADDRESS":"0.0.0.0","PORT":%d}}'
        % (process.pid, 1024 + process.pid % 40000)
        for process in host.processes
    ]
    return b'{"FRIENDLY":0,"NETWORK_ACTIVITY":[%b],"TIMESTAMP":%d}' % (b",".join(listening), now)


def _file_get(host: Endpoint, now: int) -> bytes:
    size = 3 << host.dice.between(4, 12)
    content = base64.b64encode(host.dice.bits(8 * size).to_bytes(size, "big"))
    return b'{"FILE_CONTENT":"%b","FILE_PATH":%b,"FILE_SIZE":%d,"TIMESTAMP":%d}' % (content, host.file(), size, now)


def _dir_list(host: Endpoint, now: int) -> bytes:
    entries = [
        b'{"ACCESS_TIME":%d,"ATTRIBUTES":32,"CREATION_TIME":%d,"FILE_PATH":%b,"FILE_SIZE":%d,"MODIFICATION_TIME":%d}'
        % (now, now - host.dice.bits(32), host.file(), host.dice.bits(24), now - host.dice.bits(20))
        for _ in range(host.dice.between(5, 60))
    ]
    return b'{"DIRECTORY_LIST":[%b],"TIMESTAMP":%d}' % (b",".join(entries), now)


def _mem_map(host: Endpoint, now: int) -> bytes:
    regions = [
        b'{"BASE_ADDRESS":%d,"MEMORY_ACCESS":6,"MEMORY_SIZE":4096,"MEMORY_TYPE":3}'
        % (94100802174976 + (host.dice.bits(20) << 12))
        for _ in range(host.dice.between(20, 200))
    ]
    return b'{"MEMORY_MAP":[%b],"PROCESS_ID":%d,"TIMESTAMP":%d}' % (b",".join(regions), host.process().pid, now)


_LISTING = [
    b"drwxr-xr-x  %d zo\xc3\xab  staff  %6d May %2d 14:%02d r\xc3\xa9sultats-%d\\n"
    % (i % 9, i * 37 % 9973, i % 28 + 1, i % 60, i)
    for i in range(1700)
]


def _run(host: Endpoint, now: int) -> bytes:
    # Most outputs are short; a few are the longest records of the stream, about 100 KB.
    lines = host.dice.bits(3) << host.dice.pick((0, 1, 2, 3, 8))
    return b'{"ERROR":0,"STDERR":"","STDOUT":"%b","TIMESTAMP":%d}' % (b"".join(_LISTING[:lines]), now)


_TASKS: tuple[tuple[bytes, str, Callable[[Endpoint, int], bytes]], ...] = (
    (b"OS_VERSION_REQ", "OS_VERSION_REP", _os_version),
    (b"OS_PROCESSES_REQ", "OS_PROCESSES_REP", _os_processes),
    (b"NETSTAT_REQ", "NETSTAT_REP", _netstat),
    (b"FILE_GET_REQ", "FILE_GET_REP", _file_get),
    (b"DIR_LIST_REQ", "DIR_LIST_REP", _dir_list),
    (b"MEM_MAP_REQ", "MEM_MAP_REP", _mem_map),
    (b"RUN_REQ", "RECEIPT", _run),
    (b"RUN_REQ", "RECEIPT", _run),
)
_INVESTIGATIONS = ("triage-7f3a", "hunt-2024-q2", "ir-nordwind", "inventory")
