"""The certificate of a listener: self-made, or from files that are read again when they change."""

from __future__ import annotations

import datetime as dt
import ipaddress
import ssl
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

_Stamp = tuple[tuple[int, int, int], ...]


def server_context(cert: Path, key: Path) -> ssl.SSLContext:
    """A context for TLS 1.2 and 1.3 with this pair of PEM files. Raises OSError (`ssl.SSLError` is one)."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION
    # A ticket that a sender never reads turns its close into a reset.
    context.num_tickets = 0
    # Without a password function, OpenSSL would ask for an encrypted key's on the terminal.
    context.load_cert_chain(cert, key, password=lambda: b"")
    return context


def self_signed(names: Iterable[str]) -> tuple[bytes, bytes]:
    """Make a certificate for these host names and IP addresses; return it and its key as PEM."""
    # Eight megabytes, which whoever has a certificate does without.
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import rsa
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    def general_name(name: str) -> Any:
        try:
            return x509.IPAddress(ipaddress.ip_address(name))
        except ValueError:
            return x509.DNSName(name.encode("idna").decode())

    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "lc-pipeline")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=3650))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName([general_name(name) for name in sorted(set(names))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    return (
        certificate.public_bytes(serialization.Encoding.PEM),
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()),
    )


def self_signed_context(names: Iterable[str]) -> ssl.SSLContext:
    """A context with a certificate made on the spot; its key is on the disk only while it is loaded."""
    cert, key = self_signed(names)
    with tempfile.TemporaryDirectory(prefix="lc-pipeline-") as folder:
        paths = Path(folder, "tls.crt"), Path(folder, "tls.key")
        for path, content in zip(paths, (cert, key), strict=True):
            path.touch(mode=0o600)
            path.write_bytes(content)
        return server_context(*paths)


class CertificateFiles:
    """A pair of PEM files and the context made of them. `refresh` is cheap; call it every few seconds."""

    def __init__(self, cert: Path, key: Path) -> None:
        """Load the pair. Raises OSError."""
        self._paths = (cert, key)
        self._loaded = self._seen = self._stamp()
        self.context = server_context(cert, key)

    def refresh(self) -> bool:
        """Load the files again if they changed; say whether that was done.

        Changed files are taken at the second look, when whoever replaces the pair is done with both. Raises OSError when the new pair
        cannot be used: `context` is then the old one still, and the files are not tried again before they change once more.
        """
        stamp = self._stamp()
        if stamp == self._loaded:
            self._seen = stamp
            return False
        if stamp != self._seen:
            self._seen = stamp
            return False
        self._loaded = stamp
        self.context = server_context(*self._paths)
        return True

    def _stamp(self) -> _Stamp:
        """What tells the files apart from later ones; a missing file is a state as well."""
        return tuple(_state(path) for path in self._paths)


def _state(path: Path) -> tuple[int, int, int]:
    try:
        info = path.stat()
    except FileNotFoundError:
        return (0, 0, 0)
    return (info.st_ino, info.st_mtime_ns, info.st_size)
