"""What changed from one backup to another, from their indexes: counts first, names on demand, contents never."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from etcdkeep.errors import NotFound
from etcdkeep.objects.compare import compare, count_changes
from etcdkeep.objects.index import IndexReader, open_index
from etcdkeep.objects.index_key import refuse_whole_backups
from etcdkeep.sealing.private_file import private_file
from etcdkeep.sets.choosing import choose_set, previous_set

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from etcdkeep.objects.compare import Change, ChangeCount
    from etcdkeep.objects.entries import Entry
    from etcdkeep.ports import ObjectStore
    from etcdkeep.sealing.age_keys import Identity
    from etcdkeep.sets.backup_set import BackupSet
    from etcdkeep.sets.repository import Repository


@dataclass(frozen=True)
class SetChanges:
    """
    What differs between two backups.

    :param before: ``cluster/backup-id``, as is `after`.
    :param changes: In the order of the keys.
    """

    before: str
    after: str
    changes: tuple[Change, ...]

    @cached_property
    def counts(self) -> tuple[ChangeCount, ...]:
        """By kind and namespace, what lost most objects first."""
        return count_changes((each.what, each.entry.type, each.entry.namespace) for each in self.changes)

    def named(
        self, *, what: str | None = None, kind: str | None = None, namespace: str | None = None
    ) -> tuple[Change, ...]:
        """
        Return the changes behind a count.

        :param kind: ``deployments.apps``, ``pods``.
        """
        return tuple(
            each
            for each in self.changes
            if (what is None or each.what == what)
            and (kind is None or each.entry.type.full_name == kind)
            and (namespace is None or each.entry.namespace == namespace)
        )

    def as_json(self, names: Iterable[Change] = ()) -> dict[str, Any]:
        """
        Return the counts for programs and pages.

        :param names: The changes to name, such as :meth:`named` gives.
        """
        counts = [each.as_json() for each in self.counts]
        return {
            "before": self.before,
            "after": self.after,
            "counts": counts,
            "names": [each.as_json() for each in names],
        }


def changes_between(
    store: ObjectStore, before: BackupSet, after: BackupSet, identities: Sequence[Identity], *, index_only: bool = False
) -> SetChanges:
    """
    Compare two backups by their indexes; keys that hold no object are left out.

    In memory are a digest for each object of `before`, and what differs.

    :param index_only: Whether the identities are for indexes alone, and must open no artifact.
    :raises NotFound: when one of them has no index, or its index is gone.
    :raises ObjectDamaged: when an index is not what was recorded.
    :raises IdentityMismatch: when none of the identities opens an index.
    :raises ConfigError: when one opens an artifact too, and must not.
    """
    if index_only:
        for each in (before, after):
            refuse_whole_backups(each, identities)
    with ExitStack() as stack:
        old, new = (_open(stack, store, each, identities) for each in (before, after))
        found = compare(lambda: old, new, _holds_object)
    return SetChanges(before.name, after.name, tuple(found))


def changes_since_previous(
    repository: Repository,
    cluster: str,
    identities: Sequence[Identity],
    wanted: str = "",
    *,
    sets: Sequence[BackupSet] | None = None,
    index_only: bool = False,
) -> SetChanges:
    """
    Compare a backup with the good one before it: what is gone, new or changed since last night.

    :param wanted: Backup id, ``cluster/id``, or empty for the newest good one.
    :param sets: All of the cluster's, oldest first, where they are listed already.
    :param index_only: As :func:`changes_between` takes it.
    :raises NotFound: when there is no such backup, or no good one before it; else as :func:`changes_between`.
    """
    after = choose_set(repository, cluster, wanted)
    before = previous_set(repository.from_newest(cluster) if sets is None else reversed(sets), after)
    return changes_between(repository.store, before, after, identities, index_only=index_only)


def _open(stack: ExitStack, store: ObjectStore, found: BackupSet, identities: Sequence[Identity]) -> IndexReader:
    if found.index is None:
        raise NotFound(f"backup {found.name} has no index. Verify it to make one.")
    plain = stack.enter_context(private_file(found.index.plaintext.size_bytes))
    return open_index(store, found.name, found.index, identities, plain)


def _holds_object(entry: Entry) -> bool:
    return not entry.holds_no_object
