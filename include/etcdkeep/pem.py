"""Keys and certificates in PEM files, read as tolerantly as Kubernetes reads them; no message quotes a file."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes

BLOCK = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----.*?-----END \1-----", re.DOTALL)
UNREADABLE = (ValueError, TypeError, UnsupportedAlgorithm, x509.InvalidVersion, x509.DuplicateExtension)


class PemError(Exception):
    """What is wrong with a file, worded to follow its name."""


def read_certificates(data: bytes) -> tuple[x509.Certificate, ...]:
    """
    Return the certificates of a file in order: a leaf before its intermediates, or a bundle of authorities.

    :raises PemError: when it holds none, or one that cannot be read.
    """
    blocks = _blocks(data, "CERTIFICATE")
    if not blocks:
        raise PemError("holds no PEM certificate")
    try:
        certificates = tuple(x509.load_pem_x509_certificate(block) for block in blocks)
        for certificate in certificates:
            certificate.public_key()
    except UNREADABLE:
        raise PemError("holds a certificate that cannot be read") from None
    return certificates


def read_private_key(data: bytes) -> bytes:
    """
    Return what the file's private key (PKCS#1, PKCS#8 or SEC 1) has in common with its certificate: the public half.

    :raises PemError: when it holds no private key, or one that cannot be read.
    """
    blocks = _blocks(data, "PRIVATE KEY")
    if not blocks:
        raise PemError("holds no PEM private key")
    if b"ENCRYPTED" in blocks[0]:
        raise PemError("holds a private key behind a password, which no control plane can use")
    try:
        return public_half(serialization.load_pem_private_key(blocks[0], password=None).public_key())
    except UNREADABLE:
        raise PemError("holds a private key that cannot be read") from None


def read_public_keys(data: bytes) -> frozenset[bytes]:
    """
    Return the file's public keys, given bare, in certificates or as halves of private keys.

    :raises PemError: when it holds none, or one that cannot be read.
    """
    found = [public_half(certificate.public_key()) for certificate in _certificates_if_any(data)]
    if _blocks(data, "PRIVATE KEY"):
        found.append(read_private_key(data))
    try:
        found += (public_half(serialization.load_pem_public_key(block)) for block in _blocks(data, "PUBLIC KEY"))
    except UNREADABLE:
        raise PemError("holds a public key that cannot be read") from None
    if not found:
        raise PemError("holds no PEM public key")
    return frozenset(found)


def public_half(key: PublicKeyTypes) -> bytes:
    """Return a public key in its one DER form, for comparing."""
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def may_sign(certificate: x509.Certificate) -> bool:
    """Say whether a certificate is an authority by the rules of Go's crypto/x509, which Kubernetes goes by."""
    try:
        extensions = certificate.extensions
        if certificate.version is x509.Version.v1:
            return True
        if not extensions.get_extension_for_class(x509.BasicConstraints).value.ca:
            return False
        return extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign
    except x509.ExtensionNotFound as err:
        return err.oid == x509.KeyUsage.oid
    except UNREADABLE:
        return False


def chains_to(leaf: x509.Certificate, anchors: Iterable[x509.Certificate], between: Iterable[x509.Certificate]) -> bool:
    """
    Say whether signatures lead from `leaf` to one of `anchors`; validity in time is not looked at.

    The verifier of the cryptography library asks for what the public web asks for, which kubeadm's certificates do not
    fulfil; like Go, this takes every certificate of a CA file for an anchor, self-signed or not.
    """
    anchors = [certificate for certificate in anchors if may_sign(certificate)]
    unused = [certificate for certificate in between if may_sign(certificate)]
    reached = [leaf]
    while reached:
        certificate = reached.pop()
        if any(_issued(certificate, anchor) for anchor in anchors):
            return True
        reached += [each for each in unused if _issued(certificate, each)]
        unused = [each for each in unused if each not in reached]
    return False


def _issued(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (*UNREADABLE, InvalidSignature):
        return False
    return True


def _certificates_if_any(data: bytes) -> tuple[x509.Certificate, ...]:
    return read_certificates(data) if _blocks(data, "CERTIFICATE") else ()


def _blocks(data: bytes, kind: str) -> list[bytes]:
    """Return the blocks whose label ends in `kind`, so that ``EC PRIVATE KEY`` is one and ``EC PARAMETERS`` is not."""
    return [block[0] for block in BLOCK.finditer(data) if block[1].decode().endswith(kind)]
