"""SSH private keys as people have them: taken where OpenSSH's own file can be made of them, else the cause is named."""

from __future__ import annotations

import shutil
import subprocess
from base64 import b64encode
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from hypothesis import given
from hypothesis import strategies as st

from etcdkeep.control_plane.pem import PemError, normalise_private_key

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PEM, OPEN = serialization.Encoding.PEM, serialization.NoEncryption()
OPENSSH, PKCS8, TRADITIONAL = (
    serialization.PrivateFormat.OpenSSH,
    serialization.PrivateFormat.PKCS8,
    serialization.PrivateFormat.TraditionalOpenSSL,
)
RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
ECDSA = ec.generate_private_key(ec.SECP256R1())
ED25519 = ed25519.Ed25519PrivateKey.generate()
KEYS = [
    pytest.param(RSA.private_bytes(PEM, OPENSSH, OPEN), id="rsa-openssh"),
    pytest.param(RSA.private_bytes(PEM, TRADITIONAL, OPEN), id="rsa-pkcs1"),
    pytest.param(RSA.private_bytes(PEM, PKCS8, OPEN), id="rsa-pkcs8"),
    pytest.param(ECDSA.private_bytes(PEM, OPENSSH, OPEN), id="ecdsa-openssh"),
    pytest.param(ECDSA.private_bytes(PEM, TRADITIONAL, OPEN), id="ecdsa-sec1"),
    pytest.param(ED25519.private_bytes(PEM, OPENSSH, OPEN), id="ed25519-openssh"),
    pytest.param(ED25519.private_bytes(PEM, PKCS8, OPEN), id="ed25519-pkcs8"),
]
WRAPPINGS: list[Callable[[bytes], bytes]] = [
    lambda key: key,
    lambda key: key.rstrip(),
    lambda key: b"\n\n" + key + b"\n\n",
    lambda key: key.replace(b"\n", b"\r\n"),
    lambda key: key.replace(b"\n", b"\r"),
    lambda key: key.replace(b"\n", b" "),
    lambda key: key.replace(b"\n", b""),
    lambda key: key.replace(b"\n", rb"\n"),
    lambda key: key.replace(b"\n", rb"\r\n"),
    lambda key: b'"' + key.replace(b"\n", rb"\n") + b'"',
    lambda key: b"".join(b"    " + line + b"\n" for line in key.splitlines()),
    lambda key: b"\xef\xbb\xbf" + key,
    lambda key: key.decode().encode("utf-16"),
    lambda key: b64encode(key),
    lambda key: b64encode(b64encode(key)) + b"\n",
    lambda key: b64encode(key.replace(b"\n", rb"\n")),
    lambda key: b64encode(key.rstrip())[:76] + b"\n" + b64encode(key.rstrip())[76:],
    lambda key: b"Bag Attributes\n  friendlyName: x\n" + key,
]
NAMES = [
    "as-it-is",
    "no-last-line-break",
    "blank-lines",
    "crlf",
    "cr",
    "spaces",
    "joined",
    "literal-n",
    "literal-rn",
    "quoted",
    "indented",
    "bom",
    "utf-16",
    "base64",
    "base64-twice",
    "base64-of-literal",
    "base64-in-lines",
    "words-before",
]


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("wrap", WRAPPINGS, ids=NAMES)
def test_every_wrapping_gives_one_file_that_ssh_reads(key: bytes, wrap: Callable[[bytes], bytes]) -> None:
    found = normalise_private_key(wrap(key))
    assert found == normalise_private_key(key)
    assert found == normalise_private_key(found)
    assert found.endswith(b"PRIVATE KEY-----\n")
    assert b"\r" not in found


@pytest.mark.parametrize("key", KEYS)
def test_openssh_itself_reads_it(key: bytes, tmp_path: Path) -> None:
    if shutil.which("ssh-keygen") is None:
        pytest.skip("needs ssh-keygen: apt-get install openssh-client")
    file = tmp_path / "key"
    file.write_bytes(normalise_private_key(key.replace(b"\n", b" ")))
    file.chmod(0o600)
    printed = subprocess.run(["ssh-keygen", "-y", "-P", "", "-f", file], check=True, capture_output=True).stdout
    load = serialization.load_ssh_private_key if b"OPENSSH" in key else serialization.load_pem_private_key
    public = load(key, None).public_key()
    expected = public.public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    assert printed.split()[:2] == expected.split()[:2]


LOCKED = serialization.BestAvailableEncryption(b"secret")
PPK = b"PuTTY-User-Key-File-3: ssh-ed25519\r\nEncryption: none\r\nComment: x\r\nPublic-Lines: 2\r\nAAAA\r\n"
PUBLIC = ED25519.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
CANARY = ED25519.private_bytes(PEM, OPENSSH, OPEN)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        pytest.param(PPK, "PuTTY key; convert it: puttygen", id="putty"),
        pytest.param(PPK.replace(b"-3", b"-2"), "PuTTY key; convert it: puttygen", id="putty-2"),
        pytest.param(b64encode(PPK), "PuTTY key", id="putty-base64"),
        pytest.param(b"---- BEGIN SSH2 ENCRYPTED PRIVATE KEY ----\nx", "ssh.com", id="ssh2"),
        pytest.param(ED25519.private_bytes(PEM, OPENSSH, LOCKED), "protected by a passphrase", id="locked-openssh"),
        pytest.param(RSA.private_bytes(PEM, PKCS8, LOCKED), "protected by a passphrase", id="locked-pkcs8"),
        pytest.param(RSA.private_bytes(PEM, TRADITIONAL, LOCKED), "protected by a passphrase", id="locked-pkcs1"),
        pytest.param(b64encode(ED25519.private_bytes(PEM, OPENSSH, LOCKED)), "passphrase", id="locked-base64"),
        pytest.param(PUBLIC, "holds a public key", id="public"),
        pytest.param(
            b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----", "holds a public key", id="public-pem"
        ),
        pytest.param(b"-----BEGIN CERTIFICATE-----\nAAAA", "holds a certificate", id="certificate"),
        pytest.param(CANARY[:200], "cut off", id="cut-off"),
        pytest.param(CANARY[:100] + CANARY[180:], "cut off", id="hole"),
        pytest.param(CANARY.replace(CANARY[100:104], b"~~~~"), "cut off", id="no-base64"),
        pytest.param(b"", "no private key", id="empty"),
        pytest.param(b"password", "no private key", id="words"),
        pytest.param(bytes(range(256)), "no private key", id="bytes"),
    ],
)
def test_what_is_no_usable_key_is_named_and_not_quoted(data: bytes, said: str) -> None:
    with pytest.raises(PemError, match=said) as caught:
        normalise_private_key(data)
    assert caught.value.__cause__ is None
    secrets = [line.decode() for line in data.split() + CANARY.split() if len(line) > 12 and line.isascii()]
    assert not any(secret in str(caught.value) for secret in secrets if "PuTTY" not in secret)


@given(st.binary(max_size=400) | st.binary(max_size=200).map(b64encode))
def test_no_bytes_end_in_another_error(data: bytes) -> None:
    with pytest.raises(PemError):
        normalise_private_key(data)


@pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="needs ssh-keygen: apt-get install openssh-client")
@pytest.mark.parametrize("key", [RSA, ECDSA, ED25519])
@pytest.mark.parametrize("form", [OPENSSH, PKCS8, TRADITIONAL])
@pytest.mark.parametrize("wrap", [lambda key: key, lambda key: key.replace(b"\n", b"\r\n"), b64encode])
def test_a_passphrase_opens_a_key_which_ssh_then_reads(key, form, wrap, tmp_path):
    if key is ED25519 and form is TRADITIONAL:
        form = OPENSSH
    locked = wrap(key.private_bytes(PEM, form, LOCKED))
    opened = normalise_private_key(locked, b"secret")
    assert opened == normalise_private_key(locked, b"secret") == normalise_private_key(opened, b"not looked at")
    (tmp_path / "key").write_bytes(opened)
    (tmp_path / "key").chmod(0o600)
    shown = subprocess.run(
        ["ssh-keygen", "-y", "-P", "", "-f", tmp_path / "key"], capture_output=True, check=True
    ).stdout
    public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    assert shown.split()[:2] == public.split()
    with pytest.raises(PemError, match="cannot be opened with the passphrase given"):
        normalise_private_key(locked, b"another")
