"""The sensors of one emulated organization."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pipeline.emulator.records import Dice

Presence = Literal["always", "never", "flapping"]

X64, ARM64, CHROMIUM, USP_ADAPTER = 2, 4, 6, 9

PLATFORMS = {
    "okta": 0x06000000,
    "windows": 0x10000000,
    "linux": 0x20000000,
    "macos": 0x30000000,
    "chrome": 0x60000000,
    "office365": 0xE0000000,
}

# The first seven are the least that a fleet has; the rest is repeated as often as its size asks.
_SMALLEST: tuple[tuple[str, Presence], ...] = (
    ("windows", "always"),
    ("linux", "always"),
    ("macos", "always"),
    ("chrome", "always"),
    ("okta", "always"),
    ("windows", "never"),
    ("linux", "never"),
)
_MORE: tuple[tuple[str, Presence], ...] = (
    ("windows", "always"),
    ("windows", "flapping"),
    ("linux", "always"),
    ("macos", "flapping"),
    ("office365", "always"),
    ("windows", "always"),
    ("linux", "flapping"),
)
_ROLES = {
    "windows": (("desk", "workstation"), ("fin", "finance"), ("dc", "server"), ("lap", "vip")),
    "linux": (("web", "server"), ("build", "ci"), ("db", "database"), ("k8s", "container")),
    "macos": (("mbp", "engineering"), ("studio", "design")),
    "chrome": (("chromebook", "kiosk"),),
    "okta": (("okta-audit", "identity"),),
    "office365": (("o365-audit", "cloud"),),
}


@dataclass(frozen=True, slots=True)
class Sensor:
    """One sensor: an endpoint agent, a browser extension or an adapter (``arch`` 9)."""

    sid: str
    iid: str
    did: str
    """Device id; ``""`` for an adapter."""
    hostname: str
    platform: str
    """A key of `PLATFORMS`: ``windows``, ``linux``, ``macos``, ``chrome`` or an adapter's name."""
    plat: int
    arch: int
    int_ip: str
    """``""`` for an adapter."""
    ext_ip: str
    """An address; ``internal`` for an adapter."""
    tags: tuple[str, ...]
    presence: Presence


class Fleet:
    """The sensors of the organization ``oid``: the same for the same ``oid``, ``seed`` and ``size``.

    Windows and Linux each have a sensor that is always online and one that never is; macOS, Chrome and an adapter are always there.
    Raises `ValueError` for a ``size`` below 7, which those need.
    """

    def __init__(self, oid: str, seed: int, size: int = 14) -> None:
        if size < len(_SMALLEST):
            raise ValueError(f"a fleet has at least {len(_SMALLEST)} sensors, not {size}")
        self.oid = oid
        self.seed = seed
        dice = Dice(oid, seed, "fleet")
        iids = [dice.uuid() for _ in range(3)]
        kinds = [*_SMALLEST, *(_MORE[i % len(_MORE)] for i in range(size - len(_SMALLEST)))]
        self.sensors = tuple(_enroll(number, *kind, dice, iids) for number, kind in enumerate(kinds, 1))


def _enroll(number: int, platform: str, presence: Presence, dice: Dice, iids: list[str]) -> Sensor:
    prefix, role = dice.pick(_ROLES[platform])
    adapter = platform in {"okta", "office365"}
    arch = USP_ADAPTER if adapter else CHROMIUM if platform == "chrome" else ARM64 if platform == "macos" else X64
    domain = "" if adapter else ".corp.example.com" if platform in {"windows", "linux"} else ".local"
    return Sensor(
        sid=dice.uuid(),
        iid=dice.pick(iids),
        did="" if adapter else dice.uuid(),
        hostname=f"{prefix}-{number:02d}{domain}",
        platform=platform,
        plat=PLATFORMS[platform],
        arch=arch,
        int_ip="" if adapter else f"10.{dice.between(16, 31)}.{number >> 8 & 255}.{number & 255}",
        ext_ip="internal" if adapter else f"203.0.113.{dice.between(1, 254)}",
        tags=(platform, role) if dice.random() < 0.8 else (platform, role, "prod"),
        presence=presence,
    )
