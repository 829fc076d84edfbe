"""The streams that the cloud itself writes: audit, deployment and billing. All are thin, so they are encoded record by record."""

from __future__ import annotations

from typing import Any

from pipeline.emulator.fleet import Fleet, Sensor
from pipeline.emulator.records import Dice, Record, Stamp, compact, stretch

_IDENTITIES = (
    "amira@corp.example.com",
    "zoë@corp.example.com",
    "key:9f86d081884c7d65",
    "ext-reliable-tasking",
    "suspicious-powershell",
)
_COMMANDS = (
    "os_version",
    "os_processes",
    "netstat",
    'run --shell-command "dir C:\\Users\\José"',
    "file_get -f /etc/passwd",
)
_HIVES = ("dr-general", "fp", "lookup", "secret", "yara")

_VERBS = stretch(
    [
        ("send_task", 30),
        ("hive_set", 25),
        ("add_tag", 15),
        ("remove_tag", 6),
        ("set_output", 6),
        ("remove_output", 4),
        ("hive_remove", 6),
        ("remove_sensor", 2),
        ("output_error", 6),
    ]
)
_DOCUMENTED = {"send_task": "user_action", "output_error": "error", "add_tag": "api_call", "remove_tag": "api_call"}


class Audit:
    """Makes audit records: mostly as they are in use, every seventh or so as they are documented.

    They have no id, so each carries a request id in ``mtd``: no two are equal.
    """

    def __init__(self, fleet: Fleet, seed: int, start_ms: int) -> None:
        self._fleet = fleet
        self._dice = Dice(fleet.oid, seed, start_ms, "audit")
        self._stamp = Stamp()

    def make(self, now: int) -> Record:
        dice = self._dice
        verb = dice.pick(_VERBS)
        documented = dice.random() < 0.15
        etype = _DOCUMENTED.get(verb, "config_change") if documented else verb
        stamp = self._stamp.at(now).decode()
        entity, details = self._subject(verb)
        record: dict[str, Any] = {
            "entity": entity,
            "etype": etype,
            "ident": dice.pick(_IDENTITIES),
            "msg": verb.replace("_", " ").capitalize(),
            "mtd": {
                **details,
                "request_id": dice.uuid(),
                "source_ip": f"203.0.113.{dice.bits(8)}",
                "user_agent": "lc-cli/5.10.1",
            },
            "oid": self._fleet.oid,
            "origin": dice.pick(("api", "ui", "cli", "system")),
            "time": now // 1000 if documented else now,
            "ts": f"{stamp.replace(' ', 'T')}Z" if documented else stamp,
        }
        if verb == "output_error":
            record["component"] = "output"
            record["error"] = "dial tcp 203.0.113.9:4443: i/o timeout"
        return Record(compact(record), "audit", etype, "", (), "", "", now, "")

    def _subject(self, verb: str) -> tuple[dict[str, str], dict[str, str]]:
        """Return what was acted on, and how."""
        dice = self._dice
        if verb.startswith("hive"):
            return {"hive": dice.pick(_HIVES), "name": f"rule-{dice.bits(10)}", "type": "hive"}, {}
        if "output" in verb:
            return {
                "name": f"splunk-{dice.bits(4)}",
                "stream": dice.pick(("event", "detect", "audit")),
                "type": "output",
            }, {}
        sensor = dice.pick(self._fleet.sensors)
        details = (
            {"task": dice.pick(_COMMANDS)}
            if verb == "send_task"
            else {"tag": dice.pick(sensor.tags)}
            if "tag" in verb
            else {}
        )
        return {"hostname": sensor.hostname, "sid": sensor.sid, "type": "sensor"}, details


_CHANGES = stretch(
    [
        ("disconnected", 50),
        ("enrollment", 20),
        ("sensor_over_quota", 8),
        ("sensor_clone", 6),
        ("deleted_sensor", 6),
        ("sensor_crash", 4),
        ("quota_changed", 3),
        ("cloud_adapter_disabled", 3),
    ]
)


class Deployment:
    """Makes deployment records. Those about the organization itself have no event id, as in the real stream."""

    def __init__(self, fleet: Fleet, seed: int, start_ms: int) -> None:
        self._fleet = fleet
        self._dice = Dice(fleet.oid, seed, start_ms, "deployment")
        self._stamp = Stamp()
        self._quota = 25

    def make(self, now: int) -> Record:
        dice = self._dice
        kind = dice.pick(_CHANGES)
        routing: dict[str, Any] = {"event_time": now, "event_type": kind, "oid": self._fleet.oid}
        if kind == "quota_changed":
            old, self._quota = self._quota, self._quota + 5
            return self._record({"new_quota": self._quota, "old_quota": old}, routing, None)
        if kind == "cloud_adapter_disabled":
            return self._record({"error": f"invalid api key (attempt {dice.bits(48)})"}, routing, None)
        sensor = dice.pick(self._fleet.sensors)
        routing |= {"event_id": dice.uuid(), "sid": sensor.sid}
        if kind != "disconnected":
            routing |= {
                "arch": sensor.arch,
                "did": sensor.did,
                "ext_ip": sensor.ext_ip,
                "hostname": sensor.hostname,
                "iid": sensor.iid,
                "int_ip": sensor.int_ip,
                "plat": sensor.plat,
                "tags": sensor.tags,
            }
        return self._record(self._payload(kind, sensor), routing, sensor)

    def _payload(self, kind: str, sensor: Sensor) -> dict[str, Any]:
        dice = self._dice
        if kind in {"enrollment", "sensor_over_quota"}:
            return {"host_name": sensor.hostname, "internal_ip": sensor.int_ip, "public_ip": sensor.ext_ip}
        if kind == "sensor_clone":
            return {"new_hostname": f"clone-{dice.bits(8)}", "previous_hostname": sensor.hostname}
        if kind == "sensor_crash":
            return {
                "crash_context": {"FILE_ID": dice.bits(6), "LINE_NUMBER": dice.bits(11), "THREAD_ID": dice.bits(13)}
            }
        return {"denied_for": "720h0m0s"} if kind == "deleted_sensor" else {}

    def _record(self, event: dict[str, Any], routing: dict[str, Any], sensor: Sensor | None) -> Record:
        now = routing["event_time"]
        raw = compact({"event": event, "routing": routing, "ts": self._stamp.at(now).decode()})
        sid, tags = (sensor.sid, sensor.tags) if sensor else ("", ())
        return Record(raw, "deployment", routing["event_type"], sid, tags, "", "", now, routing.get("event_id", ""))


_METERS = (
    ("extension", "ext-strelka:bytes_scanned", 16),
    ("extension", "ext-reliable-tasking:tasks", 4),
    ("output", "output:bytes_tx", 32),
    ("replay", "replay:events_evaluated", 24),
    ("sensor", "sensor:online_seconds", 20),
)


class Billing:
    """Makes billing records."""

    def __init__(self, fleet: Fleet, seed: int, start_ms: int) -> None:
        self._oid = fleet.oid
        self._dice = Dice(fleet.oid, seed, start_ms, "billing")
        self._stamp = Stamp()

    def make(self, now: int) -> Record:
        dice = self._dice
        category, meter, width = dice.pick(_METERS)
        record_id = f"{dice.uuid()}-0"
        stamp = self._stamp.at(now).decode()
        record = {
            "cat": category,
            "k": meter,
            "oid": self._oid,
            "record_id": record_id,
            "ts": stamp,
            "v": dice.bits(width),
        }
        return Record(compact({"record": record}), "billing", "billing_record", "", (), "", "", now, record_id)
