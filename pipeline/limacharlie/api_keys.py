"""Keys of the organization for programs."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from pipeline.core.errors import UnavailableError, UsageError
from pipeline.core.types import Secret
from pipeline.limacharlie.answers import table, text, texts
from pipeline.limacharlie.transport import Transport

_FLAIR = re.compile(r"\[(\w+)\]")


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key as it is listed; its value is shown at its making and never again."""

    key_hash: str
    name: str
    permissions: frozenset[str]
    allowed_ip_range: str = ""
    """The network (CIDR) that it may be used from; "" for anywhere."""
    made_by: str = ""

    @property
    def flair(self) -> frozenset[str]:
        """What its name says in brackets: ``bulk``, ``segment``."""
        return frozenset(_FLAIR.findall(self.name))


@dataclass(frozen=True, slots=True)
class NewApiKey:
    """A key just made. Keep ``value``: it cannot be had again."""

    name: str
    key_hash: str
    value: Secret


def with_flair(name: str, *, bulk: bool = False, segment: bool = False) -> str:
    """Put flair at the end of a key's name, which is how LimaCharlie is told of it.

    ``[bulk]`` raises the rate limits, for programs that ask a lot. ``[segment]`` lets the key see only what was made with it: a
    partner's key that cannot read the rules of others, and whose own work looks missing to it when it was made with another key.
    """
    wanted = [word for word, on in (("bulk", bulk), ("segment", segment)) if on and f"[{word}]" not in name]
    return name + "".join(f"[{word}]" for word in wanted)


class ApiKeys:
    """Needs ``apikey.ctrl``. All raise what `Transport.request` raises."""

    def __init__(self, transport: Transport, oid: str) -> None:
        self._transport = transport
        self._path = f"/orgs/{oid}/keys"

    async def list(self) -> dict[str, ApiKey]:
        """All keys by their hash."""
        answer = table(await self._transport.request("GET", self._path), self._path)
        return {
            key_hash: ApiKey(
                key_hash,
                text(doc, "name"),
                frozenset(texts(doc.get("priv"))),
                text(doc, "allowed_ip_range"),
                text(doc, "by"),
            )
            for key_hash, doc in table(answer.get("api_keys") or {}, self._path).items()
            if isinstance(doc, dict)
        }

    async def create(
        self,
        name: str,
        permissions: Iterable[str],
        *,
        bulk: bool = False,
        segment: bool = False,
        allowed_ip_range: str | None = None,
    ) -> NewApiKey:
        """Make a key with these permissions and flair (see `with_flair`). Not tried again: that could leave a second key behind."""
        wanted = sorted(permissions)
        if not name or not wanted:
            raise UsageError("A key has a name and at least one permission.")
        name = with_flair(name, bulk=bulk, segment=segment)
        form = {"key_name": name, "perms": ",".join(wanted)}
        if allowed_ip_range:
            form["allowed_ip_range"] = allowed_ip_range
        answer = table(await self._transport.request("POST", self._path, form=form), self._path)
        value = text(answer, "api_key")
        if not value:
            raise UnavailableError("LimaCharlie made a key and did not show it: delete it.", where=self._path)
        return NewApiKey(name, text(answer, "key_hash"), Secret(value))

    async def delete(self, key_hash: str) -> None:
        """Revoke a key."""
        await self._transport.request("DELETE", self._path, form={"key_hash": key_hash}, repeatable=True)
