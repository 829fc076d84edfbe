"""What every HTTP client needs: certificates, how long to wait, bounded bodies, and errors that hold no request."""

from __future__ import annotations

import email.utils
import re
import ssl
from collections.abc import Mapping
from datetime import UTC

import aiohttp

from pipeline.core.config import ClientTls
from pipeline.core.errors import ConfigError, UnavailableError

_MAX_TEXT = 300
_CONTROL = re.compile(r"[^\x20-\x7e\xa1-\u1fff\u2070-\ud7ff\uf900-\ufefe\ufff0-\ufffc]+")
"""Control characters, and those that turn or hide text (bidi, zero width)."""

FAULTS = (aiohttp.ClientError, TimeoutError, OSError)
"""What aiohttp raises when the other side cannot be reached or does not speak HTTP."""


def client_context(tls: ClientTls) -> ssl.SSLContext:
    """Make the context for connections that we dial. Raises `ConfigError` when a file cannot be used. Reads files."""
    name = str(tls.ca or "the system's authorities")
    try:
        context = ssl.create_default_context(cafile=str(tls.ca) if tls.ca else None)
        if tls.cert:
            name = f"{tls.cert} / {tls.key or tls.cert}"
            context.load_cert_chain(str(tls.cert), str(tls.key) if tls.key else None)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"The certificate file cannot be used: {error.strerror or error}.", where=name) from None
    if not tls.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def retry_after(headers: Mapping[str, str], now: float, *, most: float) -> float | None:
    """Seconds to wait as ``Retry-After`` says (a number, or a date against Unix time ``now``), not over ``most``.

    None where the header is absent or wrong.
    """
    value = headers.get("Retry-After", "").strip()
    if value.isascii() and value.isdigit():
        return min(float(value), most)
    try:
        when = email.utils.parsedate_to_datetime(value)
    except (ValueError, OverflowError):
        return None
    if when.tzinfo is None:
        when = when.replace(tzinfo=UTC)
    return min(max(0.0, when.timestamp() - now), most)


def describe(fault: BaseException) -> str:
    """Say in one line what went wrong with a connection.

    Never the exception's own repr: aiohttp's errors carry the request with its headers, and in them the token.
    """
    if isinstance(fault, TimeoutError):
        return "no answer in time"
    if isinstance(fault, aiohttp.ClientConnectorCertificateError):
        return f"the certificate is not trusted ({clean(str(fault.certificate_error))})"
    if isinstance(fault, aiohttp.ClientConnectorError):
        cause = fault.os_error
        return f"no connection to {fault.host}:{fault.port} ({clean(cause.strerror or str(cause))})"
    if isinstance(fault, aiohttp.ServerDisconnectedError):
        return "the connection was closed before the answer"
    if isinstance(fault, aiohttp.ClientPayloadError):
        return "the connection broke off within the answer"
    if isinstance(fault, aiohttp.ClientResponseError):
        return "the answer is not HTTP"
    if isinstance(fault, aiohttp.InvalidURL):
        return "the address is not valid"
    if isinstance(fault, OSError):
        return clean(fault.strerror or str(fault)) or type(fault).__name__
    return type(fault).__name__


def clean(text: str) -> str:
    """Make another side's text fit for one line of a log: printable, and at most 300 characters."""
    text = _CONTROL.sub(" ", text[: _MAX_TEXT * 4]).strip()
    return text if len(text) <= _MAX_TEXT else text[: _MAX_TEXT - 1] + "…"


async def read_body(response: aiohttp.ClientResponse, limit: int) -> bytes:
    """Read a whole body, decompressed. Raises `UnavailableError` when it is larger than ``limit`` bytes."""
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > limit:
            response.close()
            raise UnavailableError(f"The answer is larger than {limit} bytes.")
    return bytes(body)
