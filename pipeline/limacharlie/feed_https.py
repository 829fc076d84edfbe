"""A stream as a POST whose answer does not end: lines, cut anywhere."""

from __future__ import annotations

import aiohttp

from pipeline.core.errors import PipelineError, UnavailableError
from pipeline.kit.http import read_body
from pipeline.limacharlie.feed import Ending, Feed
from pipeline.limacharlie.token import Token

_MAX_ERROR = 64 << 10


class HttpsFeed(Feed):
    _response: aiohttp.ClientResponse | None = None

    async def _connect(self, token: Token) -> None:
        session = await self._transport.session()
        response = await session.post(
            self._url,
            data=self._request(token),
            headers={"Accept-Encoding": "identity", "Connection": "close"},
            allow_redirects=False,
        )
        self._response = response
        if response.status != 200:
            raise await self._refused(response)
        if response.headers.get("Content-Encoding", "identity") != "identity":
            raise UnavailableError("The stream comes compressed, which was not asked for.", where=self._url)

    async def _refused(self, response: aiohttp.ClientResponse) -> PipelineError:
        text = self._transport.error_text(await read_body(response, _MAX_ERROR))
        return self._transport.failure(response.status, response.headers, text, where=self._url)

    async def _read(self) -> bytes | Ending:
        assert self._response is not None
        return await self._response.content.readany() or Ending("ended")

    def close(self) -> None:
        response, self._response = self._response, None
        if response is not None:
            response.close()
