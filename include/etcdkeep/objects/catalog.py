"""The objects of one backup in a form to search as one types: small in memory, from the index alone, without contents."""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from functools import reduce
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from etcdkeep.errors import NotFound
from etcdkeep.objects.columns import ObjectColumns, column_bytes, picked
from etcdkeep.objects.index import stream_index
from etcdkeep.objects.index_key import refuse_whole_backups

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from etcdkeep.objects.entries import Entry
    from etcdkeep.objects.resources import Resource
    from etcdkeep.ports import ObjectStore
    from etcdkeep.sealing.age_keys import Identity
    from etcdkeep.sets.backup_set import BackupSet

MOST_AT_ONCE = 1000
"""Objects that one answer has at most."""
SortKey = Literal["kind", "namespace", "name", "size", "revision"]


@dataclass(frozen=True)
class Query:
    """
    What to look for; empty means everything.

    :param text: Part of the name, in any case.
    :param kinds: ``deployments.apps``, ``pods``.
    :param namespaces: An empty one means objects without a namespace.
    :param sort: Ties are in order of kind, namespace and name.
    :param limit: How many to return, of those from `offset` on; at most :data:`MOST_AT_ONCE`.
    """

    text: str = ""
    kinds: tuple[str, ...] = ()
    namespaces: tuple[str, ...] = ()
    sort: SortKey = "kind"
    descending: bool = False
    offset: int = 0
    limit: int = 100


class FoundObject(NamedTuple):
    """
    One object.

    :param revision: When it was last written.
    :param unreadable: Why its value cannot be read; empty where it can.
    """

    resource: Resource
    namespace: str
    name: str
    size_bytes: int
    revision: int
    unreadable: str = ""

    def as_json(self) -> dict[str, Any]:
        """Return it for programs and pages."""
        kind = {"group": self.resource.group, "resource": self.resource.plural, "kind": self.resource.kind}
        return {**kind, **{name: getattr(self, name) for name in self._fields[1:]}}


@dataclass(frozen=True)
class Found:
    """
    An answer.

    :param total: How many objects there are, of which `objects` are some.
    """

    total: int
    offset: int
    objects: tuple[FoundObject, ...]

    def as_json(self) -> dict[str, Any]:
        """Return it for programs and pages."""
        return {"total": self.total, "offset": self.offset, "objects": [each.as_json() for each in self.objects]}


class Catalog:
    """
    What a backup holds, in columns; never changed once made, so that threads may share it.

    :param rows: In any order; keys that hold no object are left out.
    :ivar kinds: Each kind with the number of its objects.
    :ivar namespaces: Each namespace likewise; objects without one under an empty name.
    """

    def __init__(self, rows: Iterable[Entry] = (), *, columns: _Columns | None = None) -> None:
        columns = columns or _Columns()
        columns.add(rows)
        self._objects, order = columns.objects.sort()
        self._sizes, self._revisions = picked(columns.sizes, order), picked(columns.revisions, order)
        self._unreadable = {at: columns.unreadable[row] for at, row in enumerate(order) if row in columns.unreadable}
        self._orders = {
            key: array("I", sorted(range(len(order)), key=column.__getitem__))
            for key, column in (
                ("namespace", self._objects.namespaces),
                ("name", list(self._objects.names())),
                ("size", self._sizes),
                ("revision", self._revisions),
            )
        }
        self.kinds, self.namespaces = self._objects.per_kind(), self._objects.per_namespace()

    def __len__(self) -> int:
        """Return how many objects there are."""
        return len(self._objects)

    @property
    def size_bytes(self) -> int:
        """Memory that its columns take."""
        return self._objects.size_bytes + sum(map(column_bytes, (self._sizes, self._revisions, *self._orders.values())))

    def search(self, query: Query) -> Found:
        """Return the objects that a query asks for, and how many there are in all."""
        order: Sequence[int] = range(len(self)) if query.sort == "kind" else self._orders[query.sort]
        rows = reversed(order) if query.descending else iter(order)
        total = len(self)
        if masks := list(map(bytes, self._masks(query))):
            wanted = reduce(_both, masks)
            total = wanted.count(1)
            rows = (row for row in rows if wanted[row])
        first = max(query.offset, 0)
        page = islice(rows, first, first + max(0, min(query.limit, MOST_AT_ONCE)))
        return Found(total, first, tuple(map(self._object, page)))

    def _masks(self, query: Query) -> Iterator[Iterable[bool]]:
        """Say of each row, for each condition of a query, whether it holds."""
        if query.kinds:
            asked = frozenset(query.kinds)
            kinds = [each.full_name in asked for each in self._objects.resources]
            yield map(kinds.__getitem__, self._objects.kinds)
        if query.namespaces:
            asked = frozenset(query.namespaces)  # a part of a name may mean thousands
            spaces = [each in asked for each in self._objects.spaces]
            yield map(spaces.__getitem__, self._objects.namespaces)
        if text := query.text.lower():  # in text this takes a tenth of what it takes in bytes
            yield (text in name for name in self._objects.names(lower=True))

    def _object(self, row: int) -> FoundObject:
        return FoundObject(*self._objects.place(row), self._sizes[row], self._revisions[row], self._unreadable.get(row, ""))  # fmt: skip


def open_catalog(
    store: ObjectStore, found: BackupSet, identities: Sequence[Identity], *, index_only: bool = False
) -> Catalog:
    """
    Make the catalog of a backup from its index.

    :param index_only: Whether the identities are for indexes alone, and must open no artifact.
    :raises NotFound: when it has no index, or that is gone.
    :raises ObjectDamaged: when the index is not what was recorded.
    :raises IdentityMismatch: when none of the identities opens it.
    :raises ConfigError: when one opens an artifact too, and must not.
    """
    if found.index is None:
        raise NotFound(f"backup {found.name} has no index. Verify it to make one.")
    if index_only:
        refuse_whole_backups(found, identities)
    columns = _Columns()
    stream_index(store, found.name, found.index, identities, lambda block: columns.add(entry for entry, _ in block))
    return Catalog(columns=columns)


class _Columns:
    """Objects while they are read."""

    def __init__(self) -> None:
        self.objects = ObjectColumns()
        self.sizes, self.revisions = array("Q"), array("Q")
        self.unreadable: dict[int, str] = {}

    def add(self, entries: Iterable[Entry]) -> None:
        """Take more objects in."""
        for entry in entries:
            _, resource, _, _, _, _, _, revision, _, size_bytes, other, _ = entry
            if other:
                if not resource:
                    continue
                self.unreadable[len(self.objects)] = other
            self.objects.add(entry)
            self.sizes.append(size_bytes)
            self.revisions.append(revision)


def _both(one: bytes, other: bytes) -> bytes:
    """Return what both masks say yes to; as numbers, since byte by byte takes ten times as long."""
    return (int.from_bytes(one) & int.from_bytes(other)).to_bytes(len(one))
