"""What must hold of one pipeline, whatever was done to it."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any

from world import Cloud

from pipeline.spool.inspection import batches, survey, verify
from pipeline.spool.state import State

STREAMS = {"telemetry": "event", "detections": "detect"}
"""Source, which is the name of its log -> stream."""
VIA = {"telemetry": "firehose", "detections": "spout"}


class OracleError(Exception):
    """Something does not hold."""


def hold(truth: object, what: str) -> None:
    if not truth:
        raise OracleError(what)


def digest(raw: bytes) -> bytes:
    return blake2b(raw, digest_size=12).digest()


@dataclass
class LogAccount:
    """One log: what was accepted, by sequence number."""

    source: str
    stored: list[bytes] = field(default_factory=list)
    """Digest of each record in the archive; its place is its number."""
    witnessed: dict[int, bytes] = field(default_factory=dict)
    """Digests of records seen in the spool of a dead process."""
    next: Counter[str] = field(default_factory=Counter)
    """Connection -> how many of its records were accepted."""
    read: int = 0
    """Bytes of the archive that were looked at."""
    end: int = 0


@dataclass
class LaneAccount:
    """What a sink of "at least once" has."""

    seen: Counter[bytes] = field(default_factory=Counter)
    letters: Counter[bytes] = field(default_factory=Counter)
    letter_offsets: Counter[Path] = field(default_factory=Counter)
    twice: int = 0
    fresh_twice: int = 0
    """Of these, since the last look."""

    def take(self, records: list[bytes], into: Counter[bytes]) -> None:
        for raw in records:
            key = digest(raw)
            into[key] += 1
            again = self.seen[key] + self.letters[key] > 1
            self.twice += again
            self.fresh_twice += again

    def read_letters(self, folder: Path) -> None:
        for path in sorted(folder.glob("*.jsonl")):
            data = path.read_bytes()[self.letter_offsets[path] :]
            whole = data[: data.rfind(b"\n") + 1]
            self.letter_offsets[path] += len(whole)
            self.take([json.loads(line)["payload"].encode() for line in whole.splitlines()], self.letters)


@dataclass
class Snapshot:
    """What the database of a spool says at one moment."""

    positions: dict[tuple[str, str], int]
    """Lane and source -> the first record that it is not past."""
    lengths: dict[str, int]
    """File -> bytes that count."""


def snapshot(spool: Path) -> Snapshot:
    state = State(spool / "state.db", read_only=True)
    state.close()
    positions = {(str(lane), str(source)): at for (lane, source, _), at in state.tables["positions"].items()}
    marks = {str(path): json.loads(value) for (sink, path), value in state.tables["marks"].items() if sink == "archive"}
    return Snapshot(positions, marks)


class Accounts:
    """Of one pipeline: its spool, its archive (files, exactly once), and its other lanes (at least once)."""

    def __init__(self, folder: Path, cloud: Cloud, oid: str) -> None:
        self.folder = folder
        self.spool = folder / "spool"
        self.cloud = cloud
        self.oid = oid
        self.logs = {source: LogAccount(source) for source in STREAMS}
        self.lanes = {"lake": LaneAccount(), "moody": LaneAccount()}

    def witness(self) -> dict[str, int]:
        """Look into the spool of a process that is dead; returns where its logs end."""
        found = survey(self.spool)
        hold(not found.state_problem, f"state.db: {found.state_problem}")
        hold(not found.damaged, f"set aside as damaged: {found.damaged}")
        for name, log in found.logs.items():
            for finding in verify(log):
                hold(finding.harmless, f"verify of {name}: {finding.text}")
            account = self.logs[name.source]
            hold(log.end >= account.end, f"{name} ended at {account.end} before and now at {log.end}")
            account.end = log.end
            for batch in batches(log):
                hold(batch.stream == STREAMS[name.source], f"a batch of {name} has the stream {batch.stream}")
                for number, raw in enumerate(batch.records, batch.first):
                    key = digest(raw)
                    known = number < len(account.stored)
                    before = account.stored[number] if known else account.witnessed.setdefault(number, key)
                    hold(before == key, f"record {number} of {name} was another one before: {raw[:200]!r}")
        return {source: log.end for source, log in self.logs.items()}

    def check_archive(self, now: Snapshot) -> None:
        """Files: exactly the records up to the lane's position, in order, once each, each as it was sent."""
        self.cloud.read()
        for source, log in self.logs.items():
            stream = STREAMS[source]
            path = self.folder / "archive" / f"{stream}.jsonl"
            length = now.lengths.get(str(path), 0)
            hold(length >= log.read, f"{path.name} counted to {log.read} before and now to {length}")
            data = b""
            if length > log.read:
                with path.open("rb") as file:
                    file.seek(log.read)
                    data = file.read(length - log.read)
            hold(len(data) == length - log.read, f"{path.name} is shorter than its mark {length}")
            hold(not data or data.endswith(b"\n"), f"the mark of {path.name} is in the middle of a record")
            log.read = length
            sent = self.cloud.sent(self.oid, stream)
            for raw in data.splitlines():
                number = len(log.stored)
                place = sent.place.get(raw)
                hold(place, f"{path.name} has a record that was never sent: {raw[:300]!r}")
                name, index = place
                expected = log.next[name]
                hold(index == expected, f"record {number} of {source} is number {index} of {name}; {expected} was next")
                log.next[name] += 1
                key = digest(raw)
                before = log.witnessed.pop(number, key)
                hold(before == key, f"record {number} of {source} is not in the archive what it was in the spool")
                log.stored.append(key)
            position = now.positions.get(("all/archive", source), 0)
            hold(
                len(log.stored) == position,
                f"{path.name} has {len(log.stored)} records where the lane is past {position}",
            )

    def check_lanes(self, now: Snapshot, *, explained: dict[str, bool]) -> None:
        """Other sinks: all that their lane is past, at least once; nothing that was not accepted; twice only where explained."""
        accepted = {key for log in self.logs.values() for key in (*log.stored, *log.witnessed.values())}
        for name, lane in self.lanes.items():
            lane.read_letters(self.folder / "letters" / "lanes" / f"all.{name}")
            invented = [key for key in (*lane.seen, *lane.letters) if key not in accepted]
            hold(not invented, f"{name} has {len(invented)} records that were never accepted")
            for source, log in self.logs.items():
                position = now.positions.get((f"all/{name}", source), 0)
                for number in range(position):
                    key = log.stored[number] if number < len(log.stored) else log.witnessed[number]
                    if not (lane.seen[key] or lane.letters[key]):
                        raise OracleError(f"{name} is past record {number} of {source} and never got it")
            if lane.fresh_twice and not explained[name]:
                raise OracleError(f"{name} has {lane.fresh_twice} records twice, and no crash explains it")
            lane.fresh_twice = 0

    def clean_ends(self) -> list[str]:
        """Connections that ended clean until now."""
        self.cloud.read()
        return [
            name
            for source, stream in STREAMS.items()
            for name, one in self.cloud.sent(self.oid, stream).connections.items()
            if one.clean and one.via == VIA[source]
        ]

    def check_clean(self, names: list[str]) -> None:
        """A connection that ended clean was taken in as a whole."""
        for source, stream in STREAMS.items():
            sent = self.cloud.sent(self.oid, stream)
            for name in names:
                if name in sent.connections:
                    took, lines = self.logs[source].next[name], sent.connections[name].lines
                    hold(took == lines, f"{name} ended clean, and {took} of its {lines} records were accepted")

    def totals(self) -> dict[str, Any]:
        return {
            "records": sum(len(log.stored) for log in self.logs.values()),
            "lake twice": self.lanes["lake"].twice,
            "moody twice": self.lanes["moody"].twice,
            "letters": sum(lane.letters.total() for lane in self.lanes.values()),
        }
