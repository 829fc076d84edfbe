"""The `limacharlie` section: who we are and where LimaCharlie is."""

from __future__ import annotations

import re
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import BeforeValidator

from pipeline.core.config import ClientTls, Field, Section
from pipeline.core.types import Duration, Secret

UUID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


def _set_or_none(value: Any) -> Any:
    """Treat ``""`` as not set: it is what ``${LC_UID:-}`` gives."""
    return None if value == "" else value


def _oid(value: Any) -> Any:
    if value == "" or value is None:
        return None
    if not isinstance(value, str) or not UUID.fullmatch(value):
        raise ValueError("an organization id is a UUID, like 8cbe27f4-bfa1-4afb-ba19-138cd51389cd")
    return value.lower()


def parse_url(value: Any) -> Any:
    """Check the address of a service and cut the slash at its end; None and "" mean not set. Raises ValueError."""
    if value == "" or value is None:
        return None
    wanted = "an address is like https://api.limacharlie.io, without user, query or fragment"
    try:
        parts = urlsplit(value)
        bad = parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc or parts.port == 0
    except (ValueError, TypeError, AttributeError):
        raise ValueError(wanted) from None
    if bad or parts.query or parts.fragment:
        raise ValueError(wanted)
    return str(value).rstrip("/")


Url = Annotated[str | None, BeforeValidator(parse_url)]
Oid = Annotated[str | None, BeforeValidator(_oid)]
Uid = Annotated[str | None, BeforeValidator(_set_or_none)]
ApiKey = Annotated[Secret | None, BeforeValidator(_set_or_none)]


class EndpointsConfig(Section):
    """Addresses of single LimaCharlie services; each replaces the one that would be used otherwise."""

    jwt: Url = None
    """Where keys become tokens; default https://jwt.limacharlie.io."""
    api: Url = None
    """The REST API without its version; default https://api.limacharlie.io."""
    stream: Url = None
    """The stream service; default https://stream.limacharlie.io. Stands for stream_tmp too, unless that is given."""
    stream_tmp: Url = None
    """The stream service that confirms a subscription; default https://stream-tmp.limacharlie.io."""
    ai: Url = None
    """AI sessions; default: what the organization's address list says."""
    search: Url = None
    """Queries; default: what the organization's address list says."""
    replay: Url = None
    """Replay of rules; default: what the organization's address list says."""
    logs: Url = None
    """Artifacts; default: what the organization's address list says."""
    hooks: Url = None
    """Webhooks into the organization; default: what the organization's address list says."""


class OrgConfig(Section):
    """One of several organizations; what is missing comes from the `limacharlie` section."""

    oid: Oid = None
    """The organization's id."""
    api_key: ApiKey = None
    """A key of this organization; default: that of the `limacharlie` section."""
    uid: Uid = None
    """The user that ``api_key`` belongs to, if it is a user's key."""


class LimaCharlieConfig(Section):
    """Credentials and addresses. Without a key here, the places are searched where LimaCharlie's own tools keep theirs."""

    oid: Oid = None
    """The organization's id."""
    api_key: ApiKey = None
    """An organization's API key, or a user's together with ``uid``."""
    uid: Uid = None
    """The user that ``api_key`` belongs to, if it is a user's key."""
    environment: str | None = None
    """A named environment of the credentials file of LimaCharlie's own tools."""
    url: Url = None
    """One base address that stands for every LimaCharlie service, as `lc-pipeline emulate` serves them."""
    endpoints: EndpointsConfig = EndpointsConfig()
    """Addresses of single services."""
    tls: ClientTls = ClientTls()
    """How LimaCharlie's certificates are checked."""
    connect_timeout: Duration = Field(10.0, gt=0)
    """How long a connection may take to come about."""
    timeout: Duration = Field(30.0, gt=0)
    """How long one request may take in all."""

    def for_org(self, org: OrgConfig) -> LimaCharlieConfig:
        """Return the section as it holds for one of several organizations.

        A key of the organization's own replaces key and user together: a user's id beside an organization's key is refused.
        """
        changes: dict[str, Any] = {}
        if org.oid is not None:
            changes["oid"] = org.oid
        if org.api_key is not None:
            changes["api_key"] = org.api_key
            changes["uid"] = org.uid
        elif org.uid is not None:
            changes["uid"] = org.uid
        return self.model_copy(update=changes)
