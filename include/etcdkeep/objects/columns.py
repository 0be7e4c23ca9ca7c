"""Kind, namespace and name of many objects, small in memory: a column each, where what repeats is a number that stands for it."""

from __future__ import annotations

from array import array
from collections import Counter
from itertools import accumulate
from sys import getsizeof
from typing import TYPE_CHECKING, TypeVar

from etcdkeep.objects.resources import Resource

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from etcdkeep.objects.entries import Entry

_BETWEEN, _IN_PLACE = "\n", "\ufffd"
_NAMES_AT_ONCE = 4096
Named = TypeVar("Named")


class ObjectColumns:
    """Objects while they are read, in any order."""

    def __init__(self) -> None:
        self._kinds, self._namespaces = array("I"), array("I")
        self._names: list[str] = []
        self._types: dict[tuple[str, str, str], int] = {}
        self._spaces: dict[str, int] = {}

    def __len__(self) -> int:
        """Return how many objects there are."""
        return len(self._names)

    def add(self, entry: Entry) -> None:
        """Take one more object in."""
        group, resource, kind, _, namespace, name = entry[:6]
        self._kinds.append(self._types.setdefault((group, resource, kind), len(self._types)))
        self._namespaces.append(self._spaces.setdefault(namespace, len(self._spaces)))
        self._names.append(name.replace(_BETWEEN, _IN_PLACE))

    def sort(self) -> tuple[SortedObjects, list[int]]:
        """
        Return the objects in order of kind, namespace and name, and where each was before.

        What is stored under one plural and group is of one kind: what encrypted values do not tell, others may.
        """
        numbers = Counter(self._kinds)
        told: dict[tuple[str, str], str] = {}
        for group, resource, kind in sorted(self._types, key=lambda each: (bool(each[2]), numbers[self._types[each]])):
            told[resource, group] = kind  # the last one is a kind that most of them name
        types, spaces = sorted(told), sorted(self._spaces)
        kinds = _renumbered(self._kinds, {self._types[each]: (each[1], each[0]) for each in self._types}, types)
        namespaces = _renumbered(self._namespaces, {code: each for each, code in self._spaces.items()}, spaces)
        order = sorted(range(len(self)), key=self._names.__getitem__)
        order.sort(key=namespaces.__getitem__)
        order.sort(key=kinds.__getitem__)
        names = list(map(self._names.__getitem__, order))
        resources = [Resource(group, resource, told[resource, group]) for resource, group in types]
        return SortedObjects(resources, spaces, picked(kinds, order), picked(namespaces, order), names), order


class SortedObjects:
    """
    Objects in order of kind, namespace and name; never changed once made, so that threads may share them.

    :ivar resources: Each kind; `kinds` has the place of its own for each object.
    :ivar spaces: Each namespace, empty for none; `namespaces` likewise.
    """

    def __init__(
        self, resources: Sequence[Resource], spaces: Sequence[str], kinds: array[int], namespaces: array[int], names: Sequence[str]
    ) -> None:  # fmt: skip
        self.resources, self.spaces = resources, spaces
        self.kinds, self.namespaces = kinds, namespaces
        self._names = _BETWEEN.join(names)
        self._starts = array("Q", accumulate((len(name) + 1 for name in names), initial=0))

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self.kinds)

    @property
    def size_bytes(self) -> int:
        """Memory that the columns take."""
        return getsizeof(self._names) + sum(map(column_bytes, (self._starts, self.kinds, self.namespaces)))

    def place(self, row: int) -> tuple[Resource, str, str]:
        """Return kind, namespace and name of one object. A line break in its name shows as U+FFFD."""
        name = self._names[self._starts[row] : self._starts[row + 1] - 1]
        return self.resources[self.kinds[row]], self.spaces[self.namespaces[row]], name

    def names(self, *, lower: bool = False) -> Iterator[str]:
        """Yield the names of all, some at a time: many may search at once."""
        for first in range(0, len(self), _NAMES_AT_ONCE):
            past = min(first + _NAMES_AT_ONCE, len(self))
            names = self._names[self._starts[first] : self._starts[past] - 1]
            yield from (names.lower() if lower else names).split(_BETWEEN)

    def per_kind(self) -> tuple[tuple[Resource, int], ...]:
        """Return each kind with the number of its objects."""
        return _counted(self.resources, self.kinds)

    def per_namespace(self) -> tuple[tuple[str, int], ...]:
        """Return each namespace with the number of its objects."""
        return _counted(self.spaces, self.namespaces)


def picked(column: array[int], order: Iterable[int]) -> array[int]:
    """Return a column in another order."""
    return array(column.typecode, map(column.__getitem__, order))


def column_bytes(column: array[int]) -> int:
    """Return the memory that a column takes."""
    return len(column) * column.itemsize


def _renumbered(codes: array[int], named: Mapping[int, Named], in_order: Sequence[Named]) -> array[int]:
    """Return codes with new numbers: where in `in_order` stands what each code stands for."""
    places = {name: place for place, name in enumerate(in_order)}
    new = {code: places[name] for code, name in named.items()}
    return array("I", map(new.__getitem__, codes))


def _counted(names: Sequence[Named], codes: array[int]) -> tuple[tuple[Named, int], ...]:
    counts = Counter(codes)
    return tuple((name, counts[code]) for code, name in enumerate(names))
