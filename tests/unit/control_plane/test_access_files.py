"""Whether a set's SSH key and kubeconfig work on another machine, by the rules of ssh and kubectl."""

from __future__ import annotations

import json
from base64 import b64encode, urlsafe_b64encode
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import yaml
from cryptography.hazmat.primitives import serialization

from etcdkeep.control_plane.access_files import check_access, ssh_key_problem
from tests.pki import key_pem, make_authority, make_identity, make_key

NOW = datetime(2026, 11, 23, 3, 0, tzinfo=UTC)
OPENSSH = serialization.PrivateFormat.OpenSSH
TRADITIONAL = serialization.PrivateFormat.TraditionalOpenSSL
KEY = key_pem(make_key("ssh", "ed25519"), OPENSSH)
RSA = key_pem(make_key("ssh", "rsa"), TRADITIONAL)
NOT_AS_SSH_READS = "is not in a form that ssh reads"


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        pytest.param(KEY, None, id="openssh"),
        pytest.param(KEY + b"\n\n", None, id="more-lines-behind"),
        pytest.param(KEY.rstrip(b"\n"), NOT_AS_SSH_READS, id="no-last-newline"),
        pytest.param(KEY.replace(b"\n", b"\r\n"), NOT_AS_SSH_READS, id="crlf"),
        pytest.param(KEY.replace(b"\n", b" "), NOT_AS_SSH_READS, id="spaces-for-newlines"),
        pytest.param(b"\n" + KEY, NOT_AS_SSH_READS, id="empty-line-before"),
        pytest.param(KEY.replace(b"\n", b"\n "), NOT_AS_SSH_READS, id="indented"),
        pytest.param(KEY.replace(b"\n", b"\\n"), NOT_AS_SSH_READS, id="literal-newlines"),
        pytest.param(KEY[:60] + KEY[-40:], "is a private key that cannot be read", id="cut"),
        pytest.param(key_pem(make_key("ssh", "ed25519"), OPENSSH, b"pw"), "has a passphrase", id="passphrase"),
        pytest.param(RSA, None, id="rsa"),
        pytest.param(RSA.rstrip(b"\n"), None, id="rsa-no-last-newline"),
        pytest.param(RSA.replace(b"\n", b"\r\n"), None, id="rsa-crlf"),
        pytest.param("# é\n".encode() + RSA, None, id="rsa-comment"),
        pytest.param(RSA.replace(b"\n", b" "), "holds no private key in a form", id="rsa-spaces"),
        pytest.param(key_pem(make_key("ssh")), None, id="ec-pkcs8"),
        pytest.param(key_pem(make_key("ssh", "ed25519")), "Ed25519 key in PKCS#8", id="ed25519-pkcs8"),
        pytest.param(b"PuTTY-User-Key-File-3: ssh-ed25519\n", "holds no private key in a form", id="putty"),
        pytest.param(b64encode(KEY), "holds no private key in a form", id="base64"),
        pytest.param(b"", "holds no private key in a form", id="empty"),
    ],
)
def test_an_ssh_key_is_as_ssh_reads_it(data, problem):
    found = ssh_key_problem(data)
    assert found is None if problem is None else problem in (found or "")


def b64(data: bytes) -> str:
    return b64encode(data).decode()


def kubeconfig(cluster: dict[str, Any] | None = None, **user: Any) -> bytes:
    document = {
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": {"server": "https://a", **(cluster or {})}}],
        "users": [{"name": "u", "user": user or {"token": "t"}}],
    }
    return yaml.safe_dump(document).encode()


def found(**files: bytes) -> tuple[str, ...]:
    return check_access({"ssh_key": KEY, "known_hosts": b"* ssh-ed25519 AAAA\n", **files}, NOW)


def client(**changes: Any) -> dict[str, str]:
    identity = make_identity("client", NOW, **changes)
    return {"client-certificate-data": b64(identity.crt), "client-key-data": b64(identity.pem_key)}


def token(**claims: Any) -> str:
    return ".".join(
        urlsafe_b64encode(part).decode().rstrip("=") for part in (b"{}", json.dumps(claims).encode(), b"sig")
    )


def test_what_works_is_not_spoken_of():
    assert found() == ()
    authority = {"certificate-authority-data": b64("# Autorité\n".encode() + make_authority("ca", NOW).crt)}
    assert found(kubeconfig=kubeconfig(authority, **client())) == ()
    assert found(kubeconfig=kubeconfig(token=token(exp=(NOW + timedelta(days=1)).timestamp()))) == ()


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (kubeconfig({"certificate-authority": "/k/ca.crt"}), "certificate-authority of cluster 'c' is the file /k/ca.crt, which is not in the set"),
        (kubeconfig({"certificate-authority": "ca.crt"}), "is a relative path"),
        (kubeconfig(**{"client-certificate": "/k/c.crt", "client-key": "/k/c.key"}), "client-key of user 'u' is the file /k/c.key"),
        (kubeconfig(tokenFile="/run/token"), "tokenFile is the file /run/token"),
        (kubeconfig(exec={"apiVersion": "client.authentication.k8s.io/v1beta1", "command": "aws"}), "needs the exec plugin 'aws' on the machine"),
        (kubeconfig({"certificate-authority-data": b64(b"x")}), "has a certificate-authority that holds no PEM certificate"),
        (kubeconfig(**{**client(), "client-key-data": b64(key_pem(make_key("other")))}), "does not match its key"),
        (kubeconfig(**{**client(), "client-key-data": b64(b"x")}), "holds no PEM private key"),
        (kubeconfig(**client(end_days=-1)), "has a client certificate that expired on 2026-11-22"),
        (kubeconfig(token=token(exp=NOW.timestamp())), "has a token that expired at 2026-11-23 03:00 UTC"),
        (b"{", "cannot be used: not YAML"),
        (b"", "cannot be used: it is not a YAML mapping"),
    ],
)  # fmt: skip
def test_what_a_kubeconfig_needs_from_elsewhere_is_said(data, text):
    assert any(text in finding and finding.startswith("kubeconfig ") for finding in found(kubeconfig=data))


@pytest.mark.parametrize("text", ["a.b.c", "e30.e30.x", "..", token(exp="soon"), token(exp=10**30), token(exp=None)])
def test_a_token_that_does_not_say_when_it_ends_is_taken_as_it_is(text):
    assert not any("expired" in finding for finding in found(kubeconfig=kubeconfig(token=text)))


def test_what_is_missing_is_said():
    assert check_access({}, NOW) == (
        "ssh_key is missing",
        "known_hosts names no host, so ssh will ask whether to trust each host",
    )
    assert any(
        finding.startswith("jump_ssh_key is not in a form that ssh") for finding in found(jump_ssh_key=KEY.rstrip())
    )


def test_a_login_by_password_needs_no_key():
    assert check_access({"ssh_password": b"x", "known_hosts": b"* ssh-ed25519 AAAA\n"}, NOW) == ()
