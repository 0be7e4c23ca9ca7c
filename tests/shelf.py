"""A cluster's repository in a folder, full of small sets of many days: signed, verified, and nothing in them."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from etcdkeep import naming
from etcdkeep.adapters.stores.directory import DirectoryStore
from etcdkeep.backup.publish import record_attempt
from etcdkeep.documents import write
from etcdkeep.retention.tombstones import TOMBSTONE, Tombstone
from etcdkeep.sealing.digest import Hasher
from etcdkeep.sets.manifest import BackupRun, Stored
from etcdkeep.sets.results import DrillResult, Rehearsal
from tests.builders import (
    make_artifact,
    make_cluster,
    make_entry,
    make_file,
    make_manifest,
    make_reported,
    make_repository,
    make_signer,
    make_verification,
    signing_pair,
)

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from etcdkeep.config.models import Cluster
    from etcdkeep.ports import ObjectStore
    from etcdkeep.sets.backup_set import BackupSet
    from etcdkeep.sets.repository import Repository

ARTIFACTS: Mapping[str, bytes] = {
    naming.ETCD_ARTIFACT: b"sealed database",
    "control-plane.tar.zst.age": b"sealed files",
}
KINDS = {naming.ETCD_ARTIFACT: "etcd"}


class Shelf:
    """
    One cluster's sets.

    :param folder: Holds ``repository/`` and ``clusters.yaml``.
    :param store: In place of the folder's directory.
    :param settings: Of the cluster.
    """

    def __init__(self, folder: Path, store: ObjectStore | None = None, **settings: Any) -> None:
        self.folder = folder
        self.now = datetime.now(UTC).replace(microsecond=0)
        self.store = store or DirectoryStore(folder / "repository")
        self.settings: dict[str, Any] = {"repository": f"file://{folder}/repository", **settings}
        self.name = str(self.settings.get("name", "harbor"))

    @property
    def cluster(self) -> Cluster:
        return make_cluster(**self.settings)

    @property
    def repository(self) -> Repository:
        return make_repository(self.store)

    def write_config(self, **file: Any) -> Path:
        """Write a configuration file as a laptop with the signing key has it."""
        pem, config = self.folder / "signing-key.pem", self.folder / "clusters.yaml"
        pem.write_bytes(signing_pair()[0])
        signing = {"key": {"path": str(pem)}, "public_keys": [signing_pair()[1]]}
        config.write_text(make_file(make_entry(**{"signing": signing, **self.settings}), **file))
        return config

    def identifier(self, days_ago: float, suffix: str = "00000000") -> str:
        return f"{self.now - timedelta(days=days_ago):%Y%m%dT%H%M%SZ}-{suffix}"

    def add(
        self,
        days_ago: float,
        state: str = "good",
        *,
        restorable: str | None = None,
        drilled: bool = False,
        by_hand: bool = False,
        size_bytes: int = 20480,
        run: Mapping[str, Any] | None = None,
        suffix: str = "00000000",
        warnings: tuple[str, ...] = (),
        **verified: Any,
    ) -> str:
        """Publish a set, with what was found of it, and return its id."""
        identifier, at = self.identifier(days_ago, suffix), self.now - timedelta(days=days_ago)
        prefix = naming.set_prefix(self.name, identifier)
        artifacts = []
        for name, data in ARTIFACTS.items():
            write(self.store, prefix + name, data)
            digest = Hasher()
            digest.update(data)
            stored = Stored(**vars(digest.digest()))
            artifacts.append(make_artifact(name, kind=KINDS.get(name, "control-plane"), stored=stored))
        run_id = f"{'manual' if by_hand else 'scheduled'}__{at:%Y-%m-%dT%H:%M:%S+00:00}"
        manifest = make_manifest(
            cluster=self.name,
            backup_id=identifier,
            taken_at=at,
            run=BackupRun(**{"dag_id": f"backup__{self.name}", "run_id": run_id, **(run or {})}),
            artifacts=tuple(artifacts),
            snapshot=make_reported(taken_at=at, size_bytes=size_bytes),
        )
        data = manifest.to_bytes()
        write(self.store, prefix + naming.SIGNATURE, make_signer().sign(data))
        write(self.store, prefix + naming.MANIFEST, data)
        record_attempt(self.store, self.name, identifier, run_id)
        repository, found = self.repository, self.get(identifier)
        later = at + timedelta(minutes=1)
        if state == "good":
            repository.record(found, make_verification(at=later, warnings=warnings, **verified))
        elif state == "bad":
            repository.record(found, make_verification(at=later, levels=("stored",), problems=("a page is damaged",)))
        if drilled:
            drill = DrillResult(etcd_version="3.5.16", tool="etcdutl 3.5.16")
            repository.record(found, make_verification(at=later, levels=("drill",), complete=False, drill=drill))
        if restorable:
            repository.record_rehearsal(found, Rehearsal(at=later, restorable=restorable))
        return identifier

    def bury(self, identifier: str) -> None:
        """Sign that a set was removed, as retention does."""
        body = Tombstone(backup_id=identifier, reason="daily 3", by="a test", manifest_sha256="", manifest="", signature="", floor=())  # fmt: skip
        folder = f"{naming.removed_prefix(self.name)}{identifier}/"
        self.repository.records.append(TOMBSTONE, folder, self.name, identifier, body)

    def get(self, identifier: str) -> BackupSet:
        return self.repository.get(self.name, identifier)

    def ids(self) -> list[str]:
        """Return what is listed."""
        return [each.backup_id for each in self.repository.sets(self.name)]

    def names(self, prefix: str = "") -> list[str]:
        return [item.name for item in self.store.list(prefix)]

    def age(self, days: float, prefix: str = "") -> None:
        """Give files that were stored some days ago."""
        at = (self.now - timedelta(days=days)).timestamp()
        for name in self.names(prefix):
            os.utime(self.folder / "repository" / name, (at, at))
