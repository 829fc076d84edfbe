"""How the API's requests are read and its large answers packed."""

from __future__ import annotations

import base64
import binascii
import gzip
import zlib
from collections.abc import Iterable
from typing import Any

import orjson
from aiohttp import web
from multidict import MultiDict

from pipeline.emulator.access import refuse

MAX_UNPACKED = 64 << 20
"""Bytes that a compressed field of a form may hold."""


def wrong(text: str) -> web.HTTPException:
    """Return the answer to a request that makes no sense."""
    return refuse(web.HTTPBadRequest, text)


class Form:
    """The fields of a request: of its query, and of its body if that is a form or a JSON object.

    All methods raise the API's 400 for a value that is not what they promise.
    """

    def __init__(self, fields: MultiDict[str]) -> None:
        self._fields = fields

    def text(self, name: str, default: str = "") -> str:
        return self._fields.get(name, default)

    def need(self, name: str) -> str:
        """Return a text that must be there."""
        if not self.text(name):
            raise wrong(f"missing parameter {name}")
        return self.text(name)

    def all(self, name: str) -> list[str]:
        """Return every value of a field, which clients repeat."""
        return self._fields.getall(name, [])

    def names(self, name: str) -> list[str]:
        """Return the names in a field that is repeated, or holds several with commas between, or both."""
        return [part.strip() for value in self.all(name) for part in value.split(",") if part.strip()]

    def flag(self, name: str, *, default: bool = False) -> bool:
        return self.text(name).strip().lower() in ("true", "1", "yes") if name in self._fields else default

    def number(self, name: str, default: int) -> int:
        """Return a whole number; an empty text is as good as none."""
        text = self.text(name).strip()
        try:
            return int(float(text)) if text else default
        except (ValueError, OverflowError):
            raise wrong(f"parameter {name} is not a number: {text[:40]}") from None

    def json(self, name: str, default: Any = None) -> Any:
        """Return a field that holds JSON, or its ``gz`` twin that holds it compressed."""
        if f"gz{name}" in self._fields:
            return unpacked(self.text(f"gz{name}"))
        if not self.text(name):
            return default
        try:
            return orjson.loads(self.text(name))
        except orjson.JSONDecodeError:
            raise wrong(f"parameter {name} is not JSON") from None

    def object(self, name: str) -> dict[str, Any]:
        """Return a field that holds a JSON object; ``{}`` without one."""
        return _object(name, self.json(name, {}))

    def base64_object(self, name: str) -> dict[str, Any]:
        """Return a field that holds a JSON object in base64."""
        try:
            return _object(name, orjson.loads(base64.b64decode(self.need(name), validate=True)))
        except (binascii.Error, orjson.JSONDecodeError):
            raise wrong(f"parameter {name} is not JSON in base64") from None


def _object(name: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise wrong(f"parameter {name} is not a JSON object")
    return value


async def form_of(request: web.Request) -> Form:
    """Read a request's fields; raises the API's 400 for a body that is not what its type says."""
    fields = MultiDict(request.query)
    if request.content_type == "application/json":
        for name, value in (await body_of(request)).items():
            # what is no text travels as JSON, as in a form
            texts = value if isinstance(value, list) and all(isinstance(one, str) for one in value) else [value]
            fields.extend((name, one if isinstance(one, str) else orjson.dumps(one).decode()) for one in texts)
    else:
        fields.extend((name, value) for name, value in (await request.post()).items() if isinstance(value, str))
    return Form(fields)


async def body_of(request: web.Request) -> dict[str, Any]:
    """Return the JSON object in a request's body; raises the API's 400 for anything else."""
    try:
        body = orjson.loads(await request.read() or b"{}")
    except orjson.JSONDecodeError:
        raise wrong("the body is not JSON") from None
    if not isinstance(body, dict):
        raise wrong("the body is not a JSON object")
    return body


def packed(data: bytes) -> str:
    """Return JSON as large answers carry it: gzip in base64."""
    return base64.b64encode(gzip.compress(data, 1)).decode()


def unpacked(text: str) -> Any:
    """Return what JSON in gzip in base64 says; raises the API's 400 when it is not that, or too large."""
    try:
        inflate = zlib.decompressobj(wbits=31)
        data = inflate.decompress(base64.b64decode(text, validate=True), MAX_UNPACKED)
        if not inflate.eof:
            raise wrong("the compressed data is cut off or too large")
        return orjson.loads(data)
    except (binascii.Error, zlib.error, orjson.JSONDecodeError):
        raise wrong("the data is not JSON in gzip in base64") from None


def array(records: Iterable[bytes]) -> bytes:
    """Return a JSON list of encoded values."""
    return b"[" + b",".join(records) + b"]"


def answer(value: Any) -> web.Response:
    return web.Response(body=orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS), content_type="application/json")
