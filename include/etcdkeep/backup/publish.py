"""Publishing: from the spool to the repository, the manifest last; and clearing away what a run left."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Protocol

from etcdkeep import __version__, naming
from etcdkeep.documents import write
from etcdkeep.errors import NotFound, ObjectDamaged, ObjectExists
from etcdkeep.sets.manifest import Artifact, BackupRun, Manifest

if TYPE_CHECKING:
    from etcdkeep.backup.copy_out import CopiedSnapshot
    from etcdkeep.backup.discover import Discovery
    from etcdkeep.backup.node_files import NodeFiles
    from etcdkeep.backup.spool import Spool
    from etcdkeep.config.models import Cluster
    from etcdkeep.ports import ObjectStore
    from etcdkeep.sets.repository import Repository

log = logging.getLogger(__name__)


class Signer(Protocol):
    """An Ed25519 private key."""

    def sign(self, data: bytes, /) -> bytes: ...


class Transfer(Protocol):
    """Copies one object between stores, create-only; inside one store on the server's side."""

    def __call__(self, source: ObjectStore, source_name: str, target: ObjectStore, target_name: str) -> None: ...


def record_attempt(store: ObjectStore, cluster: str, identifier: str, run_id: str) -> None:
    """Record that a run began, so that one which dies leaves a trace; a retry finds its own record."""
    record = {"cluster": cluster, "backup_id": identifier, "run_id": run_id, "began_at": datetime.now(UTC).isoformat()}
    try:
        write(store, naming.attempt_name(cluster, identifier), json.dumps(record, indent=2).encode() + b"\n")
    except ObjectExists:
        log.info("%s was attempted before: this is a retry", identifier)


def compose_manifest(
    cluster: Cluster,
    identifier: str,
    run: BackupRun,
    discovery: Discovery,
    copied: CopiedSnapshot,
    node_files: NodeFiles,
    signing_key: str,
) -> Manifest:
    """
    Put together what the steps found; the same findings give the same bytes.

    :param signing_key: The public key that will verify it.
    """
    snapshot = copied.saved.snapshot
    return Manifest(
        cluster=cluster.name,
        profile=cluster.profile,
        backup_id=identifier,
        taken_at=snapshot.taken_at,
        revision=snapshot.revision,
        run=run,
        identity=discovery.identity.model_copy(update={"ca_sha256": node_files.ca_sha256}),
        versions={**discovery.versions, snapshot.tool: snapshot.tool_version, "etcdkeep": __version__},
        members=discovery.members,
        snapshot=snapshot,
        artifacts=(copied.artifact, *node_files.artifacts),
        signing_key=signing_key,
        notes=(*discovery.notes, *node_files.notes),
    )


def publish(
    repository: Repository,
    spool: Spool,
    transfer: Transfer,
    manifest: Manifest,
    signer: Signer,
    immutable_days: int = 0,
) -> Manifest:
    """
    Publish a set: artifacts, then the signature, then the manifest, each create-only.

    :return: The published manifest: the given one, or the one that an earlier try or run of the same id published.
    :raises NotFound: when an artifact is neither in the spool nor published.
    :raises ObjectDamaged: when a copied artifact is not the one that was sealed.
    """
    store = repository.store
    prefix = naming.set_prefix(manifest.cluster, manifest.backup_id)
    if store.stat(prefix + naming.MANIFEST) is None:
        for artifact in manifest.artifacts:
            _publish_artifact(store, prefix, spool, transfer, artifact)
        data = manifest.to_bytes()
        _write_signature(store, prefix + naming.SIGNATURE, signer.sign(data))
        try:
            write(store, prefix + naming.MANIFEST, data)
        except ObjectExists:
            log.warning("%s%s was published by another attempt meanwhile", prefix, naming.MANIFEST)
    found = repository.get(manifest.cluster, manifest.backup_id)
    if found.manifest is None:
        raise ObjectDamaged(f"{prefix} is published but not usable: {found.problem}")
    if immutable_days:
        stored = store.stat(
            prefix + naming.MANIFEST
        )  # nobody can shorten a lock, so a clock that is ahead must not set it
        taken_at = min(found.manifest.taken_at, stored.updated_at if stored else datetime.now(UTC))
        until = taken_at + timedelta(days=immutable_days)
        names = (naming.MANIFEST, naming.SIGNATURE, *(artifact.name for artifact in found.manifest.artifacts))
        if not all(store.protect(prefix + name, until) for name in names):
            log.warning("%s cannot forbid deletion; immutable_days has no effect there", store.url)
    return found.manifest


def remove_unpublished(store: ObjectStore, cluster: str, identifier: str) -> int:
    """Remove a set's folder when it holds no manifest, and return how many objects that were; a published set stays."""
    prefix = naming.set_prefix(cluster, identifier)
    return 0 if store.stat(prefix + naming.MANIFEST) else store.purge(prefix)


def _publish_artifact(store: ObjectStore, prefix: str, spool: Spool, transfer: Transfer, artifact: Artifact) -> None:
    name = prefix + artifact.name
    if _is_there(store, name, artifact):
        return
    if store.stat(name) is not None:  # an account may have no right to delete, nor need it for a first attempt
        store.delete(name)
    try:
        transfer(spool.store, spool.prefix + artifact.name, store, name)
    except NotFound as err:
        raise NotFound(
            f"{artifact.name} of {spool.identifier} is not in the spool {spool.store.url}: cleanup has run. Clear the whole run to take the backup again."
        ) from err
    except ObjectExists:
        log.warning("%s was copied by another attempt meanwhile", name)
    if not _is_there(store, name, artifact):
        raise ObjectDamaged(
            f"{name} in {store.url} is not the artifact that was sealed (size or CRC-32C differ); nothing was published."
        )


def _write_signature(store: ObjectStore, name: str, signature: bytes) -> None:
    """Store the signature; that of an earlier attempt is replaced, as no manifest names it yet."""
    try:
        write(store, name, signature)
    except ObjectExists:
        store.delete(name)
        write(store, name, signature)


def _is_there(store: ObjectStore, name: str, artifact: Artifact) -> bool:
    """Compare size, and the CRC-32C where the store keeps one; `verify` reads every byte back."""
    found = store.stat(name)
    return (
        found is not None
        and found.size_bytes == artifact.stored.size_bytes
        and found.crc32c in (None, artifact.stored.crc32c)
    )
