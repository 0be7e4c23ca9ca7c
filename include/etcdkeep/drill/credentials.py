"""Certificates for one drill: its etcd serves nobody who has not been given one of them."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

ROOT = "root"
"""The client's name: where etcd's own users and roles are in the backup, this one may read everything."""
_VALID = timedelta(days=2)
_SKEW = timedelta(hours=1)


@dataclass(frozen=True)
class Pair:
    """A certificate and its key, PEM."""

    certificate: bytes
    key: bytes = field(repr=False)


@dataclass(frozen=True)
class DrillCredentials:
    """Mutual TLS of one drill; the key of its authority is already forgotten."""

    authority: bytes
    server: Pair
    client: Pair


def make_credentials(now: datetime) -> DrillCredentials:
    """Make an authority, and a pair of it for the etcd on 127.0.0.1 and one for its client."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = _name("etcdkeep drill")
    authority = (
        _builder(name, key, name, now)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    # etcd's own gateway connects to it with the server's certificate.
    both = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    return DrillCredentials(
        authority.public_bytes(serialization.Encoding.PEM),
        _issue("etcdkeep drill etcd", both, key, name, now),
        _issue(ROOT, both[1:], key, name, now),
    )


def _issue(
    common_name: str,
    usages: list[x509.ObjectIdentifier],
    authority: ec.EllipticCurvePrivateKey,
    issuer: x509.Name,
    now: datetime,
) -> Pair:
    key = ec.generate_private_key(ec.SECP256R1())
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    certificate = (
        _builder(_name(common_name), key, issuer, now)
        .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .sign(authority, hashes.SHA256())
    )
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return Pair(certificate.public_bytes(serialization.Encoding.PEM), pem)


def _builder(
    subject: x509.Name, key: ec.EllipticCurvePrivateKey, issuer: x509.Name, now: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now.astimezone(UTC) - _SKEW)
        .not_valid_after(now.astimezone(UTC) + _VALID)
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
