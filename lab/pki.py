"""Keys and certificates shaped like kubeadm's: same names, files, modes, subjects and extensions."""

from __future__ import annotations

import base64
import ipaddress
import json
import os
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

PEM = serialization.Encoding.PEM
CLIENT = ExtendedKeyUsageOID.CLIENT_AUTH
SERVER = ExtendedKeyUsageOID.SERVER_AUTH
YEAR = timedelta(days=365)
ADMINS = "kubeadm:cluster-admins"


class Authority:
    """
    A CA in ``<stem>.crt`` and ``<stem>.key``, made at first use.

    :param algorithm: ``RSA-2048`` or ``ECDSA-P256``, as kubeadm's ``encryptionAlgorithm``.
    """

    def __init__(self, stem: Path, common_name: str, algorithm: str = "RSA-2048") -> None:
        self.algorithm = algorithm
        certificate, key = stem.with_suffix(".crt"), stem.with_suffix(".key")
        if not certificate.exists():
            private = _new_key(algorithm)
            builder = _builder(common_name, (), 10 * YEAR).public_key(private.public_key())
            builder = (
                builder.issuer_name(_name(common_name, ()))
                .add_extension(_usage(sign=True), critical=True)
                .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
                .add_extension(x509.SubjectKeyIdentifier.from_public_key(private.public_key()), critical=False)
                .add_extension(x509.SubjectAlternativeName([x509.DNSName(common_name)]), critical=False)
            )
            write_key(key, private)
            write_certificate(certificate, builder.sign(private, hashes.SHA256()))
        self.certificate = x509.load_pem_x509_certificate(certificate.read_bytes())
        self.private = serialization.load_pem_private_key(key.read_bytes(), password=None)

    def issue(
        self,
        stem: Path,
        common_name: str,
        usages: Sequence[x509.ObjectIdentifier],
        *,
        organisations: Sequence[str] = (),
        names: Iterable[str] = (),
        lifetime: timedelta = YEAR,
    ) -> None:
        """Make ``<stem>.crt`` and ``<stem>.key`` unless they are there; a negative lifetime is long over."""
        certificate = stem.with_suffix(".crt")
        if certificate.exists():
            return
        private = _new_key(self.algorithm)
        builder = _builder(common_name, organisations, lifetime).public_key(private.public_key())
        builder = (
            builder.issuer_name(self.certificate.subject)
            .add_extension(_usage(sign=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self.certificate.public_key()), False)
        )
        alternatives = [_alternative(name) for name in names]
        if alternatives:
            builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        write_key(stem.with_suffix(".key"), private)
        write_certificate(certificate, builder.sign(self.private, hashes.SHA256()))


def control_plane_pki(pki: Path, node: str, addresses: Sequence[str], algorithm: str) -> None:
    """Fill one node's ``pki`` folder; CAs that are there already (copied from the first node) are kept."""
    (pki / "etcd").mkdir(parents=True, exist_ok=True)
    ca = Authority(pki / "ca", "kubernetes", algorithm)
    front = Authority(pki / "front-proxy-ca", "front-proxy-ca", algorithm)
    etcd = Authority(pki / "etcd/ca", "etcd-ca", algorithm)
    service = ["kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"]
    ca.issue(
        pki / "apiserver", "kube-apiserver", [SERVER],
        names=[node, *service, "localhost", "10.96.0.1", "127.0.0.1", *addresses],
    )  # fmt: skip
    ca.issue(pki / "apiserver-kubelet-client", "kube-apiserver-kubelet-client", [CLIENT], organisations=[ADMINS])
    front.issue(pki / "front-proxy-client", "front-proxy-client", [CLIENT])
    etcd.issue(pki / "apiserver-etcd-client", "kube-apiserver-etcd-client", [CLIENT])
    etcd.issue(pki / "etcd/healthcheck-client", "kube-etcd-healthcheck-client", [CLIENT])
    for name in ("server", "peer"):
        names = [node, "localhost", "127.0.0.1", "::1", *addresses]
        etcd.issue(pki / "etcd" / name, node, [SERVER, CLIENT], names=names)
    if not (pki / "sa.key").exists():
        private = _new_key("RSA-2048")
        write_key(pki / "sa.key", private)
        write_public(pki / "sa.pub", private)


def kubeconfig(path: Path, ca: Authority, server: str, cluster: str, user: str, **leaf: object) -> None:
    """Write a kubeconfig with everything embedded, as kubeadm does; `leaf` goes to :meth:`Authority.issue`."""
    if path.exists():
        return
    stem = path.with_name(f".{path.name}-client")
    ca.issue(stem, user, [CLIENT], **leaf)  # type: ignore[arg-type]
    context = f"{user}@{cluster}"
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": cluster, "cluster": {"certificate-authority-data": _b64(ca.certificate.public_bytes(PEM)), "server": server}}],
        "contexts": [{"name": context, "context": {"cluster": cluster, "user": user}}],
        "current-context": context,
        "preferences": {},
        "users": [{"name": user, "user": {
            "client-certificate-data": _b64(stem.with_suffix(".crt").read_bytes()),
            "client-key-data": _b64(stem.with_suffix(".key").read_bytes()),
        }}],
    }  # fmt: skip
    _write(path, json.dumps(document, indent=2).encode() + b"\n", 0o600)
    stem.with_suffix(".crt").unlink()
    stem.with_suffix(".key").unlink()


def rsa_ssh_key(path: Path) -> None:
    """Write an RSA key pair in the form of the vendor's ``vsphere_tmp``, with its public line beside it."""
    if path.exists():
        return
    private = _new_key("RSA-2048")
    write_key(path, private)
    line = private.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    _write(path.with_suffix(".pub"), line + b"\n", 0o644)


def write_key(path: Path, private: PrivateKeyTypes) -> None:
    plain = serialization.NoEncryption()
    _write(path, private.private_bytes(PEM, serialization.PrivateFormat.TraditionalOpenSSL, plain), 0o600)


def write_public(path: Path, private: PrivateKeyTypes) -> None:
    _write(path, private.public_key().public_bytes(PEM, serialization.PublicFormat.SubjectPublicKeyInfo), 0o600)


def write_certificate(path: Path, certificate: x509.Certificate) -> None:
    _write(path, certificate.public_bytes(PEM), 0o644)


def _write(path: Path, data: bytes, mode: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "wb") as file:
        file.write(data)


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _new_key(algorithm: str) -> rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey:
    if algorithm == "ECDSA-P256":
        return ec.generate_private_key(ec.SECP256R1())
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def _name(common_name: str, organisations: Sequence[str]) -> x509.Name:
    attributes = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, value) for value in organisations]
    return x509.Name([*attributes, x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _builder(common_name: str, organisations: Sequence[str], lifetime: timedelta) -> x509.CertificateBuilder:
    start = datetime.now(UTC) - timedelta(minutes=5)
    if lifetime < timedelta(0):
        start, lifetime = start + 2 * lifetime, -lifetime
    return (
        x509.CertificateBuilder()
        .subject_name(_name(common_name, organisations))
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + lifetime)
    )


def _usage(*, sign: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True, key_encipherment=True, key_cert_sign=sign, content_commitment=False,
        data_encipherment=False, key_agreement=False, crl_sign=False, encipher_only=False, decipher_only=False,
    )  # fmt: skip


def _alternative(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
