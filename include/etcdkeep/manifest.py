"""
The manifest of a backup set: what is in it, of which cluster it is, and what the cluster said of itself.

``manifest.json`` is written last, so a set without one is no backup. Its exact bytes are signed.
"""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from etcdkeep.errors import ObjectDamaged
from etcdkeep.etcdctl import LIVE_KEYS_SINCE, version_tuple


class Record(BaseModel):
    """A part of a stored document: immutable; unknown keys of a later version are kept out of the way."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Plaintext(Record):
    """An artifact before sealing."""

    size_bytes: int
    sha256: str


class Stored(Record):
    """An artifact's bytes in the repository."""

    size_bytes: int
    sha256: str
    crc32c: int


class Artifact(Record):
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


class Member(Record):
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


class Identity(Record):
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


class Snapshot(Record):
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


class Run(Record):
    """The Airflow run that made the set."""

    dag_id: str
    run_id: str
    reason: str = ""
    pinned: bool = False


class Manifest(Record):
    """The whole document."""

    schema_version: Literal[1] = 1
    cluster: str
    profile: str
    backup_id: str
    taken_at: datetime
    revision: int
    run: Run
    identity: Identity
    versions: dict[str, str]
    members: tuple[Member, ...]
    snapshot: Snapshot
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
            f"{name} is no manifest of schema_version 1: {problems}. The set cannot be used; choose another."
        ) from err
