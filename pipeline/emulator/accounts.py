"""Who may enter an organization: users and their rights, API keys, installation keys, ingestion keys."""

from __future__ import annotations

import base64
import hashlib
import ipaddress
import time
import uuid
from typing import Any

from aiohttp import web

from pipeline.emulator.access import Access, refuse
from pipeline.emulator.forms import answer, form_of, wrong
from pipeline.emulator.roster import ENROLLED, stamp
from pipeline.emulator.state import OWNER_PERMISSIONS, Cloud, Key, Org

_READ = frozenset(name for name in OWNER_PERMISSIONS if name.endswith((".get", ".list")))
ROLES = {
    "Owner": OWNER_PERMISSIONS,
    "Administrator": OWNER_PERMISSIONS - {"billing.ctrl", "user.ctrl"},
    "Operator": _READ | {"sensor.task", "sensor.tag", "dr.set", "dr.del", "hive.set", "extension.request"},
    "Viewer": _READ,
    "Basic": frozenset({"org.get"}),
}


class AccountService:
    def __init__(self, cloud: Cloud, access: Access) -> None:
        self._cloud = cloud
        self._access = access
        self._users = {org.oid: {"analyst@example.com": set(OWNER_PERMISSIONS)} for org in cloud.orgs.values()}
        self._ingestion = {
            org.oid: {"default": {"name": "default", "value": cloud.ingestion_key, "created": ENROLLED}}
            for org in cloud.orgs.values()
        }
        self._installation = {org.oid: _installation_keys(org) for org in cloud.orgs.values()}

    def routes(self) -> list[web.RouteDef]:
        org = "/v1/orgs/{oid}"
        return [
            web.get("/v1/user/orgs", self.my_orgs),
            web.get(f"{org}/users", self.users),
            web.post(f"{org}/users", self.invite),
            web.delete(f"{org}/users", self.remove_user),
            web.get(f"{org}/users/permissions", self.permissions),
            web.post(f"{org}/users/permissions", self.grant),
            web.delete(f"{org}/users/permissions", self.revoke),
            web.put(f"{org}/users/role", self.set_role),
            web.get(f"{org}/keys", self.keys),
            web.post(f"{org}/keys", self.add_key),
            web.delete(f"{org}/keys", self.delete_key),
            web.get("/v1/installationkeys/{oid}", self.installation_keys),
            web.get("/v1/installationkeys/{oid}/{iid}", self.installation_key),
            web.post("/v1/installationkeys/{oid}", self.add_installation_key),
            web.delete("/v1/installationkeys/{oid}", self.delete_installation_key),
            web.get("/v1/insight/{oid}/ingestion_keys", self.ingestion_keys),
            web.post("/v1/insight/{oid}/ingestion_keys", self.add_ingestion_key),
            web.delete("/v1/insight/{oid}/ingestion_keys", self.delete_ingestion_key),
        ]

    def may_ingest(self, org: Org, key: str) -> bool:
        return any(held["value"] == key for held in self._ingestion[org.oid].values())

    # -- users

    async def my_orgs(self, request: web.Request) -> web.Response:
        """The organizations of the caller's key, whatever its token is narrowed to."""
        key = self._access.bearer(request).key
        form = await form_of(request)
        oids = key.orgs if key.uid is not None else (key.oid or "",)
        wanted = form.text("filter").lower()
        found = [org for oid in oids if wanted in (org := self._cloud.orgs[oid]).name.lower()]
        start, limit = form.number("offset", 0), form.number("limit", 0) or len(found)
        rows = [{"oid": org.oid, "name": org.name} for org in found[start : start + limit]]
        return answer({"orgs": rows, "total": len(found)})

    async def users(self, request: web.Request) -> web.Response:
        return answer({"users": list(self._users[self._access.org(request, "user.ctrl").oid])})

    async def invite(self, request: web.Request) -> web.Response:
        """A new user has no rights, or those of a role."""
        org = self._access.org(request, "user.ctrl")
        form = await form_of(request)
        role = form.text("role")
        if role and role not in ROLES:
            raise wrong(f"unknown role {role[:40]}")
        self._users[org.oid].setdefault(form.need("email"), set()).update(ROLES.get(role, ()))
        return answer({"success": True, "role": role, "invite_sent": form.flag("invite_missing")})

    async def remove_user(self, request: web.Request) -> web.Response:
        org = self._access.org(request, "user.ctrl")
        email = (await form_of(request)).need("email")
        self._rights(org, email)
        del self._users[org.oid][email]
        return answer({"success": True})

    async def permissions(self, request: web.Request) -> web.Response:
        org = self._access.org(request, "user.ctrl")
        rights = {email: sorted(held) for email, held in self._users[org.oid].items()}
        direct = [{"email": email, "uid": _uid(email), "perms": held} for email, held in rights.items()]
        return answer({"user_permissions": rights, "direct_users": direct, "from_groups": {}, "group_info": {}})

    async def grant(self, request: web.Request) -> web.Response:
        org = self._access.org(request, "user.ctrl")
        form = await form_of(request)
        self._rights(org, form.need("email")).add(form.need("perm"))
        return answer({"success": True})

    async def revoke(self, request: web.Request) -> web.Response:
        org = self._access.org(request, "user.ctrl")
        form = await form_of(request)
        self._rights(org, form.need("email")).discard(form.need("perm"))
        return answer({"success": True})

    async def set_role(self, request: web.Request) -> web.Response:
        org = self._access.org(request, "user.ctrl")
        form = await form_of(request)
        email, role = form.need("email"), form.need("role")
        if role not in ROLES:
            raise wrong(f"unknown role {role[:40]}")
        self._rights(org, email)
        self._users[org.oid][email] = set(ROLES[role])
        return answer({"success": True, "role": role, "permissions": sorted(ROLES[role])})

    def _rights(self, org: Org, email: str) -> set[str]:
        if email not in self._users[org.oid]:
            raise refuse(web.HTTPNotFound, "unknown user")
        return self._users[org.oid][email]

    # -- API keys

    async def keys(self, request: web.Request) -> web.Response:
        org = self._access.org(request, "apikey.ctrl")
        rows = {
            _hash(key): {
                "name": key.name,
                "priv": sorted(key.permissions),
                "by": "analyst@example.com",
                "oid": org.oid,
                "allowed_ip_range": key.allowed_ip_range,
                "last_used": 0,
            }
            for key in self._cloud.keys.values()
            if key.oid == org.oid and not key.revoked
        }
        return answer({"api_keys": rows})

    async def add_key(self, request: web.Request) -> web.Response:
        """The key is told this once."""
        org = self._access.org(request, "apikey.ctrl")
        form = await form_of(request)
        asked = frozenset(form.names("perms"))
        allowed = form.text("allowed_ip_range")
        if allowed and not _is_network(allowed):
            raise wrong("allowed_ip_range is not a network")
        key = Key(
            secret=str(uuid.uuid4()),
            name=form.need("key_name"),
            permissions=asked,
            oid=org.oid,
            allowed_ip_range=allowed,
        )
        self._cloud.add_key(key)
        return answer({"api_key": key.secret, "key_hash": _hash(key), "success": True})

    async def delete_key(self, request: web.Request) -> web.Response:
        org = self._access.org(request, "apikey.ctrl")
        asked = (await form_of(request)).need("key_hash")
        for key in list(self._cloud.keys.values()):
            if key.oid == org.oid and _hash(key) == asked:
                key.revoked = True
                del self._cloud.keys[key.secret]
                return answer({"success": True})
        raise refuse(web.HTTPNotFound, "unknown key")

    # -- installation and ingestion keys

    async def installation_keys(self, request: web.Request) -> web.Response:
        org = self._access.org(request, "ikey.list")
        return answer({org.oid: self._installation[org.oid]})

    async def installation_key(self, request: web.Request) -> web.Response:
        org = self._access.org(request, "ikey.list")
        return answer(self._installation_key(org, request.match_info["iid"]))

    async def add_installation_key(self, request: web.Request) -> web.Response:
        org = self._access.org(request, "ikey.set")
        form = await form_of(request)
        iid = form.text("iid") or str(uuid.uuid4())
        self._installation[org.oid][iid] = _installation_key(
            org.oid, iid, form.need("desc"), form.names("tags"), public=form.flag("use_public_root_ca")
        )
        return answer({"iid": iid})

    async def delete_installation_key(self, request: web.Request) -> web.Response:
        org = self._access.org(request, "ikey.del")
        iid = (await form_of(request)).need("iid")
        self._installation_key(org, iid)
        del self._installation[org.oid][iid]
        return answer({"success": True})

    def _installation_key(self, org: Org, iid: str) -> dict[str, Any]:
        if iid not in self._installation[org.oid]:
            raise refuse(web.HTTPNotFound, "unknown installation key")
        return self._installation[org.oid][iid]

    async def ingestion_keys(self, request: web.Request) -> web.Response:
        return answer({"keys": self._ingestion[self._access.org(request, "ingestkey.ctrl").oid]})

    async def add_ingestion_key(self, request: web.Request) -> web.Response:
        org = self._access.org(request, "ingestkey.ctrl")
        name = (await form_of(request)).need("name")
        key = {"name": name, "value": str(uuid.uuid4()), "created": int(time.time())}
        self._ingestion[org.oid][name] = key
        return answer({**key, "key": key["value"]})

    async def delete_ingestion_key(self, request: web.Request) -> web.Response:
        org = self._access.org(request, "ingestkey.ctrl")
        if self._ingestion[org.oid].pop((await form_of(request)).need("name"), None) is None:
            raise refuse(web.HTTPNotFound, "unknown ingestion key")
        return answer({"success": True})


def _installation_keys(org: Org) -> dict[str, dict[str, Any]]:
    iids = sorted({sensor.iid for sensor in org.fleet.sensors})
    return {iid: _installation_key(org.oid, iid, f"key {number}", []) for number, iid in enumerate(iids, 1)}


def _installation_key(oid: str, iid: str, desc: str, tags: list[str], *, public: bool = False) -> dict[str, Any]:
    return {
        "iid": iid,
        "desc": desc,
        "tags": ",".join(tags),
        "key": base64.b64encode(f"{oid}:{iid}".encode()).decode(),
        "json_key": f'{{"oid":"{oid}","iid":"{iid}"}}',
        "created": stamp(time.time()),
        "use_public_root_ca": public,
    }


def _hash(key: Key) -> str:
    return hashlib.sha256(key.secret.encode()).hexdigest()


def _uid(email: str) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_URL, email))


def _is_network(text: str) -> bool:
    try:
        ipaddress.ip_network(text, strict=False)
    except ValueError:
        return False
    return True
