"""Who may do what: the bearer check of the API and the credentials in a stream's form."""

from __future__ import annotations

from collections.abc import Mapping

import orjson
from aiohttp import web

from pipeline.emulator.jwt import Grant, RefusedError, Tokens
from pipeline.emulator.roster import Station
from pipeline.emulator.state import STREAM_PERMISSIONS, Cloud, Org


def refuse(status: type[web.HTTPError], text: str) -> web.HTTPError:
    """An error as all of the API's are: a status and ``{"error": text}``."""
    return status(text=orjson.dumps({"error": text}).decode(), content_type="application/json")


class Access:
    def __init__(self, cloud: Cloud, tokens: Tokens) -> None:
        self._cloud = cloud
        self._tokens = tokens

    def bearer(self, request: web.Request) -> Grant:
        """What the request's token allows; raises 401."""
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        grant = self._tokens.check(token.strip()) if scheme.lower() == "bearer" else None
        if grant is None:
            raise refuse(web.HTTPUnauthorized, "unauthorized: invalid or expired token")
        return grant

    def org(self, request: web.Request, *needed: str) -> Org:
        """The organization in the path, if the token allows all that is needed there; raises 401."""
        return self.named(request, request.match_info["oid"], *needed)

    def named(self, request: web.Request, oid: str, *needed: str) -> Org:
        """The organization with this oid, as `org`."""
        grant = self.bearer(request)
        if oid not in grant.permissions or oid not in self._cloud.orgs:
            raise refuse(web.HTTPUnauthorized, f"unauthorized: no access to {oid[:40]}")
        missing = grant.missing(oid, needed)
        if missing:
            raise refuse(web.HTTPUnauthorized, f"unauthorized: missing permission {missing}")
        return self._cloud.orgs[oid]

    def station(self, request: web.Request, *needed: str) -> tuple[Org, Station]:
        """The sensor in the path, in whichever organization of the token, as `org`; raises 404 for an unknown one."""
        for oid in self.bearer(request).permissions:
            station = self._cloud.orgs[oid].roster.stations.get(request.match_info["sid"])
            if station is not None and request.match_info.get("oid", oid) == oid:
                return self.named(request, oid, *needed), station
        raise refuse(web.HTTPNotFound, "sensor not found")

    def stream(self, oid: str, form: Mapping[str, str]) -> Org | None:
        """The organization, if the form's `jwt` or `api_key` (with `uid` for a user's) may stream from it."""
        token = form.get("jwt", "")
        if not token:
            try:
                token = self._tokens.mint({"oid": oid, "secret": form.get("api_key", ""), "uid": form.get("uid", "")})
            except RefusedError:
                return None
        grant = self._tokens.check(token)
        if grant is None or oid not in self._cloud.orgs or grant.missing(oid, STREAM_PERMISSIONS):
            return None
        return self._cloud.orgs[oid]
