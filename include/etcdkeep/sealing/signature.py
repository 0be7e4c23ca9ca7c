"""
The detached Ed25519 signature of a manifest, in the form that ``openssl pkeyutl -verify -rawin`` reads.

Sealing keeps a set secret; only the signature says that it is ours (a recipient's public key is enough to seal).
"""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from etcdkeep.errors import ConfigError, SecretUnavailable, SignatureInvalid

if TYPE_CHECKING:
    from collections.abc import Iterable


def generate_signing_key() -> tuple[bytes, str]:
    """
    Make a new key.

    :return: Private key as PKCS#8 PEM, and the public key as base64 of its 32 bytes.
    """
    key = Ed25519PrivateKey.generate()
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return pem, public_key_text(key.public_key())


def load_signing_key(pem: bytes, trusted: Iterable[str]) -> Ed25519PrivateKey:
    """
    Read the private key from PKCS#8 PEM.

    :param trusted: The configured public keys; what the key signs must verify with one of them.
    :raises SecretUnavailable: when `pem` is no unencrypted Ed25519 private key.
    :raises ConfigError: when its public key is not trusted.
    """
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except (ValueError, TypeError) as err:
        raise SecretUnavailable(
            "the signing key cannot be read: expected an unencrypted Ed25519 key as PKCS#8 PEM (python -m etcdkeep keygen makes one)."
        ) from err
    if not isinstance(key, Ed25519PrivateKey):
        raise SecretUnavailable(
            f"the signing key is a {type(key).__name__}; expected Ed25519 (python -m etcdkeep keygen makes one)."
        )
    if public_key_text(key.public_key()) not in trusted:
        raise ConfigError(
            f"the signing key's public key {public_key_text(key.public_key())} is not among signing.public_keys: "
            "its sets would count as forged. Add it there."
        )
    return key


def parse_public_key(text: str) -> Ed25519PublicKey:
    """:raises ValueError: when `text` is not base64 of 32 bytes."""
    try:
        raw = base64.b64decode(text, validate=True)
        return Ed25519PublicKey.from_public_bytes(raw)
    except (binascii.Error, ValueError) as err:
        raise ValueError(f"{text[:16]!r}… is not an Ed25519 public key: expected base64 of 32 bytes") from err


def public_key_text(key: Ed25519PublicKey) -> str:
    """Return the key as base64 of its 32 raw bytes, the form the configuration takes."""
    return base64.b64encode(key.public_bytes_raw()).decode()


def public_key_pem(text: str) -> str:
    """Return a configured public key as PEM, for ``openssl``."""
    return (
        parse_public_key(text)
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        .decode()
    )


def check_signature(what: str, data: bytes, signature: bytes, trusted: Iterable[str]) -> str:
    """
    Find the trusted key that signed `data`.

    :param what: Name of the signed thing, for the message.
    :return: That key, as configured.
    :raises SignatureInvalid: when none did.
    """
    trusted = tuple(trusted)
    for text in trusted:
        try:
            parse_public_key(text).verify(signature, data)
        except InvalidSignature:
            continue
        return text
    raise SignatureInvalid(
        f"{what}: the signature is of none of the {len(trusted)} trusted key(s): it was altered, or signed by another key. "
        "Compare signing.public_keys in the configuration; do not restore from this set."
    )
