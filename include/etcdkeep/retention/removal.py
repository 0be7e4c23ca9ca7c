"""
Removing one set, in an order that never leaves half a set listed and that another run can finish.

Tombstone, then manifest, then signature, artifacts and records. Until the manifest is gone the set is whole; once it is
gone the set is listed nowhere, and its tombstone says that the rest may go.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from etcdkeep import naming
from etcdkeep.errors import AccessDenied, NotFound
from etcdkeep.retention.gather import sets_in_use
from etcdkeep.retention.tombstones import Tombstones, by_set, has_manifest, is_ours

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from etcdkeep.ports import ObjectStore, StoredObject
    from etcdkeep.retention.plan import Verdict
    from etcdkeep.sets.backup_set import BackupSet
    from etcdkeep.sets.repository import Repository

log = logging.getLogger(__name__)


def remove_set(
    repository: Repository, found: BackupSet, verdict: Verdict, *, by: str, floor: Sequence[str], now: datetime
) -> str | None:
    """
    Remove a set.

    :param found: As it was when the plan was made; one that has changed since stays.
    :param floor: The verified sets that were read back before.
    :return: Why it stayed; None when it is gone.
    :raises AccessDenied: when the store does not allow it: no right to delete, or locked. Then the set is whole.
    """
    try:
        fresh = repository.get(found.cluster, found.backup_id)
    except NotFound:
        log.info("backup %s: was already removed by somebody else", found.name)
        return None
    changed = _changed(repository, found, fresh, now)
    if changed:
        return changed
    tombstone = Tombstones(repository.records, found.cluster).put(found, verdict, by, floor)
    store, prefix = repository.store, naming.set_prefix(found.cluster, found.backup_id)
    store.delete(prefix + naming.MANIFEST)
    log.info("backup %s: removed by rule (%s), tombstone %s", found.name, tombstone.body.reason, tombstone.name)
    try:
        _remove_rest(store, prefix, [item for item in store.list(prefix) if is_ours(item)])
    except AccessDenied as err:
        log.warning("backup %s: removed; its remaining objects are removed by a later run: %s", found.name, err)
    return None


def finish_removals(repository: Repository, cluster: str) -> list[str]:
    """
    Finish what an earlier run began: remove what is left of sets that have a tombstone and no manifest.

    An object that is newer than the tombstone stays: it is of a backup that is being taken anew under this id.

    :return: The backup ids that were finished. What the store keeps goes in a later run.
    """
    store, tombstones = repository.store, Tombstones(repository.records, cluster)
    finished = []
    for identifier, items in by_set(cluster, store.list(f"{cluster}/")).items():
        if has_manifest(items):
            continue
        stored = [each.stored_at for each in tombstones.of(identifier) if each.stored_at]
        rest = [item for item in items if stored and is_ours(item) and item.updated_at <= max(stored)]
        if not rest:
            continue
        prefix = naming.set_prefix(cluster, identifier)
        if store.stat(prefix + naming.MANIFEST) is None:
            log.info("backup %s/%s: finishing its removal (%d remaining objects)", cluster, identifier, len(rest))
            try:
                _remove_rest(store, prefix, rest)
            except AccessDenied as err:
                log.warning(
                    "backup %s/%s: its remaining objects are removed by a later run: %s", cluster, identifier, err
                )
            else:
                finished.append(identifier)
    return finished


def _changed(repository: Repository, found: BackupSet, fresh: BackupSet, now: datetime) -> str | None:
    """Return what has changed of a set since the plan was made: reading the floor back can take an hour."""
    if fresh.manifest_sha256 != found.manifest_sha256 or fresh.state != found.state:
        return f"has changed since the plan was made; it is now {fresh.state}"
    if reason := fresh.pinned(now):
        return f"has been pinned since the plan was made: {reason}"
    if use := fresh.in_use(now):
        return f"in use by {use} since the plan was made"
    if doubted := fresh.doubted:
        return f"has changed since the plan was made: {doubted} is not believed"
    in_use, problems = sets_in_use(repository.records, found.cluster, now)
    if use := in_use.get(found.backup_id):
        return f"in use by {use} since the plan was made"
    return problems[0] if problems else None


def _remove_rest(store: ObjectStore, prefix: str, items: Iterable[StoredObject]) -> None:
    for item in sorted(items, key=lambda item: (item.name != prefix + naming.SIGNATURE, item.name)):
        store.delete(item.name)
    if not any(True for _ in store.list(prefix)):
        store.purge(prefix)  # a directory keeps empty folders
