"""Sound configuration, clusters and documents for tests; every field can be given otherwise."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING, Any

import yaml

from etcdkeep.config.loading import parse_config
from etcdkeep.records import Kind, Records, Signed, trust_for_all
from etcdkeep.sealing.age_keys import generate_identity
from etcdkeep.sealing.signature import generate_signing_key, load_signing_key
from etcdkeep.sets.manifest import Artifact, BackupRun, Identity, Manifest, Member, Plaintext, SnapshotFacts, Stored
from etcdkeep.sets.repository import Repository
from etcdkeep.sets.results import Verification
from tests.snapshots import Change, Delete, Put, make_snapshot
from tests.snapshots import make_records as make_changes

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from etcdkeep.config.models import Cluster
    from etcdkeep.ports import ObjectStore

NOW = datetime(2026, 11, 23, 2, 30, tzinfo=UTC)
BACKUP_ID = "20261123T023000Z-1f0c9a3e"


@cache
def age_pair(name: str = "ours") -> tuple[bytes, str]:
    """Return the identity file and the recipient of that name."""
    identity, recipient = generate_identity()
    return identity.encode(), recipient


@cache
def signing_pair(name: str = "ours") -> tuple[bytes, str]:
    """Return the private PEM and the public key of that name."""
    return generate_signing_key()


def make_signer(purpose: str = "backup") -> Ed25519PrivateKey:
    """Return our private key, which is for every purpose."""
    return load_signing_key(signing_pair()[0], [signing_pair()[1]])


def make_repository(store: ObjectStore, **overrides: Any) -> Repository:
    """Return a repository that trusts our key for everything, and signs with it."""
    return Repository(store, **{"trust": trust_for_all([signing_pair()[1]]), "signer": make_signer, **overrides})


def make_records(store: ObjectStore) -> Records:
    """Return records signed and trusted by our key."""
    return make_repository(store).records


def make_signed(kind: Kind[Any], body: Any, **overrides: Any) -> Signed[Any]:
    """Return a record as the loader makes it."""
    fields = {
        "kind": kind,
        "name": "prod/record.json",
        "cluster": "prod",
        "subject": BACKUP_ID,
        "at": NOW,
        "stored_at": NOW,
        "digest": hashlib.sha256(body.model_dump_json().encode()).hexdigest(),
        "body": body,
    }
    return Signed(**{**fields, **overrides})


def make_database(*more: Change) -> bytes:
    """Return a snapshot file with live, overwritten and deleted keys, at revision 8 and one more for each of `more`."""
    puts = [Put(b"/registry/configmaps/default/c%d" % number, b"k8s\0v%d" % number) for number in range(5)]
    changes = [*puts, Put(puts[0].key, b"k8s\0again", create=2, version=2), Delete(puts[4].key), *more]
    return make_snapshot(make_changes(changes))


def make_entry(**overrides: Any) -> dict[str, Any]:
    """Return a cluster's entry as it stands in the file; None takes a key away."""
    entry = {
        "name": "harbor",
        "profile": "kubeadm",
        "kubeconfig": {"connection": "kubernetes_harbor"},
        "repository": "file:///srv/etcdkeep",
        "age_recipients": [age_pair()[1]],
        "signing": {"key": {"connection": "etcdkeep_signing"}, "public_keys": [signing_pair()[1]]},
        **overrides,
    }
    return {key: value for key, value in entry.items() if value is not None}


def make_file(*entries: Any, **overrides: Any) -> str:
    """Return the text of a configuration file."""
    return yaml.safe_dump({"schema_version": 1, "clusters": list(entries), **overrides}, sort_keys=False)


def make_cluster(**overrides: Any) -> Cluster:
    """Return one usable cluster."""
    entry = make_entry(**overrides)
    config = parse_config(make_file(entry), "test")
    config.raise_for_problems()
    return config.cluster(entry["name"])


def make_member(name: str = "cp-0", **overrides: Any) -> Member:
    """Return a fit follower in pod ``etcd-NAME``."""
    fields = {
        "name": name,
        "pod": f"etcd-{name}",
        "node": name,
        "address": f"10.0.0.{1 + int(name[-1])}",
        "member_id": f"{1 + int(name[-1]):016x}",
        "healthy": True,
        "etcd_version": "3.5.16",
        "db_size_bytes": 20480,
        "revision": 7,
    }
    return Member.model_validate({**fields, **overrides})


def make_identity(**overrides: Any) -> Identity:
    fields = {
        "kube_system_uid": "0e0c4a52-6d3c-4f4e-9d4e-1f6d2c2b7a11",
        "namespace_uid": "0e0c4a52-6d3c-4f4e-9d4e-1f6d2c2b7a11",
        "etcd_cluster_id": "cdf818194e3a8c32",
    }
    return Identity.model_validate({**fields, **overrides})


def make_reported(**overrides: Any) -> SnapshotFacts:
    fields = {
        "member": "cp-0",
        "taken_at": NOW,
        "hash": 647590838,
        "revision": 23,
        "total_keys": 29,
        "size_bytes": 20480,
        "tool": "etcdctl",
        "tool_version": "3.5.16",
    }
    return SnapshotFacts.model_validate({**fields, **overrides})


def make_artifact(name: str = "etcd.db.zst.age", **overrides: Any) -> Artifact:
    fields = {
        "name": name,
        "kind": "etcd",
        "plaintext": Plaintext(size_bytes=20512, sha256="a" * 64),
        "stored": Stored(size_bytes=4096, sha256="b" * 64, crc32c=7),
        "recipients": (age_pair()[1],),
    }
    return Artifact.model_validate({**fields, **overrides})


def make_manifest(**overrides: Any) -> Manifest:
    fields = {
        "cluster": "harbor",
        "profile": "kubeadm",
        "backup_id": BACKUP_ID,
        "taken_at": NOW,
        "revision": 23,
        "run": BackupRun(dag_id="backup__harbor", run_id="scheduled__2026-11-23T02:30:00+00:00"),
        "identity": make_identity(),
        "versions": {"etcd": "3.5.16"},
        "members": (make_member(),),
        "snapshot": make_reported(),
        "artifacts": (make_artifact(),),
        "signing_key": signing_pair()[1],
    }
    return Manifest.model_validate({**fields, **overrides})


def make_verification(**overrides: Any) -> Verification:
    fields = {"at": NOW, "levels": ("stored", "sealed", "etcd", "pki"), "complete": True}
    return Verification.model_validate({**fields, **overrides})
