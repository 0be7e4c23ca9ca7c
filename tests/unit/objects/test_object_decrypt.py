"""Values encrypted at rest, made here the way the API server makes them."""

from __future__ import annotations

import base64
import os
from typing import TYPE_CHECKING

import pytest
import yaml
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.padding import PKCS7
from nacl.secret import SecretBox

from etcdkeep.control_plane.encryption import parse_encryption_configuration
from etcdkeep.errors import ValueDamaged, ValueEncrypted
from etcdkeep.objects.decoding.decode import decode
from etcdkeep.objects.decoding.decrypt import AtRestDecrypter
from tests.kubernetes_values import stored

if TYPE_CHECKING:
    from collections.abc import Callable

KEY = b"/registry/secrets/b/a"
SECRET = bytes(range(32))
OTHER = bytes(reversed(range(32)))
CLEAR = stored("v1", "Secret")


def aescbc(clear: bytes, secret: bytes = SECRET, key: bytes = KEY) -> bytes:
    iv = os.urandom(16)
    padder = PKCS7(128).padder()
    encryptor = Cipher(algorithms.AES(secret), modes.CBC(iv)).encryptor()
    return iv + encryptor.update(padder.update(clear) + padder.finalize()) + encryptor.finalize()


def aesgcm(clear: bytes, secret: bytes = SECRET, key: bytes = KEY) -> bytes:
    nonce = os.urandom(12)
    return nonce + AESGCM(secret).encrypt(nonce, clear, key)


def secretbox(clear: bytes, secret: bytes = SECRET, key: bytes = KEY) -> bytes:
    return bytes(SecretBox(secret).encrypt(clear))


SEALERS: dict[str, Callable[..., bytes]] = {"aescbc": aescbc, "aesgcm": aesgcm, "secretbox": secretbox}
every_provider = pytest.mark.parametrize("provider", SEALERS)


def value(provider: str, name: str = "key1", **options: bytes) -> bytes:
    return f"k8s:enc:{provider}:v1:{name}:".encode() + SEALERS[provider](CLEAR, **options)


def decrypter(provider: str, *secrets: bytes, name: str = "key1") -> AtRestDecrypter:
    """Hold keys of one name, one configuration file each."""
    return AtRestDecrypter(
        *(
            parse_encryption_configuration(
                yaml.safe_dump(
                    {
                        "apiVersion": "apiserver.config.k8s.io/v1",
                        "kind": "EncryptionConfiguration",
                        "resources": [
                            {
                                "resources": ["secrets"],
                                "providers": [
                                    {provider: {"keys": [{"name": name, "secret": base64.b64encode(secret).decode()}]}},
                                    {"identity": {}},
                                ],
                            }
                        ],
                    }
                ).encode(),
                "config.yaml",
            )
            for secret in secrets
        )
    )


@every_provider
def test_opens(provider: str) -> None:
    found = decode(KEY, value(provider), mod_revision=7, decrypter=decrypter(provider, SECRET))
    assert (found.kind, found.namespace, found.name) == ("Secret", "b", "a")


@every_provider
def test_value_that_the_identity_provider_left_in_the_clear(provider: str) -> None:
    assert decode(KEY, CLEAR, mod_revision=7, decrypter=decrypter(provider, SECRET)).name == "a"


@every_provider
def test_tries_every_key_of_the_name(provider: str) -> None:
    assert decrypter(provider, OTHER, SECRET).decrypt(KEY, value(provider)) == CLEAR


@every_provider
def test_wrong_key(provider: str) -> None:
    # aescbc has no tag: now and then a wrong key leaves a valid padding, and the value gives it away.
    for _ in range(600 if provider == "aescbc" else 1):
        with pytest.raises(ValueDamaged, match="none of the 1"):
            decrypter(provider, OTHER).decrypt(KEY, value(provider))


@every_provider
def test_key_of_another_name(provider: str) -> None:
    with pytest.raises(ValueEncrypted, match=f"{provider} key 'key2', which is not among"):
        decrypter(provider, SECRET).decrypt(KEY, value(provider, name="key2"))


@every_provider
@pytest.mark.parametrize("kept", [0, 5, 24, 40])
def test_truncated(provider: str, kept: int) -> None:
    head = f"k8s:enc:{provider}:v1:key1:".encode()
    with pytest.raises(ValueDamaged, match="none of the 1"):
        decrypter(provider, SECRET).decrypt(KEY, head + value(provider)[len(head) :][:kept])


def test_value_moved_to_another_key() -> None:
    with pytest.raises(ValueDamaged, match="none of the 1"):
        decrypter("aesgcm", SECRET).decrypt(b"/registry/secrets/b/other", value("aesgcm"))


@pytest.mark.parametrize(
    ("head", "reason"),
    [
        (b"k8s:enc:kms:v1:gke:", "KMS plugin 'gke'"),
        (b"k8s:enc:kms:v2:gke:", "never leaves that plugin"),
        (b"k8s:enc:aesgcm:v9:key1:", "aesgcm v9, which is unknown"),
        (b"k8s:enc:rot13:v1:key1:", "rot13 v1, which is unknown"),
    ],
)
def test_what_cannot_be_opened_here(head: bytes, reason: str) -> None:
    with pytest.raises(ValueEncrypted, match=reason):
        decrypter("aesgcm", SECRET).decrypt(KEY, head + bytes(64))


def test_head_without_a_body() -> None:
    with pytest.raises(ValueDamaged, match="names no provider"):
        decrypter("aesgcm", SECRET).decrypt(KEY, b"k8s:enc:aesgcm")


def test_errors_name_the_value_and_no_secret() -> None:
    with pytest.raises(ValueDamaged) as caught:
        decode(KEY, value("aesgcm"), mod_revision=7, decrypter=decrypter("aesgcm", OTHER))
    assert "/registry/secrets/b/a" in str(caught.value)
    assert base64.b64encode(OTHER).decode() not in str(caught.value)
