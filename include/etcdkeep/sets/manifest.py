"""
The manifest of a backup set: what is in it, of which cluster it is, and what the cluster said of itself.

``manifest.json`` is written last, so a set without one is no backup. Its exact bytes are signed.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Literal

from pydantic import ValidationError

from etcdkeep.documents import Document
from etcdkeep.errors import ObjectDamaged
from etcdkeep.etcd.etcdctl import LIVE_KEYS_SINCE, version_tuple

if TYPE_CHECKING:
    from etcdkeep.snapshot import SnapshotReport


class AboutSet(Document):
    """
    A record beside a set.

    :param manifest_sha256: Of the manifest that it speaks of; set when it is stored.
    """

    manifest_sha256: str = ""


class Plaintext(Document):
    """An artifact before sealing."""

    size_bytes: int
    sha256: str


class Stored(Document):
    """An artifact's bytes in the repository."""

    size_bytes: int
    sha256: str
    crc32c: int


class Artifact(Document):
    """
    One sealed stream.

    :param kind: What it holds: ``etcd``, ``control-plane`` or ``access``.
    :param node: The node it was read from, for ``control-plane``.
    """

    name: str
    kind: Literal["etcd", "control-plane", "access"]
    node: str | None = None
    plaintext: Plaintext
    stored: Stored
    recipients: tuple[str, ...]


class Member(Document):
    """
    One etcd member as `discover` found it.

    :param member_id: etcd's member id, 16 hex digits.
    :param hash_kv: HashKV at the revision compared, when it was answered.
    :param problem: Why it was not fit to give the snapshot.
    :param pod: Where it runs; empty for a member that no pod was found of.
    :param peer_urls: As etcd's own member list has them.
    :param host_ips: Addresses of its node as the kubelet gives them to pods; `pod_ips` those of the pod.
    """

    name: str
    pod: str
    node: str
    address: str | None = None
    member_id: str = ""
    leader: bool = False
    learner: bool = False
    healthy: bool = False
    etcd_version: str = ""
    db_size_bytes: int = 0
    revision: int = 0
    raft_index: int = 0
    hash_kv: int | None = None
    problem: str | None = None
    peer_urls: tuple[str, ...] = ()
    host_ips: tuple[str, ...] = ()
    pod_ips: tuple[str, ...] = ()


class Identity(Document):
    """
    What tells one cluster from another; a restore compares it with the live node's files.

    :param kube_system_uid: UID of namespace kube-system of the cluster whose API was asked (kubeception: the admin cluster).
    :param namespace_uid: UID of the namespace that holds the etcd pods.
    :param etcd_cluster_id: 16 hex digits.
    :param ca_sha256: SHA-256 of the cluster CA's DER, hex; of the first node's ``pki/ca.crt``.
    """

    kube_system_uid: str
    namespace_uid: str
    etcd_cluster_id: str
    ca_sha256: str | None = None


class SnapshotFacts(Document):
    """
    What the member's own tool reported of the snapshot file.

    :param total_keys: By the rule of `tool_version`: all records up to 3.5, live keys from 3.6 on.
    :param size_bytes: Size of the database image, without the 32-byte trailer.
    """

    member: str
    taken_at: datetime
    hash: int
    revision: int
    total_keys: int
    size_bytes: int
    tool: str
    tool_version: str

    @property
    def counted(self) -> Literal["total_keys", "live_keys"]:
        """Which of the two rules `total_keys` follows."""
        return "live_keys" if version_tuple(self.tool_version) >= LIVE_KEYS_SINCE else "total_keys"


class BackupRun(Document):
    """
    The Airflow run that made the set.

    :param by_hand: Whether a person started it; None in older manifests, where the run's id tells.
    """

    dag_id: str
    run_id: str
    by_hand: bool | None = None
    reason: str = ""
    pinned: bool = False


class Manifest(Document):
    """The whole document."""

    schema_version: Literal[1] = 1
    cluster: str
    profile: str
    backup_id: str
    taken_at: datetime
    revision: int
    run: BackupRun
    identity: Identity
    versions: dict[str, str]
    members: tuple[Member, ...]
    snapshot: SnapshotFacts
    artifacts: tuple[Artifact, ...]
    signing_key: str
    notes: tuple[str, ...] = ()

    def to_bytes(self) -> bytes:
        """Return the bytes that are signed and stored; the same document gives the same bytes."""
        return self.model_dump_json(indent=2).encode() + b"\n"

    def artifact(self, kind: str) -> Artifact | None:
        """Return the first artifact of that kind."""
        return next((artifact for artifact in self.artifacts if artifact.kind == kind), None)

    @property
    def stored_bytes(self) -> int:
        """Room that the artifacts take in the repository."""
        return sum(artifact.stored.size_bytes for artifact in self.artifacts)


def parse_manifest(name: str, data: bytes) -> Manifest:
    """
    Read a stored manifest.

    :param name: Its name in the repository, for the message.
    :raises ObjectDamaged: when it is not a manifest of a version that we know.
    """
    try:
        return Manifest.model_validate_json(data)
    except ValidationError as err:
        problems = "; ".join(
            f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}" for problem in err.errors(include_input=False)[:3]
        )
        raise ObjectDamaged(
            f"{name} is not a manifest of schema_version 1: {problems}. The set cannot be used; choose another."
        ) from err


def compare_with_member(report: SnapshotReport, reported: SnapshotFacts) -> list[str]:
    """
    Compare what we read with what the member's tool said of the file; totals by the rule of that tool's version.

    What damage made unknowable is left out: the report itself tells of the damage.
    """
    pairs = (
        ("hash", report.hash, reported.hash),
        ("revision", report.revision, reported.revision),
        ("total keys", getattr(report, reported.counted), reported.total_keys),
        ("database size", report.size_bytes, reported.size_bytes),
    )
    return [
        f"{name} is {ours}, but member {reported.member} reported {theirs} ({reported.tool} {reported.tool_version})"
        for name, ours, theirs in pairs
        if ours is not None and ours != theirs
    ]
