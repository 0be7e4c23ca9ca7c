"""A kubeadm-like PKI in memory, every fact of it changeable: ``make_pki(now)`` gives archive name → bytes."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from typing import Any

import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import NameOID

from etcdkeep.control_plane.pki import AUTHORITIES, ISSUERS

PEM = serialization.Encoding.PEM
PKCS1_OR_SEC1 = serialization.PrivateFormat.TraditionalOpenSSL
PKCS8 = serialization.PrivateFormat.PKCS8
Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey


def make_key(name: str, kind: str = "ec") -> Key:
    """Return the one key of that name and kind; RSA keys are slow to make."""
    return _make_key(name, kind)


@cache
def _make_key(name: str, kind: str) -> Key:
    if kind == "rsa":
        return rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return ed25519.Ed25519PrivateKey.generate() if kind == "ed25519" else ec.generate_private_key(ec.SECP256R1())


@dataclass(frozen=True)
class Identity:
    """A certificate and its key."""

    certificate: x509.Certificate
    key: Key

    @property
    def crt(self) -> bytes:
        return self.certificate.public_bytes(PEM)

    @property
    def pem_key(self) -> bytes:
        return key_pem(self.key)


def key_pem(key: Key, form: serialization.PrivateFormat = PKCS8, password: bytes | None = None) -> bytes:
    wrap = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    return key.private_bytes(PEM, form, wrap)


def public_pem(key: Key) -> bytes:
    return key.public_key().public_bytes(PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def make_identity(
    name: str,
    now: datetime,
    *,
    issuer: Identity | None = None,
    ca: bool = False,
    kind: str = "ec",
    start_days: float = -30,
    end_days: float = 335,
    extensions: bool = True,
    key: Key | None = None,
) -> Identity:
    """Make a certificate, self-signed without an issuer; `start_days` and `end_days` count from `now`."""
    key = key or make_key(name, kind)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    signer = issuer.key if issuer else key
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + timedelta(days=start_days))
        .not_valid_after(now + timedelta(days=end_days))
    )
    if extensions:
        usage = dict.fromkeys(
            ("content_commitment", "data_encipherment", "key_agreement", "crl_sign", "encipher_only"), False
        )
        builder = builder.add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True).add_extension(
            x509.KeyUsage(
                digital_signature=True, key_encipherment=True, key_cert_sign=ca, decipher_only=False, **usage
            ),
            critical=True,
        )
    algorithm = None if isinstance(signer, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return Identity(builder.sign(signer, algorithm), key)


def make_authority(name: str, now: datetime, **overrides: Any) -> Identity:
    return make_identity(name, now, **{"ca": True, "end_days": 3620, **overrides})


def make_kubeconfig(client: Identity, **user: Any) -> bytes:
    """Return a kubeconfig with `client` embedded; `user` replaces fields of its user."""
    fields = {
        "client-certificate-data": base64.b64encode(client.crt).decode(),
        "client-key-data": base64.b64encode(client.pem_key).decode(),
        **user,
    }
    users = [{"name": "kubernetes-admin", "user": {key: value for key, value in fields.items() if value is not None}}]
    return yaml.safe_dump({"apiVersion": "v1", "kind": "Config", "users": users}).encode()


def make_pki(now: datetime, kind: str = "ec", **replaced: bytes | None) -> dict[str, bytes]:
    """
    Return a sound control plane's files.

    :param replaced: Archive name → other content, or None to leave the file out.
    """
    files = {"manifests/etcd.yaml": b"kind: Pod\n", "manifests/kube-apiserver.yaml": b"kind: Pod\n"}
    authorities = {path: make_authority(path, now, kind=kind) for path in AUTHORITIES}
    identities = dict(authorities)
    for path, authority in ISSUERS.items():
        identities[path] = make_identity(path, now, issuer=authorities[authority], kind=kind)
    for path, identity in identities.items():
        files[path] = identity.crt
        files[path.removesuffix(".crt") + ".key"] = identity.pem_key
    service_account = make_key("sa", kind)
    files["pki/sa.key"] = key_pem(service_account)
    files["pki/sa.pub"] = public_pem(service_account)
    files["admin.conf"] = make_kubeconfig(make_identity("admin", now, issuer=authorities["pki/ca.crt"], kind=kind))
    return {path: data for path, data in {**files, **replaced}.items() if data is not None}
