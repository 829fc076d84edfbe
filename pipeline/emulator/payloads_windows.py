"""Events that only Windows has, and SERVICE_CHANGE, which it has most of."""

from __future__ import annotations

import base64

from pipeline.emulator.payloads_endpoint import Draft, Endpoint, Renderer, linked
from pipeline.emulator.records import compact

_KEYS = [
    compact(f"\\REGISTRY\\{key}").partition(b"{n}")
    for key in (
        "MACHINE\\SOFTWARE\\Microsoft\\Windows\\CurrentVersion\\Run",
        "MACHINE\\SOFTWARE\\Microsoft\\Windows NT\\CurrentVersion\\Image File Execution Options\\tool{n}.exe",
        "MACHINE\\SYSTEM\\CurrentControlSet\\Services\\bam\\State\\UserSettings\\S-1-5-21-{n}",
        "USER\\S-1-5-21-3281929871-{n}-1001\\Software\\Microsoft\\Windows\\CurrentVersion\\Explorer\\UserAssist",
        "A\\{fddf4643-a007-4086-903e-{n}}\\Root\\InventoryApplicationFile",
    )
]


def _key(host: Endpoint) -> bytes:
    before, slot, after = host.dice.pick(_KEYS)
    return b"%b%d%b" % (before, host.dice.bits(28), after) if slot else before


def _registry(kind: str) -> Renderer:
    def render(host: Endpoint, now: int) -> Draft:
        process = host.process()
        payload = b'{"PROCESS_ID":%d,"REGISTRY_KEY":%b,"TIMESTAMP":%d}' % (process.pid, _key(host), now)
        return kind, payload, host.inside(process, now), ""

    return render


registry_create = _registry("REGISTRY_CREATE")
registry_delete = _registry("REGISTRY_DELETE")
autorun_change = _registry("AUTORUN_CHANGE")


def registry_write(host: Endpoint, now: int) -> Draft:
    process = host.process()
    size = 3 << host.dice.bits(3)
    value = base64.b64encode(host.dice.bits(8 * size).to_bytes(size, "big"))
    payload = b'{"PROCESS_ID":%d,"REGISTRY_KEY":%b,"REGISTRY_VALUE":"%b","SIZE":%d,"TIMESTAMP":%d,"TYPE":3}' % (
        process.pid,
        _key(host),
        value,
        size,
        now,
    )
    return "REGISTRY_WRITE", payload, host.inside(process, now), ""


def _pipe(kind: str) -> Renderer:
    def render(host: Endpoint, now: int) -> Draft:
        process = host.process()
        name = host.dice.pick(
            (b"LOCAL\\\\mojo.%d.1", b"lsass-%d", b"PSHost.%d.DefaultAppDomain", b"wkssvc%d")
        ) % host.dice.bits(20)
        payload = b'{"FILE_PATH":"\\\\Device\\\\NamedPipe\\\\%b","PROCESS_ID":%d}' % (name, process.pid)
        return kind, payload, host.inside(process, now), ""

    return render


new_named_pipe = _pipe("NEW_NAMED_PIPE")
open_named_pipe = _pipe("OPEN_NAMED_PIPE")


def _service(kind: str, kind_number: int) -> Renderer:
    def render(host: Endpoint, now: int) -> Draft:
        number = host.dice.bits(10)
        if host.sensor.platform == "windows":
            files = (
                b'"DLL":"%%SystemRoot%%\\\\system32\\\\svc%d.dll","EXECUTABLE":"%%SystemRoot%%\\\\system32\\\\svchost.exe -k netsvcs"'
                % number
            )
        else:
            files = b'"EXECUTABLE":"/opt/agent-%d/bin/agentd"' % number
        payload = (
            b'{%b,"HASH":"%b","PROCESS_ID":0,"SVC_DISPLAY_NAME":"Agent Helper \xe2\x84\xa2 %d",'
            b'"SVC_NAME":"agent%d","SVC_STATE":1,"SVC_TYPE":%d,"TIMESTAMP":%d}'
            % (files, host.dice.sha256(), number, number, kind_number, now)
        )
        return kind, payload, linked(b"", host.atom(now)), ""

    return render


service_change = _service("SERVICE_CHANGE", 32)
driver_change = _service("DRIVER_CHANGE", 1)


class _Log:
    """One kind of Windows event log entry; ``data`` holds one ``{n}``."""

    def __init__(self, channel: str, provider: str, number: int, level: int, data: dict[str, str]) -> None:
        self.system = compact(
            {"Channel": channel, "EventID": str(number), "Level": str(level), "Provider": {"Name": provider}}
        )[1:-1]
        self.data = compact(data).replace(b"%", b"%%").replace(b"{n}", b"%d")


_SECURITY = "Microsoft-Windows-Security-Auditing"
_LOGS = [
    _Log(
        "Security",
        _SECURITY,
        4624,
        0,
        {
            "LogonType": "3",
            "IpAddress": "10.16.0.9",
            "IpPort": "{n}",
            "TargetDomainName": "CORP",
            "WorkstationName": "-",
        },
    ),
    _Log(
        "Security",
        _SECURITY,
        4625,
        0,
        {"LogonType": "10", "Status": "0xc000006d", "SubStatus": "0xc000006a", "IpPort": "{n}"},
    ),
    _Log(
        "Security",
        _SECURITY,
        4688,
        0,
        {"NewProcessId": "0x{n}", "TokenElevationType": "%%1936", "ParentProcessName": "C:\\Windows\\explorer.exe"},
    ),
    _Log(
        "System",
        "Service Control Manager",
        7036,
        4,
        {"param1": "Windows Update", "param2": "läuft {n}", "Binary": "7700750061007500730065007200760000"},
    ),
    _Log(
        "Microsoft-Windows-PowerShell/Operational",
        "Microsoft-Windows-PowerShell",
        4104,
        5,
        {
            "MessageNumber": "1",
            "ScriptBlockId": "{n}",
            "ScriptBlockText": "$x = Get-Process | Where-Object { $_.CPU -gt 10 }\r\n" * 40,
        },
    ),
]


def wel(host: Endpoint, now: int) -> Draft:
    dice = host.dice
    log = dice.pick(_LOGS)
    noise = dice.bits(40)
    second = now // 1000
    system = (
        b'%b,"Computer":%b,"Correlation":{"ActivityID":""},"EventRecordID":"%d","Execution":{"ProcessID":"%d","ThreadID":"%d"},'
        b'"Keywords":"0x8020000000000000","Opcode":"0","Security":{"UserID":""},"Task":"12544","TimeCreated":{"SystemTime":"%d.%03d"},"Version":"2","_event_id":"%d"'
        % (log.system, host.hostname, noise >> 8, noise & 0xFFF, noise >> 12 & 0xFFF, second, now % 1000, noise >> 24)
    )
    data = log.data % (noise >> 20)
    payload = b'{"EVENT":{"EventData":{"TargetUserName":%b,%b,"System":{%b}}}' % (
        dice.pick(host.users),
        data[1:],
        system,
    )
    return "WEL", payload, linked(b"", host.atom(now)), ""
