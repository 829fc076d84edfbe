"""Knobs on single requests: faults of the API, keys, permissions, tokens."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from pipeline.emulator.faults import Answer, Delay, Header
from pipeline.emulator.panel import Knob, Panel, Result, Seconds, Times
from pipeline.emulator.state import OWNER_PERMISSIONS, Key


class Matched(Knob):
    route: str | None = None
    """jwt, url, stream, sensor, ingest, hooks, or the word after /v1/, as who, orgs, sensors, hive, insight; all without."""
    oid: str | None = None
    """Organization; all without."""
    times: Times = 1
    """How many requests; null until `clear`."""


class Respond(Matched):
    """Answer requests with this status in place of the service: 401, 413, 429, 504 and so on."""

    status: Annotated[int, Field(ge=200, le=599)]
    body: str | None = None
    """By default a JSON error."""
    headers: dict[str, str] = Field(default_factory=dict)
    """As Retry-After, X-RateLimit-Quota, X-RateLimit-Period."""

    def turn(self, panel: Panel) -> Result:
        panel.faults.answers.arm(Answer(**self.model_dump()))
        return {}


class Latency(Matched):
    """Answer late."""

    seconds: Seconds
    after: bool = False
    """Do at once what was asked, and hold back the answer; else wait before doing it."""

    def turn(self, panel: Panel) -> Result:
        rules = panel.faults.held if self.after else panel.faults.delays
        rules.arm(Delay(**self.model_dump(exclude={"after"})))
        return {}


class Headers(Matched):
    """Add headers to ordinary answers, as the rate limits that the cloud announces on a 200."""

    headers: dict[str, str]

    def turn(self, panel: Panel) -> Result:
        panel.faults.headers.arm(Header(**self.model_dump()))
        return {}


class ExpireTokens(Knob):
    """Every token handed out so far is expired: 401 until the client mints a new one."""

    def turn(self, panel: Panel) -> Result:
        panel.tokens.expire_all()
        return {}


class TokenLifetime(Knob):
    """How long new tokens live."""

    seconds: Seconds

    def turn(self, panel: Panel) -> Result:
        panel.tokens.lifetime = self.seconds
        return {}


class NewKey(Knob):
    """Make another organization key; the answer has it as `api_key`."""

    oid: str | None = None
    """Organization; the first without."""
    permissions: list[str] | None = None
    """By default all."""
    name: str = "another-key"

    def turn(self, panel: Panel) -> Result:
        cloud = panel.hub.cloud
        org = cloud.find_orgs(self.oid)[0]
        permissions = OWNER_PERMISSIONS if self.permissions is None else frozenset(self.permissions)
        secret = cloud.secret(f"key {len(cloud.keys)}")
        cloud.add_key(Key(secret=secret, name=self.name, permissions=permissions, oid=org.oid))
        return {"api_key": secret, "oid": org.oid}


class OfKeys(Knob):
    api_key: str | None = None
    """One key …"""
    oid: str | None = None
    """… or all keys of an organization."""

    def keys(self, panel: Panel) -> list[Key]:
        keys = panel.hub.cloud.keys.values()
        found = [key for key in keys if key.secret == self.api_key or (self.oid is not None and key.oid == self.oid)]
        if not found:
            raise LookupError("no such key: name an api_key or an oid")
        return found


class Permissions(OfKeys):
    """Change what keys may do; tokens minted from now on carry it."""

    permissions: list[str]

    def turn(self, panel: Panel) -> Result:
        for key in self.keys(panel):
            key.permissions = frozenset(self.permissions)
        return {}


class Revoke(OfKeys):
    """Revoke keys, and with them their tokens."""

    revoked: bool = True
    """False brings them back."""

    def turn(self, panel: Panel) -> Result:
        for key in self.keys(panel):
            key.revoked = self.revoked
        return {}
