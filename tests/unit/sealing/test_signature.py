"""Only the trusted key's signature over the exact bytes counts."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import given
from hypothesis import strategies as st

from etcdkeep.errors import ConfigError, SecretUnavailable, SignatureInvalid
from etcdkeep.sealing.signature import (
    check_signature,
    generate_signing_key,
    load_signing_key,
    parse_public_key,
    public_key_pem,
)
from tests.builders import signing_pair

PEM, PUBLIC = signing_pair()
OTHER = signing_pair("other")[1]


@given(st.binary(), st.integers(min_value=0))
def test_a_signature_holds_for_its_bytes_alone(data, position):
    signature = load_signing_key(PEM, [PUBLIC]).sign(data)
    assert check_signature("m", data, signature, [OTHER, PUBLIC]) == PUBLIC
    altered = bytearray(signature)
    altered[position % len(altered)] ^= 1
    for bytes_, sign in ((data + b" ", signature), (data, bytes(altered)), (data, b""), (data, signature[:-1])):
        with pytest.raises(SignatureInvalid, match=r"^m: the signature is of none of the 2 trusted key\(s\)"):
            check_signature("m", bytes_, sign, [OTHER, PUBLIC])


def test_a_stranger_s_signature_is_invalid():
    with pytest.raises(SignatureInvalid):
        check_signature("m", b"x", load_signing_key(PEM, [PUBLIC]).sign(b"x"), [OTHER])


def test_a_key_that_nobody_trusts_signs_nothing():
    with pytest.raises(ConfigError, match=r"is not among signing\.public_keys"):
        load_signing_key(PEM, [OTHER])


def rsa_pem(password: bytes | None = None) -> bytes:
    wrap = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    key = rsa.generate_private_key(65537, 2048)
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, wrap)


@pytest.mark.parametrize(
    "pem", [pytest.param(b"", id="empty"), pytest.param(PEM[:60], id="cut"), pytest.param(rsa_pem(b"secret"), id="passphrase"), pytest.param(rsa_pem(), id="rsa")]
)  # fmt: skip
def test_another_key_file_says_what_is_expected(pem):
    with pytest.raises(SecretUnavailable, match="Ed25519"):
        load_signing_key(pem, [PUBLIC])


def test_a_new_pair_fits_together_and_gives_pem_for_openssl():
    pem, public = generate_signing_key()
    load_signing_key(pem, [public])
    assert public_key_pem(public).startswith("-----BEGIN PUBLIC KEY-----")


@pytest.mark.parametrize("text", ["", "?", "c2hvcnQ=", PUBLIC + PUBLIC])
def test_a_public_key_is_base64_of_32_bytes(text):
    with pytest.raises(ValueError, match="is not an Ed25519 public key"):
        parse_public_key(text)
