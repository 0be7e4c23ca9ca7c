"""What fills an etcd: counts and bytes by kind and namespace, and the largest objects."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from heapq import heappush, heappushpop
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

    from etcdkeep.objects.entries import Entry

LARGEST = 10


class Share(NamedTuple):
    """How many objects take how much; the stored values alone."""

    name: str
    objects: int
    size_bytes: int


@dataclass(frozen=True)
class Stats:
    """
    Shares, the largest first.

    :param namespaces: Objects without one under an empty name.
    :param unreadable: What cannot be read, counted with its kind as its key tells it.
    """

    kinds: tuple[Share, ...]
    namespaces: tuple[Share, ...]
    largest: tuple[Entry, ...] = field(repr=False)
    total: Share
    unreadable: tuple[Entry, ...] = field(repr=False)


def count(found: Iterable[Entry], largest: int = LARGEST) -> Stats:
    """Add up what is in a snapshot; what holds no object counts as kind ``other``."""
    kinds: defaultdict[str, list[int]] = defaultdict(lambda: [0, 0])
    namespaces: defaultdict[str, list[int]] = defaultdict(lambda: [0, 0])
    heap: list[tuple[int, str, Entry]] = []
    unreadable: list[Entry] = []
    for entry in found:
        if entry.other and entry.resource:
            unreadable.append(entry)
        name = f"{entry.resource}.{entry.group}" if entry.group else entry.resource or "other"
        for share in (kinds[name], namespaces[entry.namespace]):
            share[0] += 1
            share[1] += entry.size_bytes
        candidate = (entry.size_bytes, entry.key, entry)
        if len(heap) < largest:
            heappush(heap, candidate)
        elif heap and candidate > heap[0]:
            heappushpop(heap, candidate)
    shares = _shares(kinds)
    total = Share("total", sum(share.objects for share in shares), sum(share.size_bytes for share in shares))
    return Stats(
        shares,
        _shares(namespaces),
        tuple(entry for _, _, entry in sorted(heap, reverse=True)),
        total,
        tuple(unreadable),
    )


def _shares(sums: dict[str, list[int]]) -> tuple[Share, ...]:
    shares = (Share(name, found, size) for name, (found, size) in sums.items())
    return tuple(sorted(shares, key=lambda share: (-share.size_bytes, share.name)))
