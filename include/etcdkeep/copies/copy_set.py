"""
Copying one set into another repository, in an order that never leaves half a set listed and that another run can finish.

Artifacts, each read back; the records of the set; the signature; the manifest last; its locks; then a signed record that all
of it was copied and read back. The sealed bytes are copied as they are. Records are about the manifest, by its digest and
their own name, both of which are the same here: so what verifications said holds for the copy too. Once it is copied,
a copy is judged by its own verifications.
"""

from __future__ import annotations

import logging
import time
from datetime import timedelta
from typing import TYPE_CHECKING

from etcdkeep import naming
from etcdkeep.documents import read, write
from etcdkeep.errors import NotFound, ObjectDamaged, ObjectExists
from etcdkeep.sealing.digest import Hasher
from etcdkeep.sets.manifest import Stored
from etcdkeep.sets.results import Copied, Verification

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from etcdkeep.backup.publish import Transfer
    from etcdkeep.ports import ObjectStore
    from etcdkeep.sets.backup_set import BackupSet
    from etcdkeep.sets.manifest import Manifest
    from etcdkeep.sets.repository import Repository

log = logging.getLogger(__name__)

READ_BYTES = 2**20


def copy_set(
    source: Repository,
    found: BackupSet,
    manifest: Manifest,
    target: Repository,
    duplicate: Transfer,
    *,
    by: str,
    clock: Callable[[], datetime],
    immutable_days: int = 0,
) -> Copied:
    """
    Copy a set, or finish what an earlier run began of it.

    :param found: The set in `source`; what verifications said of it comes along.
    :param duplicate: Copies one object, into bytes of its own.
    :raises ObjectDamaged: when what was copied is not what the manifest says.
    :raises ObjectExists: when another set of this id is there.
    """
    began, store, prefix = time.monotonic(), target.store, naming.set_prefix(found.cluster, found.backup_id)
    _require_same(found, store, prefix)
    for artifact in manifest.artifacts:
        _copy_whole(source.store, store, prefix + artifact.name, artifact.stored, duplicate)
    if found.index is not None:
        _copy_index(source.store, store, prefix + naming.INDEX, found.index.stored, duplicate)
    copy_records(source, found, target)
    _put(store, prefix + naming.SIGNATURE, found.signature)
    write(store, prefix + naming.MANIFEST, found.manifest_bytes)
    _lock(store, prefix, manifest, immutable_days)
    there = target.get(found.cluster, found.backup_id)
    if not there.whole and not there.doubt and not there.missing:  # a verification said so; every byte was read since
        target.record(there, Verification(at=clock(), levels=("stored",)))
    if there.manifest_sha256 != found.manifest_sha256 or there.doubt or there.missing:
        raise ObjectDamaged(
            f"backup {found.name} was copied to {store.url} and is not usable there: {there.problem or 'another manifest'}. Run again."
        )
    copied = Copied(at=clock(), source=source.store.url, by=by, seconds=round(time.monotonic() - began, 3))
    target.record_copy(there, copied)
    log.info("backup %s: copied to %s and read back in %.1f s", found.name, store.url, copied.seconds)
    return copied


def copy_records(source: Repository, found: BackupSet, target: Repository) -> None:
    """Copy what is believed of a set's records, oldest first, so that the store's time keeps their order."""
    rehearsals = (found.rehearsal,) if found.rehearsal else ()
    for record in sorted((*found.records, *rehearsals, *found.pins), key=lambda each: each.order):
        _copy_document(source.store, target.store, record.name)


def copy_pins(source: Repository, found: BackupSet, target: Repository, there: BackupSet) -> None:
    """Bring pins, and their ends, to a copy that was made before them."""
    known = {record.name for record in there.pins}
    for record in found.pins:
        if record.name not in known:
            _copy_document(source.store, target.store, record.name)


def _copy_document(source: ObjectStore, target: ObjectStore, name: str) -> None:
    try:
        write(target, name, read(source, name))
    except ObjectExists as err:
        log.warning("%s; the existing one stays.", err)


def _require_same(found: BackupSet, store: ObjectStore, prefix: str) -> None:
    """Refuse to mix two sets: where a manifest is, it must be this one."""
    try:
        there = read(store, prefix + naming.MANIFEST)
    except NotFound:
        return
    if there != found.manifest_bytes:
        raise ObjectExists(
            f"{prefix}{naming.MANIFEST} of {store.url} differs from that of {found.name}; nothing was copied. Find out who put it "
            "there, then remove that folder."
        )


def _put(store: ObjectStore, name: str, data: bytes) -> None:
    """Store a signature; another one that a killed run left without a manifest is replaced."""
    try:
        write(store, name, data)
    except ObjectExists:
        store.delete(name)
        write(store, name, data)


def _copy_whole(source: ObjectStore, target: ObjectStore, name: str, stored: Stored, duplicate: Transfer) -> None:
    """Copy one object and read it back; one that is there already is read back too, and replaced when it is damaged."""
    found = target.stat(name)
    if found is not None:
        if found.size_bytes == stored.size_bytes and _digest(target, name) == stored:
            return
        target.delete(name)
    try:
        duplicate(source, name, target, name)
    except ObjectExists:
        log.warning("%s was already copied to %s by another run", name, target.url)
    there = _digest(target, name)
    if there != stored:
        target.delete(name)
        raise ObjectDamaged(
            f"{name}, read back from {target.url}, has {there.size_bytes} bytes with SHA-256 {there.sha256}, the manifest says "
            f"{stored.size_bytes} bytes with {stored.sha256}. It was removed there. Verify the backup in {source.url}."
        )


def _copy_index(source: ObjectStore, target: ObjectStore, name: str, stored: Stored, duplicate: Transfer) -> None:
    """Copy the index of the snapshot; the set is complete without it."""
    try:
        _copy_whole(source, target, name, stored, duplicate)
    except (NotFound, ObjectDamaged) as err:
        log.warning("the index was not copied; `verify` makes it again: %s", err)


def _digest(store: ObjectStore, name: str) -> Stored:
    passed = Hasher()
    with store.open(name) as stream:
        while block := stream.read(READ_BYTES):
            passed.update(block)
    digest = passed.digest()
    return Stored(size_bytes=digest.size_bytes, sha256=digest.sha256, crc32c=digest.crc32c)


def _lock(store: ObjectStore, prefix: str, manifest: Manifest, immutable_days: int) -> None:
    if not immutable_days:
        return
    until = manifest.taken_at + timedelta(days=immutable_days)
    names = (naming.MANIFEST, naming.SIGNATURE, *(artifact.name for artifact in manifest.artifacts))
    if not all(store.protect(prefix + name, until) for name in names):
        log.warning("%s cannot forbid deletion; immutable_days has no effect there", store.url)
