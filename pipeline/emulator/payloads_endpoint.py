"""An endpoint as its events show it: a sensor, its live processes, and the rendering that all its events share."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from pipeline.emulator.fleet import USP_ADAPTER, Sensor
from pipeline.emulator.payloads_catalog import FILES, HOMES, PEOPLE, USERS
from pipeline.emulator.payloads_programs import PROGRAMS, ROOTS, Program
from pipeline.emulator.records import Dice, compact, stretch

Draft = tuple[str, bytes, bytes, str]
"""Event type, payload, links (the members of ``routing`` that differ by event) and investigation id."""
Renderer = Callable[["Endpoint", int], Draft]
"""Draws the next event of one kind on an endpoint at a time in Unix milliseconds."""

_FEWEST, _MOST = 10, 48
"""Live processes: below it none ends, above it none starts."""


class Image:
    """A program as one platform's processes show it, with the parts that never change already encoded."""

    __slots__ = ("commands", "file", "kind", "under")

    def __init__(self, program: Program) -> None:
        self.kind = program.kind
        self.under = program.under
        sha256 = hashlib.sha256(program.path.encode()).hexdigest().encode()
        self.file = b'"FILE_IS_SIGNED":%b,"FILE_PATH":%b,"HASH":"%b"' % (
            b"1" if program.signer else b"0",
            compact(program.path),
            sha256,
        )
        self.commands = [compact(command).partition(b"{n}") for command in program.commands]


class Process:
    """A live process. ``atom`` is what ``routing.this`` of its NEW_PROCESS says."""

    __slots__ = ("atom", "image", "links", "members", "parent", "pid", "user")

    def __init__(self, host: Endpoint, image: Image, parent: Process | None, now: int) -> None:
        dice = host.dice
        noise = dice.bits(48)
        self.image = image
        self.parent = parent
        self.pid = host.next_pid()
        self.atom = host.atom(now)
        self.user = dice.pick(host.users) if parent else host.users[0]
        self.links = linked(parent.atom if parent else b"", self.atom)
        before, slot, after = dice.pick(image.commands)
        self.members = (
            b'"BASE_ADDRESS":%d,"COMMAND_LINE":%b,"CREATION_TIME":%d,%b,"MEMORY_USAGE":%d,'
            b'"PARENT_PROCESS_ID":%d,"PROCESS_ID":%d,"THREADS":%d,"TIMESTAMP":%d,"USER_NAME":%b'
            % (
                0x7FF600000000 + ((noise & 0xFFFF) << 16),
                b"%b%d%b" % (before, noise >> 28, after) if slot else before,
                now,
                image.file,
                (noise & 0xFFFFF) << 9,
                parent.pid if parent else 0,
                self.pid,
                1 + (noise & 31),
                now,
                self.user,
            )
        )
        """The members of the object that describes it, without braces, as NEW_PROCESS and its children's PARENT have them."""


class Endpoint:
    """One sensor's end of the stream. Everything it draws comes from ``dice``, in the order of the calls."""

    __slots__ = (
        "_anchors",
        "_envelope",
        "_files",
        "_images",
        "_pid",
        "deck",
        "dice",
        "hostname",
        "oid",
        "processes",
        "queue",
        "roots",
        "sensor",
        "users",
    )

    def __init__(self, oid: str, sensor: Sensor, dice: Dice, deck: list[Renderer]) -> None:
        self.oid = oid
        self.sensor = sensor
        self.dice = dice
        self.deck = deck
        self.hostname = compact(sensor.hostname)
        self.queue: list[Renderer] = []
        """What must come before anything is drawn from the deck, last first."""
        self.processes: list[Process] = []
        self.roots = [Image(program) for program in ROOTS.get(sensor.platform, ())]
        self.users = [compact(user) for user in USERS.get(sensor.platform, PEOPLE)]
        self._images = stretch([(Image(program), program.weight) for program in PROGRAMS.get(sensor.platform, ())])
        self._files = [
            compact(HOMES[sensor.platform].format(user=user) + file).partition(b"{n}")
            for user in PEOPLE
            for file in FILES.get(sensor.platform, ())
        ]
        self._anchors: dict[str, Process] = {}
        self._pid = 300 + 4 * dice.between(0, 200)
        self._envelope = _envelope(oid, sensor)

    def draw(self, now: int) -> Draft:
        if self.queue:
            return self.queue.pop()(self, now)
        return self.dice.pick(self.deck)(self, now)

    def seal(self, draft: Draft, event_id: str, now: int, stamp: bytes) -> bytes:
        """Return the record that carries ``draft``; ``stamp`` is ``now`` as `Stamp` renders it."""
        kind, payload, links, _ = draft
        return self._envelope % (payload, event_id.encode(), now, kind.encode(), links, stamp)

    # -- processes

    @property
    def crowded(self) -> bool:
        return len(self.processes) >= _MOST

    @property
    def lonely(self) -> bool:
        return len(self.processes) <= _FEWEST

    def start_root(self, now: int) -> Process:
        """Add the next of the processes that never end; all of them precede everything that has to do with processes."""
        image = self.roots[len(self.processes)]
        process = Process(self, image, self._anchors.get(image.under), now)
        self._anchors.setdefault(image.kind, process)
        self.processes.append(process)
        return process

    def start(self, now: int) -> Process:
        """Start a program under a live process that may start it."""
        image = self.dice.pick(self._images)
        parent = self.dice.pick(self.processes)
        if parent.image.kind != image.under:
            parent = self._anchors[image.under]
        process = Process(self, image, parent, now)
        self.processes.append(process)
        return process

    def end(self) -> Process:
        """Take a process that is not a root out of the live ones."""
        processes = self.processes
        index = self.dice.between(len(self.roots), len(processes) - 1)
        processes[index], processes[-1] = processes[-1], processes[index]
        return processes.pop()

    def process(self) -> Process:
        """Return a live process."""
        return self.dice.pick(self.processes)

    def next_pid(self) -> int:
        self._pid = self._pid + 4 if self._pid < 4_000_000 else 300
        return self._pid

    def count_from(self, pid: int) -> None:
        """Give the next process this id."""
        self._pid = pid - 4

    # -- atoms and values

    def atom(self, now: int) -> bytes:
        """Return a fresh atom: like the real ones, it ends with its second."""
        return b"%024x%08x" % (self.dice.bits(96), now // 1000 & 0xFFFFFFFF)

    def inside(self, process: Process, now: int) -> bytes:
        """Return the links of an event that is a thing of its own, done by ``process``."""
        return linked(process.atom, self.atom(now))

    def file(self) -> bytes:
        """Return a user's file path, encoded."""
        before, _, after = self.dice.pick(self._files)
        return b"%b%d%b" % (before, self.dice.bits(20), after)


def linked(parent: bytes, this: bytes) -> bytes:
    return b'"parent":"%b","this":"%b"' % (parent, this) if parent else b'"this":"%b"' % this


def _envelope(oid: str, sensor: Sensor) -> bytes:
    before = {"arch": sensor.arch, "did": sensor.did}
    after = {
        "ext_ip": sensor.ext_ip,
        "hostname": sensor.hostname,
        "iid": sensor.iid,
        "int_ip": sensor.int_ip,
        "moduleid": 6 if sensor.arch == USP_ADAPTER else 2,
        "oid": oid,
        "plat": sensor.plat,
        "sid": sensor.sid,
        "tags": sensor.tags,
    }
    fixed = (compact(part)[1:-1].replace(b"%", b"%%") for part in (before, after))
    return (
        b'{"event":%%b,"routing":{%b,"event_id":"%%b","event_time":%%d,"event_type":"%%b",%b,%%b},"ts":"%%b"}'
        % tuple(fixed)
    )
