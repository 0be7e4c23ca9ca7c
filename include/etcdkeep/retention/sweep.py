"""
Orphans: what killed runs left, and nobody will come back for.

Only objects with names of ours are removed, in folders named after a backup that began before `keep_bad_days`, and only when
nothing in the folder was written since. A folder that holds a manifest is a set, and one that was verified was a set: somebody
removed its manifest. Neither is ever swept.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from etcdkeep import naming
from etcdkeep.ports import StoredObject
from etcdkeep.retention.tombstones import by_set, has_manifest, is_ours, was_a_set
from etcdkeep.retention.turn import is_turn

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from datetime import datetime

    from etcdkeep.ports import ObjectStore

log = logging.getLogger(__name__)


def orphans(store: ObjectStore, cluster: str, since: datetime) -> Iterator[StoredObject]:
    """
    Yield what may go of half-written sets, of attempts that left no set, and of dead housekeepings.

    :param since: By the store's clock; whatever was written later is left alone.
    """
    attempts, others = f"{cluster}/attempts/", list[StoredObject]()

    def passing(items: Iterable[StoredObject]) -> Iterator[StoredObject]:
        """Note old attempts and turns of a listing that goes by: it may be a long one."""
        for item in items:
            if item.updated_at < since and (item.name.startswith(attempts) or is_turn(cluster, item.name)):
                others.append(item)
            yield item

    groups = by_set(cluster, passing(store.list(f"{cluster}/")))
    for group in groups.values():
        if _is_orphaned(group, since) and not was_a_set(group):
            yield from (item for item in group if is_ours(item))
    for item in others:
        identifier = item.name.removeprefix(attempts).removesuffix(".json")
        if is_turn(cluster, item.name) or (naming.is_backup_id(identifier) and identifier not in groups):
            yield item


def spool_orphans(spool: ObjectStore, repository: ObjectStore, cluster: str, since: datetime) -> Iterator[StoredObject]:
    """Yield what killed runs left in the spool, as :func:`orphans`; nothing where the spool is the repository itself."""
    if spool.url.rstrip("/") == repository.url.rstrip("/"):
        return
    for group in by_set(cluster, spool.list(f"{cluster}/")).values():
        if _is_orphaned(group, since):
            yield from (item for item in group if is_ours(item))


def _is_orphaned(group: Sequence[StoredObject], since: datetime) -> bool:
    """A file can be copied or given any time, so that the backup's own time counts as well."""
    began = naming.backup_time(group[0].name.split("/")[1])
    return not has_manifest(group) and began < since and all(item.updated_at < since for item in group)


def sweep(store: ObjectStore, found: Iterable[StoredObject]) -> int:
    """Remove orphans, and return how many."""
    removed = 0
    for item in found:
        log.info("%s of %s: an orphan of %s, removed", item.name, store.url, f"{item.updated_at:%Y-%m-%d}")
        store.delete(item.name)
        removed += 1
    return removed
