"""The token service: API keys in, RS256 tokens out, and the check of those tokens."""

from __future__ import annotations

import base64
import math
import time
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson
from aiohttp import web
from aiohttp.typedefs import Handler
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256

from pipeline.emulator.state import Cloud, Key

AUDIENCE = "lce_control_plane"
HOUR = 3600.0
LATEST_RELATIVE_EXPIRY = 1e9
"""An `expiry` above this is a moment in Unix seconds, below it a duration in seconds: clients send both."""


class RefusedError(Exception):
    """The credentials are no good; the text is what the caller is told."""


@dataclass(frozen=True)
class Grant:
    """What a valid token allows."""

    key: Key
    permissions: Mapping[str, frozenset[str]]
    """By oid."""

    def missing(self, oid: str, needed: Iterable[str]) -> str | None:
        """The first permission that is missing, or None."""
        held = self.permissions.get(oid, frozenset())
        return next((one for one in needed if one not in held), None)


def _segment(value: Any) -> bytes:
    return base64.urlsafe_b64encode(orjson.dumps(value)).rstrip(b"=")


def _unpad(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


class Tokens:
    """Mints and checks tokens; `lifetime` (seconds) is that of tokens whose request names no expiry."""

    def __init__(self, cloud: Cloud) -> None:
        self.lifetime = HOUR
        self._cloud = cloud
        self._private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self._public = self._private.public_key()
        self._keys: dict[str, tuple[float, Key]] = {}

    def mint(self, form: Mapping[str, str], peer: str = "") -> str:
        """Exchange the fields of a token request from an address for a token; raises `RefusedError`."""
        key = self._cloud.keys.get(form.get("secret", ""))
        oid, uid = form.get("oid", ""), form.get("uid", "")
        if key is None or key.revoked or (key.uid or "") != uid or not key.may_come_from(peer):
            raise RefusedError("unknown api key")
        if oid == "-":
            orgs: tuple[str, ...] = ()
        elif key.oid is not None:
            orgs = (key.oid,)
        else:
            orgs = (oid,) if oid else key.orgs
        if (key.oid is not None and oid not in (key.oid, "-")) or not set(orgs) <= {*key.orgs, key.oid}:
            raise RefusedError("unknown api key")
        permissions = key.permissions
        if form.get("perms"):
            permissions &= frozenset(form["perms"].split(","))
        return self._sign(key, orgs, sorted(permissions), self._expiry(form.get("expiry", "")))

    def check(self, token: str) -> Grant | None:
        """What the token allows, or None when it is forged, expired, or its key was revoked."""
        try:
            signed, _, signature = token.rpartition(".")
            self._public.verify(_unpad(signature), signed.encode(), padding.PKCS1v15(), SHA256())
            claims = orjson.loads(_unpad(signed.partition(".")[2]))
        except (InvalidSignature, ValueError):
            return None
        _, key = self._keys.get(claims["jti"], (0.0, None))
        if key is None or key.revoked or claims["exp"] <= time.time():
            return None
        oids = claims["oid"]
        if isinstance(oids, list):
            oids = dict.fromkeys(oids, claims["perms"])
        return Grant(key, {oid: frozenset(held) for oid, held in oids.items()})

    def expire_all(self) -> None:
        """Make every token handed out so far worthless, as if its time had come."""
        self._keys.clear()

    def _expiry(self, asked: str) -> float:
        now = time.time()
        try:
            number = float(asked) if asked else self.lifetime
        except ValueError:
            raise RefusedError(f"invalid expiry: {asked[:40]}") from None
        return number if number > LATEST_RELATIVE_EXPIRY else now + number

    def _sign(self, key: Key, orgs: tuple[str, ...], permissions: list[str], expires: float) -> str:
        now = time.time()
        self._keys = {jti: held for jti, held in self._keys.items() if held[0] > now}
        jti = str(uuid.uuid4())
        self._keys[jti] = (expires, key)
        claims = {
            "aud": AUDIENCE,
            "iat": int(now),
            "exp": math.ceil(expires),
            "jti": jti,
            "kid": key.name,
            "uid": key.uid or "",
            "email": key.name,
            "sip": "",
            "oid": list(orgs) if key.uid is None else dict.fromkeys(orgs, permissions),
            "perms": permissions if key.uid is None else [],
        }
        signed = b".".join((_segment({"alg": "RS256", "typ": "JWT"}), _segment(claims)))
        signature = self._private.sign(signed, padding.PKCS1v15(), SHA256())
        return (signed + b"." + base64.urlsafe_b64encode(signature).rstrip(b"=")).decode()


class JwtService:
    """``POST`` or ``GET /`` (and ``/jwt``) with a form. What comes as JSON is for the replay service, which has the same path."""

    def __init__(self, tokens: Tokens, replay: Handler) -> None:
        self._tokens = tokens
        self._replay = replay

    def routes(self) -> list[web.RouteDef]:
        return [
            *(web.route(method, path, self.mint) for path in ("/", "/jwt") for method in ("GET", "POST")),
            web.post("/replay", self._replay),
        ]

    async def mint(self, request: web.Request) -> web.StreamResponse:
        if request.content_type == "application/json":
            return await self._replay(request)
        form = {**request.query, **{k: v for k, v in (await request.post()).items() if isinstance(v, str)}}
        if "fb_auth" in form:
            return web.json_response({"error": "no such identity provider"}, status=401)
        try:
            return web.json_response({"jwt": self._tokens.mint(form, request.remote or "")})
        except RefusedError as error:
            return web.json_response({"error": str(error)}, status=401)
