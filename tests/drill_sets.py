"""Backup sets of a real etcd's snapshot, published in a folder, for drills; whatever the manifest says can be changed."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from etcdkeep import naming
from etcdkeep.adapters.stores.directory import DirectoryStore
from etcdkeep.backup.spool import Spool
from etcdkeep.documents import write
from etcdkeep.sealing.age_keys import parse_identities
from etcdkeep.sealing.signature import load_signing_key
from etcdkeep.snapshot import open_snapshot
from tests.builders import (
    BACKUP_ID,
    age_pair,
    make_manifest,
    make_reported,
    make_repository,
    make_verification,
    signing_pair,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from etcdkeep.sets.backup_set import BackupSet
    from etcdkeep.sets.repository import Repository

ETCD_VERSION = "3.5.1"


def open_repository(folder: Path) -> Repository:
    """Return the repository in a folder."""
    return make_repository(DirectoryStore(folder))


def identities() -> Any:
    """Return what opens the sets."""
    return parse_identities(age_pair()[0])


def publish_snapshot(
    folder: Path,
    snapshot: Path,
    identifier: str = BACKUP_ID,
    *,
    verified: bool = True,
    reported: dict[str, Any] | None = None,
    **changes: Any,
) -> BackupSet:
    """
    Publish a set of harbor with that snapshot, signed, sealed and by default verified.

    :param reported: What the manifest says of the snapshot otherwise than is true.
    :param changes: Other values of the manifest.
    """
    repository = open_repository(folder)
    spool = Spool(repository.store, "harbor", identifier, (age_pair()[1],))
    artifact = spool.seal(naming.ETCD_ARTIFACT, "etcd", _blocks(snapshot))
    with open_snapshot(snapshot) as opened:
        report = opened.status()
    facts = {name: getattr(report, name) for name in ("revision", "hash", "total_keys", "size_bytes")}
    true = {
        name: 1 if fact is None else fact for name, fact in facts.items()
    }  # what damage made unknowable was known there
    member = make_reported(**{**true, "tool_version": ETCD_VERSION, **(reported or {})})
    fields = {
        "backup_id": identifier,
        "taken_at": datetime.now(UTC),
        "revision": member.revision,
        "versions": {"etcd": ETCD_VERSION},
        "artifacts": (artifact,),
        "snapshot": member,
    }
    manifest = make_manifest(**{**fields, **changes}).to_bytes()
    prefix = naming.set_prefix("harbor", identifier)
    signature = load_signing_key(signing_pair()[0], [signing_pair()[1]]).sign(manifest)
    write(repository.store, prefix + naming.SIGNATURE, signature)
    write(repository.store, prefix + naming.MANIFEST, manifest)
    if verified:
        repository.record(repository.get("harbor", identifier), make_verification())
    return repository.get("harbor", identifier)


def _blocks(snapshot: Path) -> Iterator[bytes]:
    with snapshot.open("rb") as file:
        while block := file.read(2**20):
            yield block
