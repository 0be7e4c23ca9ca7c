"""A plan costs what its own cluster's sets cost, however much else is in the repository; counted, not timed."""

from __future__ import annotations

import tracemalloc
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from etcdkeep.ports import StoredObject
from etcdkeep.retention.prune import Pruner
from tests.builders import make_repository
from tests.shelf import Shelf
from tests.tripwire import Tripwire

if TYPE_CHECKING:
    from collections.abc import Iterator

RULES = {"daily": 3, "min_good": 2, "max_remove_share": 1}
LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


class Crowded(Tripwire):
    """Lists many more objects than there are, without keeping them: tombstones of the cluster, as of many years."""

    def __init__(self, store, more):
        super().__init__(store)
        self.more = more

    def list(self, prefix: str = "") -> Iterator[StoredObject]:
        yield from super().list(prefix)
        for number in range(self.more if prefix == "harbor/" else 0):
            yield StoredObject(
                f"harbor/removed/20200101T000000Z-{number:08x}/20200101T000000.000000Z.json", 9, LONG_AGO
            )


def plan(shelf, store):
    return Pruner(make_repository(store), shelf.cluster, lambda: store, "a test", lambda: shelf.now).dry_run()


def peak(shelf, more):
    tracemalloc.start()
    try:
        assert len(plan(shelf, Crowded(shelf.store, more)).plan.verdicts) == 5
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.fixture
def shelf(tmp_path):
    shelf = Shelf(tmp_path, retention=RULES)
    for day in range(5):
        shelf.add(day)
    return shelf


def test_memory_does_not_grow_with_the_number_of_objects(shelf):
    peak(shelf, 0)  # warms caches
    small, large = peak(shelf, 1_000), peak(shelf, 50_000)
    assert large < small + 8e6, "kept objects would cost some 20 MB; sets that are read at once a MiB each"


def test_each_document_is_read_once_and_only_of_the_cluster(shelf):
    store = Tripwire(shelf.store)
    plan(shelf, store)
    opened = [each for each in store.seen if each.startswith("open ")]
    assert len(opened) == len(set(opened))
    assert len(opened) <= 5 * 3, "manifest, signature and verification of each set"
    listed = [each for each in store.seen if each.startswith("list ")]
    assert all(each.startswith("list harbor/") for each in listed)
    assert listed.count("list harbor/") <= 2, "once for the plan, once for the orphans"


def test_twice_the_sets_cost_twice_the_operations(shelf):
    counts = []
    for more in (0, 5):
        for day in range(more):
            shelf.add(10 + day)
        store = Tripwire(shelf.store)
        plan(shelf, store)
        counts.append(len(store.seen))
    assert counts[1] <= 2 * counts[0]
