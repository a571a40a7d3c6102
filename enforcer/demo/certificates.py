"""A certificate authority for one run: certificates of servers and clients, good, expired or foreign.

Owns files in one folder, removed with it. Never leaves a key anywhere else. Invariant: every
certificate here ends within a day.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

_HOUR = timedelta(hours=1)


class Certificates:
    """One authority and what it signs: ``ca.pem``, ``server.pem``, ``client.pem`` and their keys."""

    def __init__(self, folder: Path, names: Sequence[str] = ("127.0.0.1", "localhost")) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._names = tuple(names)
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _named(f"authority of {folder.name}")
        self._ca = (
            self._builder(self._name, self._key)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(signs=True), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self._write("ca", self._ca, self._key)
        self.issue("server")
        self.issue("client")

    @property
    def ca_file(self) -> Path:
        """The authority's certificate."""
        return self.folder / "ca.pem"

    @property
    def cert_file(self) -> Path:
        """The client's certificate."""
        return self.folder / "client.pem"

    @property
    def key_file(self) -> Path:
        """The client's key."""
        return self.folder / "client.key"

    def issue(self, who: str, *, expired: bool = False) -> None:
        """Write a new certificate and key for ``who``, in place of what was there."""
        key = ec.generate_private_key(ec.SECP256R1())
        made = (
            self._builder(_named(who), key, expired=expired)
            .add_extension(
                x509.SubjectAlternativeName([_alternative(name) for name in self._names]), critical=False
            )
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs=False), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self._write(who, made, key)

    def server_settings(self) -> dict[str, str]:
        """Lines of redis.conf for a server that wants a certificate of its clients."""
        return {
            "tls-cert-file": str(self.folder / "server.pem"),
            "tls-key-file": str(self.folder / "server.key"),
            "tls-ca-cert-file": str(self.ca_file),
        }

    def _builder(
        self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, *, expired: bool = False
    ) -> x509.CertificateBuilder:
        now = datetime.now(UTC)
        until = now - _HOUR if expired else now + 12 * _HOUR
        public = key.public_key()
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - 6 * _HOUR)
            .not_valid_after(until)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False
            )
        )

    def _write(self, name: str, made: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
        (self.folder / f"{name}.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
        path = self.folder / f"{name}.key"
        path.touch(mode=0o600)
        path.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _alternative(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs,
        crl_sign=signs,
        encipher_only=False,
        decipher_only=False,
    )
