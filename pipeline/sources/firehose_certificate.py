"""The certificate of the `firehose` source: made at the start, or from files and loaded again when they change."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Sequence
from typing import Literal

from pipeline.core.component import Context
from pipeline.core.config import Tls
from pipeline.core.errors import ConfigError
from pipeline.kit.certificates import CertificateFiles, self_signed_context

CERTIFICATE_CHECK = 2.0
"""Seconds between two looks at the certificate files."""


class Certificate:
    """What the listener shows of itself."""

    def __init__(self, tls: Tls | Literal["off"] | None, names: Sequence[str], context: Context) -> None:
        """``names``: the hosts and addresses that one we make ourselves is for."""
        self._config = tls
        self._names = names
        self._source = context.id
        self._log = context.log
        self._report = context.report
        self._files: CertificateFiles | None = None
        self._made: ssl.SSLContext | None = None

    @property
    def tls(self) -> ssl.SSLContext | None:
        """For the next connection; None for plain TCP, and before `load`."""
        return self._files.context if self._files is not None else self._made

    async def load(self) -> None:
        """Read the files, or make a certificate. Raises ConfigError."""
        if isinstance(self._config, Tls):
            cert, key = self._config.cert, self._config.key
            try:
                self._files = await asyncio.to_thread(CertificateFiles, cert, key)
            except OSError as error:
                raise ConfigError(
                    f"{cert} and {key} cannot be used: {error}",
                    where=f"sources.{self._source}.tls",
                    fix="They must be PEM, belong together and be readable.",
                ) from error
        elif self._config is None:
            self._made = await asyncio.to_thread(self_signed_context, self._names)

    async def watch(self) -> None:
        """Load the files again when they change, until cancelled; returns at once where there are none."""
        while self._files is not None:
            await asyncio.sleep(CERTIFICATE_CHECK)
            try:
                changed = await asyncio.to_thread(self._files.refresh)
            except OSError as error:
                self._report.error("config")
                self._log.error(
                    "The new certificate cannot be used; the old one stays.", error=str(error), fix="Put a whole pair."
                )
            else:
                if changed:
                    self._log.info("The certificate was loaded again.")
