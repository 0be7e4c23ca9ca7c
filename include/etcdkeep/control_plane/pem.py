"""Keys and certificates in PEM files, read as tolerantly as Kubernetes reads them; no message quotes a file."""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from hashlib import sha256
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes

BLOCK = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----.*?-----END \1-----", re.DOTALL)
SSH_KEY = re.compile(rb"-----BEGIN ([A-Z0-9 ]*PRIVATE KEY)-----(.*?)-----END \1-----", re.DOTALL)
WRAPPED_AT_MOST = 3
"""A Secret's data pasted into a Secret's data is base64 twice; a third time was seen with a secrets backend around that."""
NOT_PRIVATE = (
    (rb"PuTTY-User-Key-File-\d", "is a PuTTY key; convert it: puttygen KEY.ppk -O private-openssh-new -o KEY"),
    (rb"---- BEGIN SSH2 ", "is a key in ssh.com's format; convert it: puttygen KEY -O private-openssh-new -o NEW"),
    (rb"-----BEGIN CERTIFICATE", "holds a certificate, not a private key; give the private key"),
    (
        rb"^\s*(ssh-|ecdsa-sha2-|sk-)|-----BEGIN [A-Z ]*PUBLIC KEY|---- BEGIN SSH2 PUBLIC KEY",
        "holds a public key, not a private one; give the private one",
    ),
)
LOCKED = (
    "is protected by a passphrase; give that too (private_key_passphrase in its connection, key_passphrase_file beside its "
    "file), or the key without one, from a secrets backend (ssh-keygen -p -f KEY removes it)"
)
UNOPENED = "cannot be opened with the passphrase given; correct the passphrase, or copy the whole key again"
UNSUPPORTED = "is of a kind that is not supported; give an RSA, ECDSA or Ed25519 key"
LINE, LINE_AT_MOST = 64, 76
CUT_OFF = "holds no private key in PEM or OpenSSH format, or is cut off or altered; copy the whole file again"
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
        raise PemError("holds a private key with a password, which no control plane can use")
    try:
        return public_half(serialization.load_pem_private_key(blocks[0], password=None).public_key())
    except UNREADABLE:
        raise PemError("holds a private key that cannot be read") from None


def normalise_private_key(data: bytes, passphrase: bytes = b"") -> bytes:
    """
    Return an SSH private key as OpenSSH reads it from a file, whatever it went through on its way here.

    Taken: no last line break, CRLF, indented lines, spaces or literal ``\\n`` in place of line breaks, quotes around it,
    UTF-16, base64 around it (up to three times). An Ed25519 key in PKCS#8, which OpenSSH before 9.6 does not read, becomes
    one in OpenSSH's own format; every other key keeps its format, or has PEM's own when it was behind a passphrase.

    :param passphrase: That of the key; one that the key does not need is not looked at.
    :raises PemError: when it is no private key, or one behind another passphrase; nothing of it is quoted.
    """
    text = _unwrapped(data)
    found = SSH_KEY.search(text)
    if found is None:
        raise PemError(next((words for begin, words in NOT_PRIVATE if re.search(begin, text)), CUT_OFF))
    label, body = found[1], found[2]
    if b"Proc-Type:" in body:  # its head is made of lines, which must stay
        return _unlocked(b"\n".join((*(line.strip() for line in found[0].splitlines()), b"")), passphrase)
    pem = _pem(label, body.split())
    return _unlocked(pem, passphrase) if b"ENCRYPTED" in label else _checked(pem, passphrase)


def _unlocked(pem: bytes, passphrase: bytes) -> bytes:
    """Return a key that was behind a passphrase: the same bytes each time, since a retry stores the same archive."""
    if not passphrase:
        raise PemError(LOCKED)
    load = serialization.load_ssh_private_key if b"OPENSSH PRIVATE KEY" in pem else serialization.load_pem_private_key
    try:
        key = load(pem, password=passphrase)
    except UnsupportedAlgorithm:
        raise PemError(UNSUPPORTED) from None
    except (ValueError, TypeError):
        raise PemError(UNOPENED) from None
    if isinstance(key, Ed25519PrivateKey):
        return _openssh_ed25519(key)
    try:
        return key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
        )
    except ValueError:
        raise PemError(UNSUPPORTED) from None


def _checked(pem: bytes, passphrase: bytes) -> bytes:
    openssh = b"OPENSSH PRIVATE KEY" in pem
    try:
        key = (serialization.load_ssh_private_key if openssh else serialization.load_pem_private_key)(
            pem, password=None
        )
    except TypeError:
        return _unlocked(pem, passphrase)
    except UnsupportedAlgorithm:
        raise PemError(UNSUPPORTED) from None
    except ValueError:
        raise PemError(CUT_OFF) from None
    return _openssh_ed25519(key) if isinstance(key, Ed25519PrivateKey) and not openssh else pem


def _openssh_ed25519(key: Ed25519PrivateKey) -> bytes:
    """Return a key in OpenSSH's format (PROTOCOL.key), the same bytes each time: a retry stores the same archive."""
    public = key.public_key().public_bytes_raw()
    both = _field(b"ssh-ed25519") + _field(public)
    check = sha256(public).digest()[:4]
    private = check + check + both + _field(key.private_bytes_raw() + public) + _field(b"")
    private += bytes(range(1, 1 + -len(private) % 8))
    unlocked = _field(b"none") + _field(b"none") + _field(b"")
    blob = b"openssh-key-v1\0" + unlocked + (1).to_bytes(4) + _field(both) + _field(private)
    return _pem(b"OPENSSH PRIVATE KEY", [b64encode(blob)])


def _field(data: bytes) -> bytes:
    return len(data).to_bytes(4) + data


def _pem(label: bytes, lines: Sequence[bytes]) -> bytes:
    """Return a PEM block; its lines stay as they are, unless they were joined to one."""
    if max(map(len, lines), default=0) > LINE_AT_MOST:
        body = b"".join(lines)
        lines = [body[at : at + LINE] for at in range(0, len(body), LINE)]
    return b"\n".join((b"-----BEGIN %b-----" % label, *lines, b"-----END %b-----\n" % label))


def _unwrapped(data: bytes) -> bytes:
    """Return the text in which a key's lines stand, with what was put around it taken off."""
    for _ in range(WRAPPED_AT_MOST + 1):
        if data.startswith((b"\xff\xfe", b"\xfe\xff")):
            data = data.decode("utf-16", errors="replace").encode()
        data = data.removeprefix(b"\xef\xbb\xbf").strip().strip(b"\"'")
        data = re.sub(rb"\\r\\n|\\[nr]", b"\n", data)
        if b"-----BEGIN" in data or b"PuTTY-User-Key-File" in data:
            return data
        try:
            data = b64decode(b"".join(data.split()), validate=True) or data
        except (Base64Error, ValueError):
            return data
    return data


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
