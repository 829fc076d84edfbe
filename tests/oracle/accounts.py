"""What must hold of one pipeline, whatever was done to it."""

from __future__ import annotations

import json
from collections import Counter, deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any

from world import Cloud

from pipeline.engine.gaps import TABLE, Gap
from pipeline.spool.inspection import batches, survey, verify
from pipeline.spool.state import State

STREAMS = {"telemetry": "event", "detections": "detect"}
"""Source, which is the name of its log -> stream."""
VIA = {"telemetry": "firehose", "detections": "spout"}
RECENT = 300
"""Of so many records of a log the newest are kept as they are."""


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
    """Digest of each record in the archive; without a dedupe its place is its number."""
    recent: deque[bytes] = field(default_factory=lambda: deque(maxlen=RECENT))
    """The newest of them, as they are."""
    witnessed: dict[int, bytes] = field(default_factory=dict)
    """Digests of records seen in the spool of a dead process."""
    next: Counter[str] = field(default_factory=Counter)
    """Connection -> how many of its records were accepted."""
    read: int = 0
    """Bytes of the archive that were looked at."""
    end: int = 0

    def knows(self, number: int) -> bool:
        return number < len(self.stored) or number in self.witnessed

    def __getitem__(self, number: int) -> bytes:
        return self.stored[number] if number < len(self.stored) else self.witnessed[number]


@dataclass
class LaneAccount:
    """What a sink of "at least once" has."""

    lane: str
    seen: Counter[bytes] = field(default_factory=Counter)
    letters: Counter[bytes] = field(default_factory=Counter)
    letter_offsets: Counter[Path] = field(default_factory=Counter)
    redone: Counter[bytes] = field(default_factory=Counter)
    """Of each record, how many crashes came while the lane was not past it."""
    twice: int = 0
    """How often records came more often than they were accepted."""
    unexplained: int = 0
    """How often without a crash."""

    def take(self, records: Sequence[bytes]) -> None:
        self.seen.update(map(digest, records))

    def times(self, key: bytes) -> int:
        return self.seen[key] + self.letters[key]

    def read_files(self, folder: Path) -> None:
        """Take what the sink with moods stored."""
        for path in sorted(folder.glob("*.jsonl")):
            self.take(path.read_bytes().splitlines())
            path.unlink()

    def read_letters(self, folder: Path) -> None:
        for path in sorted((folder / self.lane.replace("/", ".")).glob("*.jsonl")):
            data = path.read_bytes()[self.letter_offsets[path] :]
            whole = data[: data.rfind(b"\n") + 1]
            self.letter_offsets[path] += len(whole)
            self.letters.update(digest(json.loads(line)["payload"].encode()) for line in whole.splitlines())


@dataclass
class Snapshot:
    """What the database of a spool says at one moment."""

    positions: dict[tuple[str, str], int]
    """Lane and source -> the first record that it is not past."""
    lengths: dict[str, int]
    """File -> bytes that count."""
    gaps: list[Gap]

    def past(self, lane: str, source: str) -> int:
        return self.positions.get((lane, source), 0)

    def shed(self, source: str) -> int:
        """Records that the ledger says were given up."""
        return sum(gap.records for gap in self.gaps if gap.source == source and gap.reason == "shed")


def snapshot(spool: Path) -> Snapshot:
    state = State(spool / "state.db", read_only=True)
    state.close()
    positions = {(str(lane), str(source)): at for (lane, source, _), at in state.tables["positions"].items()}
    marks = {str(path): json.loads(value) for (_, path), value in state.tables["marks"].items()}
    return Snapshot(positions, marks, [Gap.parse(text) for text in state.restore(TABLE).values()])


class Accounts:
    """Of one pipeline: its spool, its archive (files, exactly once), and its other lanes (at least once)."""

    def __init__(self, folder: Path, cloud: Cloud, oid: str, lanes: Sequence[str]) -> None:
        self.folder = folder
        self.spool = folder / "spool"
        self.cloud = cloud
        self.oid = oid
        self.logs = {source: LogAccount(source) for source in STREAMS}
        self.lanes = {lane: LaneAccount(lane) for lane in lanes if lane not in ("all/archive", "once/unique")}
        """Those that promise "at least once"."""

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
                    self._witness_one(account, number, raw)
        return {source: log.end for source, log in self.logs.items()}

    def _witness_one(self, log: LogAccount, number: int, raw: bytes) -> None:
        key = digest(raw)
        before = log.stored[number] if number < len(log.stored) else log.witnessed.setdefault(number, key)
        hold(before == key, f"record {number} of {log.source} was another one before: {raw[:200]!r}")

    def news(self, now: Snapshot, sink: str, source: str, read: int) -> list[bytes]:
        """What a file has more of than ``read`` bytes, as far as it counts."""
        path = self.folder / sink / f"{STREAMS[source]}.jsonl"
        length = now.lengths.get(str(path), 0)
        hold(length >= read, f"{path} counted to {read} before and now to {length}")
        if length == read:
            return []
        with path.open("rb") as file:
            file.seek(read)
            data = file.read(length - read)
        hold(len(data) == length - read, f"{path} is shorter than its mark {length}")
        hold(data.endswith(b"\n"), f"the mark of {path} is in the middle of a record")
        return data.splitlines()

    def check_files(self, now: Snapshot) -> None:
        """Files: exactly the records up to the lane's position, in order, once each, each as it was sent."""
        self.cloud.read()
        for source, log in self.logs.items():
            for raw in self.news(now, "archive", source, log.read):
                log.read += len(raw) + 1
                number = len(log.stored)
                self._came(log, number, raw)
                key = digest(raw)
                before = log.witnessed.pop(number, key)
                hold(before == key, f"record {number} of {source} is not in the archive what it was in the spool")
                log.stored.append(key)
                log.recent.append(raw)
            position = now.past("all/archive", source)
            hold(
                len(log.stored) == position,
                f"the archive has {len(log.stored)} records of {source} where the lane is past {position}",
            )

    def _came(self, log: LogAccount, number: int, raw: bytes) -> None:
        """A record is the next one of a connection, of the newest where there are several."""
        sent = self.cloud.sent(self.oid, STREAMS[log.source])
        places = sent.places.get(raw)
        hold(places, f"record {number} of {log.source} was never sent: {raw[:300]!r}")
        assert places is not None
        fitting = [name for name, index in places if log.next[name] == index]
        wanted = {name: log.next[name] for name, _ in places}
        hold(fitting, f"record {number} of {log.source} was sent as {places}, where these are next: {wanted}")
        log.next[max(fitting, key=lambda name: sent.connections[name].number)] += 1

    def repeats(self, now: Snapshot, lanes: Collection[str]) -> None:
        """The process ended here, and its spool was looked into: what these lanes are not past may come once more."""
        for lane in [self.lanes[name] for name in self.lanes if name in lanes]:
            for source, log in self.logs.items():
                # What was given up and is gone cannot come again.
                numbers = range(now.past(lane.lane, source), log.end)
                lane.redone.update(self.at(log, number) for number in numbers if log.knows(number))

    def at(self, log: LogAccount, number: int) -> bytes:
        return log[number]

    def check_lanes(self, now: Snapshot, *, explained: dict[str, bool]) -> None:
        """Other sinks: what their lane is past, at least once; nothing that was not accepted; twice only after a crash, or where it
        is explained otherwise."""
        accepted: Counter[bytes] = Counter()
        for log in self.logs.values():
            accepted.update(log.stored)
            accepted.update(log.witnessed.values())
        for lane in self.lanes.values():
            lane.read_letters(self.folder / "letters" / "lanes")
            invented = [key for key in (*lane.seen, *lane.letters) if key not in accepted]
            hold(not invented, f"{lane.lane} has {len(invented)} records that were never accepted")
            self.check_past(lane, now)
            wanted = self.wanted_times(lane, accepted)
            more = {key: lane.times(key) - wanted[key] for key in {*lane.seen, *lane.letters}}
            lane.twice = sum(max(0, times) for times in more.values())
            before, lane.unexplained = lane.unexplained, sum(max(0, more[key] - lane.redone[key]) for key in more)
            if lane.unexplained > before and not explained.get(lane.lane):
                raise OracleError(
                    f"{lane.lane} has {lane.unexplained - before} records twice, and no crash explains it"
                )

    def wanted_times(self, lane: LaneAccount, accepted: Counter[bytes]) -> Counter[bytes]:
        """How often a lane may deliver each record when nothing happens to it."""
        return accepted

    def check_past(self, lane: LaneAccount, now: Snapshot) -> None:
        """A lane has delivered all that it is past, each as often as it was accepted."""
        for source, log in self.logs.items():
            needed: Counter[bytes] = Counter()
            for number in range(now.past(lane.lane, source)):
                key = log[number]
                needed[key] += 1
                if lane.times(key) < needed[key]:
                    raise OracleError(f"{lane.lane} is past record {number} of {source} and never got it")

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
        found = {"records": sum(len(log.stored) for log in self.logs.values())}
        for name, lane in self.lanes.items():
            found[f"{name}: more often than once"] = lane.twice
            found[f"{name}: letters"] = lane.letters.total()
        return found
