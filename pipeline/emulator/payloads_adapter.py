"""Events of cloud adapters: whatever the service logs, under the name it gives to it."""

from __future__ import annotations

import time

from pipeline.emulator.payloads_catalog import PEOPLE
from pipeline.emulator.payloads_endpoint import Draft, Endpoint, Renderer, linked
from pipeline.emulator.records import compact

_ADDRESSES = [compact(f"{person}@corp.example.com") for person in PEOPLE]
_OKTA = (
    ("user.session.start", "User login to Okta", "SUCCESS"),
    ("user.authentication.auth_via_mfa", "Authentication of user via MFA", "FAILURE"),
    ("policy.evaluate_sign_on", "Evaluation of sign-on policy", "ALLOW"),
)
_OFFICE = ("UserLoggedIn", "FileAccessed", "MailItemsAccessed", "New-InboxRule")


def _iso(now: int) -> bytes:
    return b"%b.%03dZ" % (time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now // 1000)).encode(), now % 1000)


def okta(host: Endpoint, now: int) -> Draft:
    dice = host.dice
    kind, message, outcome = dice.pick(_OKTA)
    person = dice.pick(_ADDRESSES)
    payload = (
        b'{"actor":{"alternateId":%b,"displayName":%b,"id":"00u%x","type":"User"},"client":{"device":"Computer","geographicalContext":'
        b'{"city":"Z\xc3\xbcrich","country":"Switzerland"},"ipAddress":"198.51.100.%d"},"displayMessage":%b,"eventType":"%b",'
        b'"outcome":{"result":"%b"},"published":"%b","severity":"INFO","uuid":"%b"}'
        % (
            person,
            person,
            dice.bits(64),
            dice.bits(8),
            compact(message),
            kind.encode(),
            outcome.encode(),
            _iso(now),
            dice.uuid().encode(),
        )
    )
    return kind, payload, linked(b"", host.atom(now)), ""


def office365(host: Endpoint, now: int) -> Draft:
    dice = host.dice
    kind = dice.pick(_OFFICE)
    person = dice.pick(_ADDRESSES)
    payload = (
        b'{"ClientIP":"203.0.113.%d","CreationTime":"%b","Id":"%b","ObjectId":%b,"Operation":"%b","OrganizationId":"%b","RecordType":15,'
        b'"ResultStatus":"Succeeded","UserId":%b,"UserType":0,"Version":1,"Workload":"AzureActiveDirectory"}'
        % (
            dice.bits(8),
            _iso(now),
            dice.uuid().encode(),
            compact(f"https://corp.example.com/sites/Büro/{dice.bits(20)}"),
            kind.encode(),
            host.oid.encode(),
            person,
        )
    )
    return kind, payload, linked(b"", host.atom(now)), ""


ADAPTERS: dict[str, Renderer] = {"okta": okta, "office365": office365}
