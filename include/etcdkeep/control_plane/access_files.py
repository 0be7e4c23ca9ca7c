"""
Whether the archive ``access`` of a set works on another machine: its SSH keys as ssh reads them, its kubeconfig as kubectl
does. No message quotes a file.
"""

from __future__ import annotations

import binascii
import json
import re
from base64 import urlsafe_b64decode
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

from etcdkeep.control_plane.pem import PemError, public_half, read_certificates, read_private_key
from etcdkeep.kubeconfig.fields import KubeconfigProblem, Material
from etcdkeep.kubeconfig.reading import KubeAccess, parse_kubeconfig, read_access

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

SSH_KEY, SSH_PASSWORD, KNOWN_HOSTS, KUBECONFIG = "ssh_key", "ssh_password", "known_hosts", "kubeconfig"
OPENSSH_BEGIN, OPENSSH_END = b"-----BEGIN OPENSSH PRIVATE KEY-----\n", b"\n-----END OPENSSH PRIVATE KEY-----\n"
_PEM_KEY = re.compile(rb"^-----BEGIN ([A-Z ]*PRIVATE KEY)-----[ \t\r]*\n.*?^-----END \1-----", re.DOTALL | re.MULTILINE)
_JWT = re.compile(r"[\w-]+\.([\w-]+)\.[\w-]+")


def check_access(files: Mapping[str, bytes], now: datetime) -> tuple[str, ...]:
    """
    Return what does not work elsewhere, each with its file's name; nothing when all does.

    :param files: The archive's files by name.
    """
    return tuple(_findings(files, now))


def ssh_key_problem(data: bytes) -> str | None:
    """Return why ssh cannot use a private key file, worded to follow the file's name; None when it can."""
    is_openssh = b"BEGIN OPENSSH PRIVATE KEY" in data
    if is_openssh and not (data.startswith(OPENSSH_BEGIN) and OPENSSH_END in data):
        return "is not in a form that ssh reads: an OpenSSH key starts in the first line, has line feeds only, and ends with a line feed"
    found = _PEM_KEY.search(data)
    if found is None:
        return "holds no private key in a form that ssh reads"
    try:
        if is_openssh:
            serialization.load_ssh_private_key(data, None)
            return None
        key = serialization.load_pem_private_key(found[0] + b"\n", None)
    except TypeError:
        return "has a passphrase, which is not in the set"
    except (ValueError, UnsupportedAlgorithm):
        return "is a private key that cannot be read"
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return "is an Ed25519 key in PKCS#8, which ssh does not read; convert it to OpenSSH's own form"
    return None


def kubeconfig_problems(data: bytes, now: datetime) -> Iterator[str]:
    """Yield what keeps a kubeconfig from working on another machine, worded to follow the file's name."""
    try:
        access = read_access(parse_kubeconfig(data), None, None)
    except KubeconfigProblem as err:
        yield f"cannot be used: {err}"
        return
    for material in (access.authority, access.certificate, access.key):
        if material is not None and material.path is not None:
            yield f"works only on the machine where it was made: {material.what} is the file {material.path}, which is not in the set"
    if access.token_file is not None:
        yield f"works only on the machine where it was made: tokenFile is the file {access.token_file}, which is not in the set"
    if access.plugin is not None:
        yield f"needs the exec plugin {access.plugin.command!r} on the machine where it is used"
    yield from _authority(access.authority)
    yield from _client(access, now)
    if (end := _token_end(access.token)) is not None and end <= now:
        yield f"has a token that expired at {end:%Y-%m-%d %H:%M} UTC"


def _findings(files: Mapping[str, bytes], now: datetime) -> Iterator[str]:
    if SSH_KEY not in files and SSH_PASSWORD not in files:
        yield f"{SSH_KEY} is missing"
    for name in sorted(files):
        if name.endswith(SSH_KEY) and (problem := ssh_key_problem(files[name])):
            yield f"{name} {problem}"
    if not files.get(KNOWN_HOSTS, b"").strip():
        yield f"{KNOWN_HOSTS} names no host, so ssh will ask whether to trust each host"
    if KUBECONFIG in files:
        yield from (f"{KUBECONFIG} {problem}" for problem in kubeconfig_problems(files[KUBECONFIG], now))


def _authority(material: Material | None) -> Iterator[str]:
    if material is None or material.data is None:
        return
    try:
        read_certificates(material.data)
    except PemError as err:
        yield f"has a certificate-authority that {err}"


def _client(access: KubeAccess, now: datetime) -> Iterator[str]:
    certificate = access.certificate.data if access.certificate else None
    key = access.key.data if access.key else None
    if certificate is None or key is None:
        return
    try:
        leaf = read_certificates(certificate)[0]
        half = read_private_key(key)
    except PemError as err:
        yield f"has a client certificate or key that {err}"
        return
    if public_half(leaf.public_key()) != half:
        yield "has a client certificate that does not match its key"
    if leaf.not_valid_after_utc <= now:
        yield f"has a client certificate that expired on {leaf.not_valid_after_utc:%Y-%m-%d}"


def _token_end(token: str) -> datetime | None:
    """Return when a service account's token ends, as it says itself; None when it does not say."""
    found = _JWT.fullmatch(token)
    if found is None:
        return None
    try:
        end = json.loads(urlsafe_b64decode(found[1] + "=" * (-len(found[1]) % 4)))["exp"]
        return datetime.fromtimestamp(end, UTC)
    except (binascii.Error, ValueError, KeyError, TypeError, OverflowError, OSError):
        return None
