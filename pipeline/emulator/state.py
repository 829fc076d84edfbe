"""What the local LimaCharlie knows: its settings, organizations, keys, outputs and errors."""

from __future__ import annotations

import hashlib
import ipaddress
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.emulator.fleet import Fleet
from pipeline.emulator.roster import Roster

FLEET_SIZE = 12
"""Sensors per organization."""

STREAM_PERMISSIONS = ("output.list", "output.set", "output.del")
"""What a stream connection needs: each is a temporary output."""

OWNER_PERMISSIONS = frozenset(
    {
        "ai_agent.get",
        "ai_agent.operate",
        "ai_agent.set",
        "apikey.ctrl",
        "audit.get",
        "billing.ctrl",
        "cloudsensor.get",
        "cloudsensor.set",
        "dr.del",
        "dr.list",
        "dr.set",
        "extension.request",
        "fp.ctrl",
        "hive.get",
        "hive.set",
        "ikey.del",
        "ikey.list",
        "ikey.set",
        "ingestkey.ctrl",
        "insight.det.get",
        "insight.evt.get",
        "insight.list",
        "insight.stat",
        "job.get",
        "job.set",
        "org.conf.get",
        "org.conf.set",
        "org.get",
        "org_value.get",
        "payload.ctrl",
        "payload.use",
        "replicant.get",
        "replicant.task",
        "secret.get",
        "secret.set",
        "sensor.del",
        "sensor.get",
        "sensor.list",
        "sensor.tag",
        "sensor.task",
        "user.ctrl",
        *STREAM_PERMISSIONS,
    }
)
"""What the keys of the ready file may do."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The command line of the emulator. Durations are seconds, rates are records per second and stream."""

    host: str = "127.0.0.1"
    port: int = 9400
    tls: bool = False
    orgs: int = 1
    seed: int = 7
    rate: float = 10.0
    events: int | None = None
    keepalive: float = 60.0
    scenario: Path | None = None
    ledger: Path | None = None
    ready_file: Path | None = None


@dataclass(kw_only=True)
class Key:
    """An API key: of one organization (`oid`), or of a user (`uid`) who may enter the organizations in `orgs`."""

    secret: str = field(repr=False)
    name: str
    permissions: frozenset[str]
    oid: str | None = None
    uid: str | None = None
    orgs: tuple[str, ...] = ()
    allowed_ip_range: str = ""
    """The network that it may be used from; any without."""
    revoked: bool = False

    def may_come_from(self, peer: str) -> bool:
        if not self.allowed_ip_range:
            return True
        return bool(peer) and ipaddress.ip_address(peer) in ipaddress.ip_network(self.allowed_ip_range, strict=False)


@dataclass(kw_only=True)
class Output:
    """A configured output; `fields` is what the API took and gives back, all strings."""

    name: str
    module: str
    stream: str
    fields: dict[str, str]
    disabled_until: float = 0.0
    """Unix time; the dialer rests until then."""

    def shown(self) -> dict[str, str]:
        return {**self.fields, "name": self.name, "module": self.module, "for": self.stream}


@dataclass(kw_only=True)
class Org:
    oid: str
    name: str
    seed: int
    fleet: Fleet
    api_key: str = field(repr=False)
    outputs: dict[str, Output] = field(default_factory=dict)
    errors: dict[str, dict[str, str | int]] = field(default_factory=dict)
    roster: Roster = field(init=False)
    """Its sensors as they are now."""

    def __post_init__(self) -> None:
        self.roster = Roster(self.fleet)

    def report(self, component: str, text: str) -> None:
        """Keep the newest error of a component, as ``GET /v1/errors/{oid}`` shows it."""
        self.errors[component] = {"component": component, "error": text, "ts": int(time.time()), "oid": self.oid}


class Cloud:
    """Everything that the services share. The same seed gives the same organizations and keys."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.orgs: dict[str, Org] = {}
        self.keys: dict[str, Key] = {}
        for number in range(settings.orgs):
            self._add_org(number)
        self.uid = self.secret("user")
        self.user_api_key = self.secret("user key")
        self.ingestion_key = self.secret("ingestion key")
        self.add_key(
            Key(
                secret=self.user_api_key,
                name="analyst@example.com",
                permissions=OWNER_PERMISSIONS,
                uid=self.uid,
                orgs=tuple(self.orgs),
            )
        )

    @property
    def first(self) -> Org:
        return next(iter(self.orgs.values()))

    def add_key(self, key: Key) -> None:
        self.keys[key.secret] = key

    def find_orgs(self, oid: str | None) -> list[Org]:
        """One organization, or all without an oid; raises `LookupError` for an unknown one."""
        if oid is None:
            return list(self.orgs.values())
        if oid not in self.orgs:
            raise LookupError(f"unknown oid {oid}")
        return [self.orgs[oid]]

    def secret(self, what: str) -> str:
        """A UUID that depends on the seed and on what it is for."""
        digest = hashlib.sha256(f"{self.settings.seed}/{what}".encode()).digest()
        return str(uuid.UUID(bytes=digest[:16], version=4))

    def _add_org(self, number: int) -> None:
        oid, secret = self.secret(f"org {number}"), self.secret(f"org key {number}")
        seed = self.settings.seed + number
        name = f"emulated-{number + 1}"
        self.orgs[oid] = Org(oid=oid, name=name, seed=seed, fleet=Fleet(oid, seed, FLEET_SIZE), api_key=secret)
        self.add_key(Key(secret=secret, name=f"{name}-key", permissions=OWNER_PERMISSIONS, oid=oid))
