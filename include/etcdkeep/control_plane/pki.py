"""
Checking a control plane's certificates and keys, as read from a node archive.

What kubeadm names, and what the caller requires, must be sound: a fault there is a problem, and the set is not good.
Whatever else lies beside it is looked at too, but an old copy of a certificate must not spoil a backup: a fault there
is a warning. No sentence holds key material.
"""

from __future__ import annotations

import base64
import binascii
import posixpath
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from cryptography.hazmat.primitives import hashes

from etcdkeep.control_plane.pem import (
    PemError,
    chains_to,
    may_sign,
    public_half,
    read_certificates,
    read_private_key,
    read_public_keys,
)
from etcdkeep.errors import ConfigError
from etcdkeep.safe_yaml import read_yaml

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from cryptography import x509

CLUSTER_CA = "pki/ca.crt"
AUTHORITIES = (CLUSTER_CA, "pki/etcd/ca.crt", "pki/front-proxy-ca.crt")
ISSUERS: Mapping[str, str] = {
    "pki/apiserver.crt": CLUSTER_CA,
    "pki/apiserver-kubelet-client.crt": CLUSTER_CA,
    "pki/front-proxy-client.crt": "pki/front-proxy-ca.crt",
    "pki/apiserver-etcd-client.crt": "pki/etcd/ca.crt",
    "pki/etcd/healthcheck-client.crt": "pki/etcd/ca.crt",
    "pki/etcd/peer.crt": "pki/etcd/ca.crt",
    "pki/etcd/server.crt": "pki/etcd/ca.crt",
}
"""Certificate → the authority by which kubeadm has it signed."""
SERVICE_ACCOUNT_KEY = "pki/sa.key"
SERVICE_ACCOUNT_PUBLIC = "pki/sa.pub"
ADMIN_KUBECONFIG = "admin.conf"
KUBEADM_FILES = frozenset(
    {ADMIN_KUBECONFIG, SERVICE_ACCOUNT_KEY, SERVICE_ACCOUNT_PUBLIC}
    | {path.removesuffix(".crt") + suffix for path in (*AUTHORITIES, *ISSUERS) for suffix in (".crt", ".key")}
)
"""Files in which a fault is a problem even where they are not required."""
CERTIFICATE_SUFFIXES = (".crt", ".cer", ".pem")
MODE_OTHERS_READ = 0o004


@dataclass(frozen=True)
class PkiReport:
    """
    What the check found.

    :param problems: Why the archive is not good, one sentence each.
    :param warnings: What somebody should look at.
    :param ca_fingerprint: SHA-256 of the DER form of the first certificate of ``pki/ca.crt``, hexadecimal.
    :param expires_at: When the first certificate in use expires.
    :param expires_first: Which file that is.
    """

    problems: tuple[str, ...]
    warnings: tuple[str, ...]
    ca_fingerprint: str | None
    expires_at: datetime | None
    expires_first: str | None


def ca_fingerprint(certificate_pem: bytes) -> str:
    """
    Return the SHA-256 of a CA file's first certificate (DER), hexadecimal: the cluster's identity.

    :raises ConfigError: when the file holds no certificate.
    """
    try:
        return _fingerprint(read_certificates(certificate_pem)[0])
    except PemError as err:
        raise ConfigError(f"the cluster's CA file {err}; it must be the node's {CLUSTER_CA}") from err


def check_pki(
    files: Mapping[str, bytes],
    *,
    required: Sequence[str],
    now: datetime,
    warning_days: int,
    modes: Mapping[str, int] | None = None,
) -> PkiReport:
    """
    Check that an archive's certificates and keys are there, belong together and are valid.

    A missing CA *key* is no problem unless it is required: with kubeadm's external CA there is none.

    :param files: Name in the archive (``pki/ca.crt``, ``admin.conf``) → content.
    :param required: Names without which the archive is not complete.
    :param now: Aware; validity is judged at this time.
    :param warning_days: A certificate that expires within them gives a warning.
    :param modes: Permission bits on the node; a private key that every user there can read gives a warning.
    """
    check = _Check(files, frozenset(required), now, timedelta(days=warning_days))
    check.presence()
    for path in sorted(files):
        if path.endswith(CERTIFICATE_SUFFIXES):
            check.certificate_file(path)
        elif path.endswith(".conf") and (path in check.named or b"client-certificate-data" in files[path]):
            check.kubeconfig(path)
        elif path.endswith(".key") and path in check.named:
            check.private_key(path)
        elif path.startswith("manifests/") and path in check.named:
            check.manifest(path)
    check.service_account()
    check.modes(modes or {})
    expires_at, expires_first = min(check.expiries, default=(None, None))
    cluster_ca = check.authorities.get(CLUSTER_CA)
    return PkiReport(
        problems=tuple(check.problems),
        warnings=tuple(check.warnings),
        ca_fingerprint=_fingerprint(cluster_ca[0]) if cluster_ca else None,
        expires_at=expires_at,
        expires_first=expires_first,
    )


class _Check:
    """
    One run over an archive, collecting what it finds.

    :param named: The files in which a fault is a problem.
    """

    def __init__(
        self, files: Mapping[str, bytes], required: frozenset[str], now: datetime, warning_time: timedelta
    ) -> None:
        self.files = files
        self.required = required
        self.named = required.union(KUBEADM_FILES)
        self.now = now
        self.warning_time = warning_time
        self.problems: list[str] = []
        self.warnings: list[str] = []
        self.expiries: list[tuple[datetime, str]] = []
        self._halves: dict[str, bytes | PemError] = {}
        self.authorities = {path: self._readable(path) for path in AUTHORITIES}

    def fault(self, path: str, what: str) -> None:
        (self.problems if path in self.named else self.warnings).append(f"{path} {what}")

    def presence(self) -> None:
        for path in sorted(self.required):
            if path not in self.files:
                self.problems.append(f"{path} is missing: the archive is incomplete, look for the file on the node")
        for path in sorted(self.named):
            if path in self.files and not self.files[path].strip():
                self.problems.append(f"{path} is empty: check it on the node")

    def certificate_file(self, path: str) -> None:
        data = self.files[path]
        if not data.strip() or (path not in self.named and b"CERTIFICATE" not in data):
            return
        try:
            certificates = read_certificates(data)
        except PemError as err:
            self.fault(path, str(err))
            return
        if path in AUTHORITIES:
            self._authority(path, certificates)
        else:
            self._validity(path, certificates[0])
            self._chain(path, certificates, ISSUERS.get(path))
        self._key_match(path, certificates)

    def private_key(self, path: str) -> None:
        half = self._half(path)
        if isinstance(half, PemError) and self.files[path].strip():
            self.fault(path, str(half))

    def kubeconfig(self, path: str) -> None:
        if not self.files[path].strip():
            return
        try:
            document = read_yaml(self.files[path], path)
        except ConfigError:
            self.fault(path, "is not valid YAML")
            return
        users = document.get("users") if isinstance(document, dict) else None
        if not isinstance(users, list) or not users:
            self.fault(path, "is not a kubeconfig with a user")
            return
        for entry in users:
            user = entry.get("user") if isinstance(entry, dict) else None
            self._kubeconfig_user(path, user if isinstance(user, dict) else {})

    def manifest(self, path: str) -> None:
        if not self.files[path].strip():
            return
        try:
            document = read_yaml(self.files[path], path)
        except ConfigError:
            document = None
        if not isinstance(document, dict) or document.get("kind") != "Pod":
            self.fault(path, "is not a manifest of a static pod")

    def service_account(self) -> None:
        public = self.files.get(SERVICE_ACCOUNT_PUBLIC, b"")
        if not public.strip():
            return
        try:
            known = read_public_keys(public)
        except PemError as err:
            self.fault(SERVICE_ACCOUNT_PUBLIC, str(err))
            return
        signing = self._half(SERVICE_ACCOUNT_KEY)
        if isinstance(signing, bytes) and signing not in known:
            self.fault(SERVICE_ACCOUNT_PUBLIC, f"does not match {SERVICE_ACCOUNT_KEY}: tokens would be refused")

    def modes(self, modes: Mapping[str, int]) -> None:
        for path, data in sorted(self.files.items()):
            if modes.get(path, 0) & MODE_OTHERS_READ and (b"PRIVATE KEY" in data or b"client-key-data" in data):
                self.warnings.append(
                    f"{path} holds a private key that every user of the node can read (mode {modes[path]:04o}); "
                    "make it 0600 there"
                )

    def _half(self, path: str) -> bytes | PemError:
        """Return what a key file has in common with its certificate; proving an RSA key is slow, so it is done once."""
        if path not in self._halves:
            try:
                self._halves[path] = read_private_key(self.files.get(path, b""))
            except PemError as err:
                self._halves[path] = err
        return self._halves[path]

    def _readable(self, path: str) -> tuple[x509.Certificate, ...]:
        try:
            return read_certificates(self.files.get(path, b""))
        except PemError:
            return ()

    def _authority(self, path: str, certificates: Sequence[x509.Certificate]) -> None:
        if not any(may_sign(certificate) for certificate in certificates):
            self.fault(path, "is not the certificate of an authority (CA:TRUE, keyCertSign)")
        # In a bundle made for a change of authorities the old one may run out while the new one serves.
        self._validity(path, max(certificates, key=lambda certificate: certificate.not_valid_after_utc))
        key = path.removesuffix(".crt") + ".key"
        if key not in self.files and key not in self.required:
            self.warnings.append(
                f"{key} is not in the archive: new certificates cannot be issued from it (external CA)"
            )

    def _validity(self, path: str, certificate: x509.Certificate) -> None:
        start, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
        expired = end < self.now
        if path in self.named or not expired:
            self.expiries.append((end, path))
        if expired:
            self.fault(path, f"expired on {end:%Y-%m-%d}, {(self.now - end).days} days ago; renew it on the node")
        elif start > self.now:
            self.fault(path, f"is valid only from {start:%Y-%m-%d %H:%M} UTC; compare the clocks")
        elif end < self.now + self.warning_time:
            self.warnings.append(
                f"{path} expires on {end:%Y-%m-%d}, in {(end - self.now).days} days; renew it on the node"
            )

    def _chain(self, path: str, certificates: Sequence[x509.Certificate], authority: str | None) -> None:
        if authority is None:
            return
        anchors = self.authorities[authority]
        if not anchors:
            if authority not in self.files and authority not in self.required:
                self.warnings.append(f"{path} cannot be checked: its authority {authority} is not in the archive")
            return
        leaf, *between = certificates
        if not chains_to(leaf, anchors, between):
            self.fault(path, f"is not signed by {authority}, directly or through the certificates in the same file")
        elif not chains_to(leaf, self._valid_now(anchors), self._valid_now(between)):
            self.fault(path, f"is signed by {authority} only through a certificate that is not valid now")

    def _valid_now(self, certificates: Sequence[x509.Certificate]) -> list[x509.Certificate]:
        return [each for each in certificates if each.not_valid_before_utc <= self.now <= each.not_valid_after_utc]

    def _key_match(self, path: str, certificates: Sequence[x509.Certificate]) -> None:
        stem = posixpath.splitext(path)[0]
        beside = next((each for each in (f"{stem}.key", f"{stem}-key.pem") if each in self.files), None)
        key = beside or (path if b"PRIVATE KEY" in self.files[path] else None)
        if key is None:
            return
        half = self._half(key)
        if isinstance(half, PemError):
            if key not in self.named:
                self.fault(path, f"cannot be compared with {key}, which {half}")
            return
        matching = certificates if path in AUTHORITIES else certificates[:1]
        if half not in {public_half(certificate.public_key()) for certificate in matching}:
            self.fault(path, f"does not match its key {key}")

    def _kubeconfig_user(self, path: str, user: Mapping[str, Any]) -> None:
        if "client-certificate-data" not in user:
            if path == ADMIN_KUBECONFIG and "client-certificate" in user:
                self.warnings.append(f"{path} names its client certificate by path, so it is not part of the file")
            return
        try:
            certificates = read_certificates(_decoded(user["client-certificate-data"]))
        except PemError as err:
            self.fault(path, f"has a client certificate that {err}")
            return
        self._validity(path, certificates[0])
        if path in self.named:
            self._chain(path, certificates, CLUSTER_CA)
        try:
            half = read_private_key(_decoded(user.get("client-key-data", "")))
        except PemError as err:
            self.fault(path, f"has a client key that {err}")
            return
        if half != public_half(certificates[0].public_key()):
            self.fault(path, "has a client certificate that does not match its key")


def _fingerprint(certificate: x509.Certificate) -> str:
    return certificate.fingerprint(hashes.SHA256()).hex()


def _decoded(text: Any) -> bytes:
    try:
        return base64.b64decode("".join(str(text).split()), validate=True)
    except (binascii.Error, ValueError):
        return b""
