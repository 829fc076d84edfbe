"""Certificates: self-made, and from files that change."""

from __future__ import annotations

import ssl

import pytest
import trustme
from cryptography import x509

from pipeline.kit.certificates import CertificateFiles, self_signed


@pytest.fixture
def pair(tmp_path):
    """Writes a new pair and says where."""
    authority = trustme.CA()
    paths = tmp_path / "tls.crt", tmp_path / "tls.key"

    def write():
        issued = authority.issue_cert("localhost")
        issued.cert_chain_pems[0].write_to_path(paths[0])
        issued.private_key_pem.write_to_path(paths[1])
        return paths

    return write


def test_a_self_made_certificate_names_its_hosts():
    """Host names and addresses are in the certificate as what they are."""
    cert, key = self_signed(["localhost", "127.0.0.1", "::1", "hose.example.com"])
    names = x509.load_pem_x509_certificate(cert).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert set(names.get_values_for_type(x509.DNSName)) == {"localhost", "hose.example.com"}
    assert {str(address) for address in names.get_values_for_type(x509.IPAddress)} == {"127.0.0.1", "::1"}
    assert b"PRIVATE KEY" in key


def test_unchanged_files_are_left_alone(pair):
    """Files that did not change give no new context."""
    files = CertificateFiles(*pair())
    context = files.context
    assert [files.refresh() for _ in range(3)] == [False] * 3
    assert files.context is context


def test_changed_files_are_loaded_when_they_rest(pair):
    """A new pair is taken at the second look after it changed, once."""
    files = CertificateFiles(*pair())
    context = files.context
    pair()
    assert [files.refresh() for _ in range(3)] == [False, True, False]
    assert files.context is not context


@pytest.mark.parametrize("damage", ["nonsense", None])
def test_a_bad_pair_keeps_the_old_one(pair, damage):
    """A pair that cannot be used, or is gone, raises once and leaves the old context."""
    cert, key = pair()
    files = CertificateFiles(cert, key)
    context = files.context
    if damage is None:
        key.unlink()
    else:
        cert.write_text(damage)
    assert files.refresh() is False
    with pytest.raises(OSError):
        files.refresh()
    assert files.refresh() is False
    assert files.context is context
    pair()
    assert [files.refresh(), files.refresh()] == [False, True]


def test_a_pair_behind_a_link_is_seen_to_change(pair, tmp_path):
    """A link that is turned to another folder, as Kubernetes does, is a change."""
    cert, key = pair()
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        cert, key = pair()
        cert.rename(tmp_path / name / "tls.crt")
        key.rename(tmp_path / name / "tls.key")
    link = tmp_path / "data"
    link.symlink_to("one")
    files = CertificateFiles(link / "tls.crt", link / "tls.key")
    (tmp_path / "next").symlink_to("two")
    (tmp_path / "next").replace(link)
    assert [files.refresh(), files.refresh()] == [False, True]


def test_an_encrypted_key_is_an_error_not_a_question(tmp_path, pair):
    """A key with a password is refused instead of asking on the terminal."""
    from cryptography.hazmat.primitives import serialization as s

    cert, key = pair()
    loaded = s.load_pem_private_key(key.read_bytes(), None)
    key.write_bytes(loaded.private_bytes(s.Encoding.PEM, s.PrivateFormat.PKCS8, s.BestAvailableEncryption(b"x")))
    with pytest.raises(ssl.SSLError):
        CertificateFiles(cert, key)
