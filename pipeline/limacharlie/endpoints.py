"""Where each LimaCharlie service is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from pipeline.core.errors import ConfigError
from pipeline.limacharlie.config import LimaCharlieConfig, parse_url

StreamHost = Literal["stream", "stream-tmp"]


@dataclass(frozen=True, slots=True)
class Endpoints:
    """Addresses without a slash at the end. ``services`` holds those that are fixed; others an organization's list names."""

    jwt: str
    api: str
    """With its version: ``https://api.limacharlie.io/v1``."""
    streams: Mapping[StreamHost, str]
    """A connection is a POST to ``{address}/{oid}``."""
    services: Mapping[str, str] = field(default_factory=dict)
    base: str | None = None
    """The one address that stands for every service that is not in ``services``, if there is one."""

    def stream(self, host: StreamHost, oid: str) -> str:
        return f"{self.streams[host]}/{oid}"

    def socket(self) -> str:
        """Where streams are had over a WebSocket."""
        return f"{self.streams['stream']}/ws"

    def service(self, name: str) -> str | None:
        """The fixed address of a service like ``ai`` or ``search``; None where the organization's list decides."""
        return self.services.get(name) or self.base


def resolve(config: LimaCharlieConfig, environ: Mapping[str, str]) -> Endpoints:
    """Choose each address: a single endpoint, then `url`, then ``LC_API_URL`` and ``LC_JWT_URL``, ``LC_URL``, the real one.

    Raises `ConfigError` for an address in the environment that is none.
    """
    given = config.endpoints
    base = config.url
    api = given.api
    jwt = given.jwt
    if base is None:
        api = api or _from_environment(environ, "LC_API_URL")
        jwt = jwt or _from_environment(environ, "LC_JWT_URL")
        base = _from_environment(environ, "LC_URL")
    stream_tmp = given.stream_tmp or given.stream
    return Endpoints(
        jwt=(jwt or base or "https://jwt.limacharlie.io") + "/",
        api=(api or base or "https://api.limacharlie.io").removesuffix("/v1") + "/v1",
        streams={
            "stream": given.stream or (f"{base}/stream" if base else "https://stream.limacharlie.io"),
            "stream-tmp": stream_tmp or (f"{base}/stream-tmp" if base else "https://stream-tmp.limacharlie.io"),
        },
        services={name: url for name in ("ai", "search", "replay", "logs", "hooks") if (url := getattr(given, name))},
        base=base,
    )


def _from_environment(environ: Mapping[str, str], name: str) -> str | None:
    try:
        url: str | None = parse_url(environ.get(name, "").strip())
    except ValueError as error:
        raise ConfigError(str(error), where=name, fix="Correct it, or unset it to use LimaCharlie's own.") from None
    return url
