"""The objects of one backup in a form to search as one types: small in memory, from the index alone, without contents."""

from __future__ import annotations

from array import array
from collections import Counter
from dataclasses import dataclass
from functools import reduce
from itertools import accumulate, islice
from sys import getsizeof
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeVar

from etcdkeep.errors import NotFound
from etcdkeep.objects.index import stream_index
from etcdkeep.objects.index_key import refuse_whole_backups
from etcdkeep.objects.resources import Resource

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from etcdkeep.objects.entries import Entry
    from etcdkeep.ports import ObjectStore
    from etcdkeep.sealing.age_keys import Identity
    from etcdkeep.sets.backup_set import BackupSet

MOST_AT_ONCE = 1000
"""Objects that one answer has at most."""
Named = TypeVar("Named")
SortKey = Literal["kind", "namespace", "name", "size", "revision"]
_BETWEEN, _IN_PLACE = "\n", "\ufffd"


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

    :param rows: In any order; keys that hold no object are left out. A line break in a name shows as U+FFFD.
    :ivar kinds: Each kind with the number of its objects.
    :ivar namespaces: Each namespace likewise; objects without one under an empty name.
    """

    def __init__(self, rows: Iterable[Entry] = (), *, columns: _Columns | None = None) -> None:
        columns = columns or _Columns()
        columns.add(rows)
        order = columns.sort()
        self._resources, self._spaces = columns.resources, columns.spaces
        self._kinds, self._namespaces = _picked(columns.kinds, order), _picked(columns.namespaces, order)
        self._sizes, self._revisions = _picked(columns.sizes, order), _picked(columns.revisions, order)
        names = list(map(columns.names.__getitem__, order))
        self._names = _BETWEEN.join(names)
        self._starts = array("Q", accumulate((len(name) + 1 for name in names), initial=0))
        self._unreadable = {at: columns.unreadable[row] for at, row in enumerate(order) if row in columns.unreadable}
        self._orders = {
            key: array("I", sorted(range(len(names)), key=column.__getitem__))
            for key, column in (
                ("namespace", self._namespaces),
                ("name", names),
                ("size", self._sizes),
                ("revision", self._revisions),
            )
        }
        self.kinds = _counted(self._resources, self._kinds)
        self.namespaces = _counted(self._spaces, self._namespaces)

    def __len__(self) -> int:
        """Return how many objects there are."""
        return len(self._kinds)

    @property
    def size_bytes(self) -> int:
        """Memory that its columns take."""
        columns = (self._starts, self._kinds, self._namespaces, self._sizes, self._revisions, *self._orders.values())
        return getsizeof(self._names) + sum(len(each) * each.itemsize for each in columns)

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
            kinds = [each.full_name in query.kinds for each in self._resources]
            yield map(kinds.__getitem__, self._kinds)
        if query.namespaces:
            spaces = [each in query.namespaces for each in self._spaces]
            yield map(spaces.__getitem__, self._namespaces)
        if text := query.text.lower():  # in text this takes a tenth of what it takes in bytes
            yield [text in name for name in self._names.lower().split(_BETWEEN)][: len(self)]

    def _object(self, row: int) -> FoundObject:
        name = self._names[self._starts[row] : self._starts[row + 1] - 1]
        resource, namespace = self._resources[self._kinds[row]], self._spaces[self._namespaces[row]]
        unreadable = self._unreadable.get(row, "")
        return FoundObject(resource, namespace, name, self._sizes[row], self._revisions[row], unreadable)


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
    """Objects while they are read, a column for each fact; what repeats is a number that stands for it."""

    def __init__(self) -> None:
        self.kinds, self.namespaces = array("I"), array("I")
        self.sizes, self.revisions = array("Q"), array("Q")
        self.names: list[str] = []
        self.unreadable: dict[int, str] = {}
        self._types: dict[tuple[str, str, str], int] = {}
        self._places: dict[str, int] = {}

    def add(self, entries: Iterable[Entry]) -> None:
        """Take more objects in."""
        for entry in entries:
            group, resource, kind, _, namespace, name, _, revision, _, size_bytes, other, _ = entry
            if other:
                if not resource:
                    continue
                self.unreadable[len(self.names)] = other
            self.kinds.append(self._types.setdefault((group, resource, kind), len(self._types)))
            self.namespaces.append(self._places.setdefault(namespace, len(self._places)))
            self.sizes.append(size_bytes)
            self.revisions.append(revision)
            self.names.append(name.replace(_BETWEEN, _IN_PLACE))

    def sort(self) -> list[int]:
        """Number kinds and namespaces in the order of their names; return the rows in order of kind, namespace and name."""
        types = sorted(self._types, key=lambda each: (each[1], each[0], each[2]))
        self.resources, self.spaces = [Resource(*each) for each in types], sorted(self._places)
        self.kinds = _renumbered(self.kinds, [self._types[each] for each in types])
        self.namespaces = _renumbered(self.namespaces, [self._places[each] for each in self.spaces])
        order = sorted(range(len(self.names)), key=self.names.__getitem__)
        order.sort(key=self.namespaces.__getitem__)
        order.sort(key=self.kinds.__getitem__)
        return order


def _renumbered(codes: array[int], in_order: Sequence[int]) -> array[int]:
    """Return codes with new numbers: those of the place that each has in `in_order`."""
    places = {code: place for place, code in enumerate(in_order)}
    return array("I", map(places.__getitem__, codes))


def _picked(column: array[int], order: Iterable[int]) -> array[int]:
    return array(column.typecode, map(column.__getitem__, order))


def _counted(names: Sequence[Named], codes: array[int]) -> tuple[tuple[Named, int], ...]:
    counts = Counter(codes)
    return tuple((name, counts[code]) for code, name in enumerate(names))


def _both(one: bytes, other: bytes) -> bytes:
    """Return what both masks say yes to; as numbers, since byte by byte takes ten times as long."""
    return (int.from_bytes(one) & int.from_bytes(other)).to_bytes(len(one))
