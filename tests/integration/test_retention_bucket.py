"""Pruning in a bucket, where objects can be locked: what its listing tells of locks is believed."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from etcdkeep.adapters.stores.directory import DirectoryStore
from etcdkeep.retention.prune import Pruner
from tests.builders import make_verification
from tests.gcs_stub import gcs_stub
from tests.shelf import Shelf
from tests.stores import bucket_store

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.gcs_stub import GcsStub


@pytest.fixture
def stub() -> Iterator[GcsStub]:
    with gcs_stub() as running:
        yield running


def test_locked_sets_stay_and_are_no_failure(stub: GcsStub, tmp_path: Path) -> None:
    shelf = Shelf(
        tmp_path, bucket_store(stub.url, "team"), retention={"daily": 2, "min_good": 1, "max_remove_share": 1}
    )
    locked, removed, *kept = [shelf.add(day) for day in (3, 2, 1, 0)]
    for name, stored in stub.objects.items():
        if locked in name:
            until = shelf.now + timedelta(days=20)
            stored.retention = {"mode": "Locked", "retainUntilTime": f"{until:%Y-%m-%dT%H:%M:%S.000000Z}"}
    pruner = Pruner(shelf.repository, shelf.cluster, lambda: DirectoryStore(tmp_path), "a test", lambda: shelf.now)
    for _ in range(2):
        report = pruner.run()
        assert (report.refused, report.stayed) == ((), {})
        assert shelf.ids() == [locked, *kept]
        assert report.plan.kept[0].reasons == (f"locked until {shelf.now + timedelta(days=20):%Y-%m-%d}",)
    assert shelf.names(f"harbor/{removed}/") == []


def test_the_floor_is_locked_anew(stub: GcsStub, tmp_path: Path) -> None:
    shelf = Shelf(tmp_path, bucket_store(stub.url, "team"), retention={"daily": 9, "min_good": 1}, immutable_days=7)
    old, newest = shelf.add(1), shelf.add(0)
    Pruner(shelf.repository, shelf.cluster, lambda: DirectoryStore(tmp_path), "a test", lambda: shelf.now).renew_locks()
    assert shelf.get(newest).locked_until == shelf.now + timedelta(days=7)
    assert shelf.get(old).locked_until is None


def test_a_tier_s_lock_is_longer_and_its_end_removes_nothing_early(stub: GcsStub, tmp_path: Path) -> None:
    rules = {"daily": 2, "monthly": 3, "min_good": 1, "enforce": True, "lock_days": {"daily": 2, "monthly": 60}}
    shelf = Shelf(tmp_path, bucket_store(stub.url, "team"), retention=rules)
    monthly, newest = shelf.add(45), shelf.add(0)
    pruner = Pruner(shelf.repository, shelf.cluster, lambda: DirectoryStore(tmp_path), "a test", lambda: shelf.now)
    pruner.renew_locks()
    pruner.run()
    assert shelf.get(monthly).locked_until == shelf.get(monthly).taken_at + timedelta(days=60)
    assert shelf.get(newest).locked_until is None, "its month is not over"


def test_a_lock_changes_no_order_of_records(stub: GcsStub, tmp_path: Path) -> None:
    """A bucket's object has a new `updated` when it is locked."""
    shelf = Shelf(tmp_path, bucket_store(stub.url, "team"))
    identifier = shelf.add(1)
    (first,) = shelf.names(f"harbor/{identifier}/verification/")
    shelf.repository.record(shelf.get(identifier), make_verification(at=shelf.now, problems=("a page is damaged",)))
    assert shelf.get(identifier).state == "bad"
    shelf.store.protect(first, shelf.now + timedelta(days=1))
    assert shelf.get(identifier).state == "bad"
