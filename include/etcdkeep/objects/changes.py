"""
What changed from one backup to another, from their indexes: counts first, names on demand, contents never.

Small in memory, as somebody may have whole clusters compared that share nothing: what differs is kept in columns, and of an index
that is read no more than a digest for each object.
"""

from __future__ import annotations

from array import array
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

from etcdkeep.errors import NotFound
from etcdkeep.objects.columns import ObjectColumns, column_bytes, picked
from etcdkeep.objects.compare import ADDED, CHANGED, RECREATED, REMOVED, ChangeCount, kind_json, rewritten
from etcdkeep.objects.index import stream_index
from etcdkeep.objects.index_key import refuse_whole_backups
from etcdkeep.sets.choosing import choose_set, previous_set

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from etcdkeep.objects.columns import SortedObjects
    from etcdkeep.objects.entries import Entry
    from etcdkeep.objects.resources import Resource
    from etcdkeep.ports import ObjectStore
    from etcdkeep.sealing.age_keys import Identity
    from etcdkeep.sets.backup_set import BackupSet
    from etcdkeep.sets.repository import Repository

    Rows = Iterable[tuple[Entry, str]]

_WHATS = (ADDED, REMOVED, CHANGED, RECREATED)


class NamedChange(NamedTuple):
    """
    What became of one object.

    :param what: ``added``, ``removed``, ``changed``, or ``recreated``: deleted and made anew under the same name.
    :param before: The revision at which it was last written; None where it did not exist, as is `after`.
    """

    what: str
    resource: Resource
    namespace: str
    name: str
    before: int | None
    after: int | None

    def as_json(self) -> dict[str, Any]:
        """Return it for programs and pages."""
        place = {"namespace": self.namespace, "name": self.name}
        return {"change": self.what, **kind_json(self.resource), **place, "before": self.before, "after": self.after}


class SetChanges:
    """
    What differs between two backups; never changed once made, so that threads may share it.

    :param before: ``cluster/backup-id``, as is `after`.
    """

    def __init__(self, before: str, after: str, found: _Differences) -> None:
        self.before, self.after = before, after
        self._objects, order = found.objects.sort()
        self._whats, self._old, self._new = (picked(each, order) for each in (found.whats, found.old, found.new))
        self._counts = _counted(self._objects, self._whats)

    def __len__(self) -> int:
        """Return how many objects differ."""
        return len(self._objects)

    @property
    def size_bytes(self) -> int:
        """Memory that its columns take."""
        return self._objects.size_bytes + sum(map(column_bytes, (self._whats, self._old, self._new, *self._counts)))

    def counts(self, limit: int | None = None) -> tuple[int, tuple[ChangeCount, ...]]:
        """Return how many counts there are, and the first of them: by kind and namespace, what lost most objects first."""
        return len(self._counts[0]), tuple(
            ChangeCount(self._objects.resources[kind], self._objects.spaces[space], *numbers)
            for kind, space, *numbers in islice(zip(*self._counts, strict=True), limit)
        )

    def named(
        self,
        *,
        what: str | None = None,
        kind: str | None = None,
        namespace: str | None = None,
        limit: int | None = None,
    ) -> tuple[int, tuple[NamedChange, ...]]:
        """
        Return how many changes are behind a count, and the first of them in order of kind, namespace and name.

        :param kind: ``deployments.apps``, ``pods``.
        """
        objects = self._objects
        whats = {code for code, each in enumerate(_WHATS) if what in (None, each)}
        kinds = {code for code, each in enumerate(objects.resources) if kind in (None, each.full_name)}
        spaces = {code for code, each in enumerate(objects.spaces) if namespace in (None, each)}
        columns = enumerate(zip(self._whats, objects.kinds, objects.namespaces, strict=True))
        rows = (row for row, each in columns if each[0] in whats and each[1] in kinds and each[2] in spaces)
        named = tuple(map(self._change, islice(rows, limit)))
        return len(named) + sum(1 for _ in rows), named

    def as_json(self, names: Iterable[NamedChange] = (), *, counts: int | None = None) -> dict[str, Any]:
        """
        Return the counts for programs and pages.

        :param names: The changes to name, such as :meth:`named` gives.
        :param counts: How many at most; ``more_counts`` says how many are left out.
        """
        total, first = self.counts(counts)
        return {
            "before": self.before,
            "after": self.after,
            "counts": [each.as_json() for each in first],
            "more_counts": total - len(first),
            "names": [each.as_json() for each in names],
        }

    def _change(self, row: int) -> NamedChange:
        what = _WHATS[self._whats[row]]
        before = None if what == ADDED else self._old[row]
        after = None if what == REMOVED else self._new[row]
        return NamedChange(what, *self._objects.place(row), before, after)


def _counted(objects: SortedObjects, whats: array[int]) -> tuple[array[int], ...]:
    """
    Count what differs by kind and namespace, what lost most objects first.

    :return: Columns, as there may be as many counts as objects: kind, namespace, then a number for each of `_WHATS`.
    """
    kinds, spaces, *numbers = columns = tuple(array("I") for _ in ("kind", "namespace", *_WHATS))
    for what, kind, space in zip(whats, objects.kinds, objects.namespaces, strict=True):
        if not kinds or (kinds[-1], spaces[-1]) != (kind, space):
            for column, value in zip(columns, (kind, space, *(0 for _ in numbers)), strict=True):
                column.append(value)
        numbers[what][-1] += 1
    totals = array("Q", map(sum, zip(*numbers, strict=True)))
    names = [each.names for each in objects.resources]
    order = sorted(range(len(kinds)), key=lambda row: names[kinds[row]])
    for column in (totals, numbers[_WHATS.index(REMOVED)]):
        order.sort(key=column.__getitem__, reverse=True)  # what is equal stays in order
    return tuple(picked(each, order) for each in columns)


def changes_between(
    store: ObjectStore, before: BackupSet, after: BackupSet, identities: Sequence[Identity], *, index_only: bool = False
) -> SetChanges:
    """
    Compare two backups by their indexes; keys that hold no object are left out.

    :param index_only: Whether the identities are for indexes alone, and must open no artifact.
    :raises NotFound: when one of them has no index, or its index is gone.
    :raises ObjectDamaged: when an index is not what was recorded.
    :raises IdentityMismatch: when none of the identities opens an index.
    :raises ConfigError: when one opens an artifact too, and must not.
    """
    if index_only:
        for each in (before, after):
            refuse_whole_backups(each, identities)

    def read(found: BackupSet, take: Callable[[Rows], None]) -> None:
        if found.index is None:
            raise NotFound(f"backup {found.name} has no index. Verify it to make one.")
        stream_index(store, found.name, found.index, identities, take)

    old, found = _Before(), _Differences()
    read(before, old.add)
    read(after, lambda rows: found.compare(old, rows))
    if old.rows:
        read(before, lambda rows: found.remove(old, rows))
    return SetChanges(before.name, after.name, found)


class _Before:
    """
    The earlier backup: what tells whether an object is another one.

    :ivar rows: Of each key that was not met in the later backup, where in the columns it stands.
    """

    def __init__(self) -> None:
        self.rows: dict[str, int] = {}
        self.digests = bytearray()
        self.revisions, self.created = array("Q"), array("Q")

    def add(self, rows: Rows) -> None:
        for entry, digest in rows:
            if not entry.holds_no_object:
                self.rows[entry.key] = len(self.revisions)
                self.digests += bytes.fromhex(digest)
                self.revisions.append(entry.revision)
                self.created.append(entry.create_revision)

    def digest(self, row: int) -> bytearray:
        size = len(self.digests) // len(self.revisions)
        return self.digests[row * size : (row + 1) * size]


class _Differences:
    """What differs, while it is found."""

    def __init__(self) -> None:
        self.objects = ObjectColumns()
        self.whats, self.old, self.new = array("B"), array("Q"), array("Q")

    def compare(self, before: _Before, rows: Rows) -> None:
        """Take in objects of the later backup; stored bytes that are equal count as the same, whoever wrote them and when."""
        for entry, digest in rows:
            if entry.holds_no_object:
                continue
            row = before.rows.pop(entry.key, None)
            if row is None:
                self._add(ADDED, entry, 0, entry.revision)
            elif before.digest(row) != bytes.fromhex(digest):
                what = rewritten(before.created[row], entry.create_revision)
                self._add(what, entry, before.revisions[row], entry.revision)

    def remove(self, before: _Before, rows: Rows) -> None:
        """Take in, of the objects of the earlier backup, those that the later one has no more."""
        for entry, _ in rows:
            if entry.key in before.rows:
                self._add(REMOVED, entry, entry.revision, 0)

    def _add(self, what: str, entry: Entry, old: int, new: int) -> None:
        self.whats.append(_WHATS.index(what))
        self.objects.add(entry)
        self.old.append(old)
        self.new.append(new)


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
