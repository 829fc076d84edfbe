"""The detect stream: rules that fire on the event stream's records, which each detection holds."""

from __future__ import annotations

import re
from collections import defaultdict
from functools import cache
from typing import Literal, NamedTuple

from pipeline.emulator.fleet import Fleet
from pipeline.emulator.payloads_event import Events
from pipeline.emulator.records import Dice, Record, compact

Shape = Literal["real", "documented"]


class Rule(NamedTuple):
    """A detection rule. It fires on ``events`` of sensors tagged ``platform`` (``""`` = all) whose record contains ``needle``."""

    cat: str
    priority: int
    events: tuple[str, ...]
    platform: str
    needle: bytes
    tags: tuple[str, ...]
    managed: bool = False

    @property
    def name(self) -> str:
        return re.sub(r"[^a-z0-9]+", "-", self.cat.lower()).strip("-")


_STARTS = ("NEW_PROCESS", "EXISTING_PROCESS")
_FILES = ("FILE_CREATE", "FILE_MODIFIED")
_RULES = (
    Rule("Encoded PowerShell Command", 8, _STARTS, "windows", b"-EncodedCommand", ("attack.t1059.001", "powershell")),
    Rule("Account Discovery with whoami", 3, _STARTS, "windows", b"whoami", ("attack.t1033",), managed=True),
    Rule("Domain Group Enumeration", 5, _STARTS, "windows", b"Domain Admins", ("attack.t1069.002",)),
    Rule("Scheduled Task Created", 4, _STARTS, "windows", b"schtasks", ("attack.t1053.005",), managed=True),
    Rule("DLL Run from a Public Folder", 7, _STARTS, "windows", b"rundll32.exe C:", ("attack.t1218.011",)),
    Rule("Cryptominer Command Line", 9, _STARTS, "linux", b"stratum+tcp", ("attack.t1496", "miner")),
    Rule("Download over Unverified TLS", 6, _STARTS, "linux", b"curl -k", ("attack.t1105",)),
    Rule("Password Prompt by Script", 7, _STARTS, "macos", b"hidden answer", ("attack.t1056.002",)),
    Rule("Unsigned Program Started", 2, ("NEW_PROCESS",), "", b'"FILE_IS_SIGNED":0', ("hygiene",)),
    Rule("Program Started", 0, _STARTS, "", b"", ("inventory",)),
    Rule("Remote Desktop to an Unusual Host", 6, ("NETWORK_CONNECTIONS",), "", b'"PORT":3389', ("attack.t1021.001",)),
    Rule("SMB to the Internet", 8, ("NETWORK_CONNECTIONS",), "", b'"PORT":445', ("attack.t1048",), managed=True),
    Rule("Connection from a Script Host", 4, ("NETWORK_CONNECTIONS",), "", b"", ("network",)),
    Rule("Domain That Looks Generated", 6, ("DNS_REQUEST",), "", b".dga.", ("attack.t1568.002", "dns")),
    Rule("First Seen Domain", 1, ("DNS_REQUEST",), "", b'"h', ("dns",)),
    Rule("Unsigned Code", 2, ("CODE_IDENTITY",), "", b'"FILE_IS_SIGNED":0', ("hygiene",), managed=True),
    Rule("Autostart Key Written", 5, ("REGISTRY_WRITE",), "windows", b"CurrentVersion\\\\Run", ("attack.t1547.001",)),
    Rule("File in a Temporary Folder", 1, _FILES, "windows", b"\\\\Temp\\\\", ("file",)),
    Rule("SSH Known Hosts Changed", 5, _FILES, "linux", b".ssh/", ("attack.t1098.004",)),
    Rule("Logon Failed", 3, ("WEL",), "windows", b'"EventID":"4625"', ("attack.t1110", "identity"), managed=True),
    Rule("Script Block Logged", 2, ("WEL",), "windows", b'"EventID":"4104"', ("powershell",)),
    Rule("LSASS Accessed", 9, ("SENSITIVE_PROCESS_ACCESS",), "windows", b"", ("attack.t1003.001",), managed=True),
    Rule("Thread Injection", 10, ("NEW_REMOTE_THREAD", "THREAD_INJECTION"), "windows", b"", ("attack.t1055",)),
    Rule("YARA: Bösartige Datei – “packed”", 8, ("YARA_DETECTION",), "", b"", ("yara",)),
    Rule("Sensor Connected", 0, ("CONNECTED",), "", b"", ("inventory",)),
    Rule("Inbox Rule Created", 7, ("New-InboxRule",), "", b"", ("attack.t1114.003", "identity")),
    Rule("MFA Refused", 4, ("user.authentication.auth_via_mfa",), "", b"", ("attack.t1621", "identity")),
)
_BY_EVENT: dict[str, list[Rule]] = defaultdict(list)
for _rule in _RULES:
    for _event in _rule.events:
        _BY_EVENT[_event].append(_rule)
_FALLBACK = Rule("Record of Interest", 1, (), "", b"", ("inventory",))

_HASH = re.compile(rb'"HASH":"([0-9a-f]{64})"')
_ROUTING = b',"routing":{'  # the last one in a record is its own: the payload comes before it
_TAIL = len(b',"ts":"2006-01-02 15:04:05"}')


class Detections:
    """Makes the records of the detect stream.

    It walks the event stream of the same fleet, seed, start and rate in step, so the n-th detection is about one of the
    first n events, byte for byte.
    """

    def __init__(self, fleet: Fleet, seed: int, start_ms: int, shape: Shape) -> None:
        self._events = Events(fleet, seed, start_ms)
        self._dice = Dice(fleet.oid, seed, start_ms, "detections")
        self._oid = fleet.oid
        self._sources = {
            sensor.sid: compact(f"{fleet.oid}.{sensor.iid}.{sensor.sid}.{sensor.plat:x}.{sensor.arch}")
            for sensor in fleet.sensors
        }
        self._render = self._real if shape == "real" else self._documented
        self._suspect: Record | None = None
        self._fired: list[Rule] = []

    def make(self, now: int) -> Record:
        event = self._events.make(now)
        itself = event.raw.partition(b',"PARENT":{')[0]  # a rule is about the process, not about its parent
        fired = [
            rule
            for rule in _BY_EVENT.get(event.event_type, ())
            if rule.needle in itself and (not rule.platform or rule.platform in event.tags)
        ]
        if fired or self._suspect is None:
            self._suspect, self._fired = event, fired or [_FALLBACK]
        suspect = self._suspect
        rule = self._dice.pick(self._fired)
        detect_id = self._dice.uuid()
        raw = self._render(rule, suspect, detect_id, now)
        return Record(
            raw, "detect", suspect.event_type, suspect.sid, suspect.tags, rule.cat, suspect.inv_id, now, detect_id
        )

    def _real(self, rule: Rule, event: Record, detect_id: str, now: int) -> bytes:
        """As detections are: the whole event inside, its routing again with the latency, an agent id as the source."""
        routing = event.raw[event.raw.rindex(_ROUTING) : -_TAIL]
        timeline = f"https://app.limacharlie.io/orgs/{self._oid}/sensors/{event.sid}/timeline"
        return b'{%b,"detect":%b,%b"link":%b,"mtd":%b%b,"latency":%d},"source":%b}' % (
            _about(rule),
            event.raw,
            _common(event, detect_id, now),
            compact(f"{timeline}?time={event.time_ms // 1000}&selected={event.id}"),
            _metadata(rule) if rule.managed else b"null",
            routing[:-1],
            now - event.time_ms,
            self._sources[event.sid],
        )

    def _documented(self, rule: Rule, event: Record, detect_id: str, now: int) -> bytes:
        """As the documentation shows them: the event's payload inside, a rule kind as the source."""
        cut = event.raw.rindex(_ROUTING)
        name = rule.name.encode()
        return b'{%b,"detect":%b,%b"detect_mtd":{"rule_name":"%b"},"link":"%b/%b","mtd":%b%b,"source":"%b"}' % (
            _about(rule),
            event.raw[len(b'{"event":') : cut],
            _common(event, detect_id, now),
            name,
            b"https://docs.example.com/playbooks",
            name,
            _metadata(rule),
            event.raw[cut:-_TAIL],
            b"dr-managed" if rule.managed else b"dr-general",
        )


@cache
def _about(rule: Rule) -> bytes:
    return compact(
        {
            "author": "_managed-rules-edr" if rule.managed else "amira@corp.example.com",
            "cat": rule.cat,
            "namespace": "managed" if rule.managed else "general",
            "priority": rule.priority,
            "rule_tags": rule.tags,
            "source_rule": rule.name,
        }
    )[1:-1]


@cache
def _metadata(rule: Rule) -> bytes:
    return compact(
        {"falsepositives": ["Administrators"], "level": "high" if rule.priority > 6 else "medium", "tags": rule.tags}
    )


def _common(event: Record, detect_id: str, now: int) -> bytes:
    found = _HASH.search(event.raw)
    data = b'"detect_data":{"file_hash":"%b"},' % found[1] if found else b""
    return b'%b"detect_id":"%b","gen_time":%d,' % (data, detect_id.encode(), now)
