"""Which objects a person means: namespaces, kinds and names."""

from __future__ import annotations

from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, TypeVar

from etcdkeep.objects.resources import Resource, resolve

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Mapping

    from etcdkeep.objects.entries import Entry
    from etcdkeep.objects.labels import Requirement

T = TypeVar("T")


@dataclass(frozen=True)
class Selection:
    """
    What to list; empty means everything.

    :param kinds: As :func:`~etcdkeep.objects.resources.resolve` takes them.
    :param name: A glob.
    :param labels: For the caller to apply: an entry does not know its object's labels.
    :param other: Whether keys that hold no object are meant too.
    """

    namespaces: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    name: str = ""
    labels: tuple[Requirement, ...] = field(default=())
    other: bool = False

    def takes_place(self, namespace: str, name: str) -> bool:
        """Whether an object of some kind at this place is meant."""
        return (not self.namespaces or namespace in self.namespaces) and (not self.name or fnmatchcase(name, self.name))

    def takes_labels(self, labels: Mapping[str, str]) -> bool:
        """Whether an object with these labels is meant."""
        return all(requirement.holds(labels) for requirement in self.labels)


def select(found: Iterable[tuple[Entry, T]], selection: Selection) -> list[tuple[Entry, T]]:
    """
    Return what is meant, in the order of the keys, what holds no object last.

    :raises NotFound: when one of the kinds is unknown or ambiguous.
    """
    chosen, types = gather(found, selection)
    if selection.kinds:
        chosen = of_types(chosen, choose_types(types, selection.kinds))
    chosen.sort(key=_order)
    return chosen


def gather(
    found: Iterable[tuple[Entry, T]], selection: Selection
) -> tuple[list[tuple[Entry, T]], set[tuple[str, str, str]]]:
    """Return what is meant, of all kinds, and what kinds there are: group, plural and kind."""
    types: set[tuple[str, str, str]] = set()
    chosen: list[tuple[Entry, T]] = []
    for pair in found:
        entry = pair[0]
        if entry.other:
            if selection.other and not selection.kinds and selection.takes_place("", entry.name):
                chosen.append(pair)
            continue
        types.add(entry[:3])
        if selection.takes_place(entry.namespace, entry.name):
            chosen.append(pair)
    return chosen, types


def of_types(found: Iterable[tuple[Entry, T]], types: Container[tuple[str, str, str]]) -> list[tuple[Entry, T]]:
    """Return what is of one of the kinds."""
    return [pair for pair in found if pair[0][:3] in types]


def choose_types(types: Iterable[tuple[str, str, str]], kinds: Iterable[str]) -> set[tuple[str, str, str]]:
    """
    Return group, plural and kind of the resources that are meant.

    :param types: What there is.
    :raises NotFound: when one of the kinds is unknown or ambiguous.
    """
    known = [Resource(*each) for each in types]
    wanted = {resource.full_name for kind in kinds for resource in resolve(kind, known)}
    return {(each.group, each.plural, each.kind) for each in known if each.full_name in wanted}


def _order(pair: tuple[Entry, T]) -> str:
    entry = pair[0]
    return "\U0010ffff" + entry.key if entry.other else entry.key
