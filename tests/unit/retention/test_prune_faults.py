"""A prune that is killed, or that a store fails or refuses, at each of its steps; and what the second run makes of it."""

from __future__ import annotations

from contextlib import suppress

import pytest

from etcdkeep import naming
from etcdkeep.errors import AccessDenied, StoreUnavailable
from etcdkeep.retention.tombstones import Tombstones
from tests.shelf import Shelf
from tests.tripwire import Killed, Tripwire
from tests.unit.retention.test_prune import RULES, fill, of_set, pruner

FEW = {**RULES, "daily": 2}
CHANGING = ("create", "delete", "purge", "stat")


def _operations(tmp_path, only):
    """Return how many operations one run takes that has one set to remove."""
    shelf = Shelf(tmp_path / "counted", retention=FEW)
    fill(shelf, days=3)
    store = Tripwire(shelf.store, only=only)
    pruner(shelf, store).run()
    return len(store.seen)


@pytest.mark.parametrize(
    ("error", "after", "only"),
    [
        pytest.param(Killed, False, CHANGING, id="killed"),
        pytest.param(Killed, True, CHANGING, id="killed-after"),
        pytest.param(lambda: StoreUnavailable("503"), False, (), id="failed"),
        pytest.param(lambda: StoreUnavailable("the answer was lost"), True, CHANGING, id="answer-lost"),
        pytest.param(lambda: AccessDenied("403"), False, ("delete",), id="refused"),
    ],
)
def test_a_fault_at_any_step_loses_nothing_and_a_second_run_finishes(tmp_path, error, after, only):
    steps = _operations(tmp_path, only)
    assert steps >= (7 if only == ("delete",) else 12), "the probe, the objects of one set, its attempt, the turn"
    for step in range(1, steps + 1):
        shelf = Shelf(tmp_path / f"{step}", retention=FEW)
        *removed, second, newest = (shelf.add(day) for day in (2, 1, 0))
        store = Tripwire(shelf.store, step, error, after=after, only=only)
        with suppress(Killed, StoreUnavailable):
            pruner(shelf, store).run()
        where = f"after step {step}: {store.seen[-1]}"
        assert len(store.seen) >= step, where
        for found in shelf.repository.sets("harbor"):
            assert (found.state, found.missing) == ("good", ()), where
        assert {second, newest} <= set(shelf.ids()), where
        pruner(shelf).run()
        assert shelf.ids() == [second, newest], where
        assert of_set(shelf, removed[0]) == [], where
        assert len(Tombstones(shelf.repository.records, "harbor").of(removed[0])) == 1, where


def test_a_run_that_dies_between_manifest_and_artifacts_leaves_no_listed_half_set(tmp_path):
    shelf = Shelf(tmp_path, retention=RULES)
    _, removed = fill(shelf)
    store = Tripwire(shelf.store, 3, only=("delete",))  # the probe, the manifest, the signature
    with pytest.raises(Killed):
        pruner(shelf, store).run()
    assert removed[0] not in shelf.ids()
    assert f"harbor/{removed[0]}/{naming.ETCD_ARTIFACT}" in shelf.names()
    report = pruner(shelf).run()
    assert report.finished == removed[:1]
    assert report.removed == removed[1:]
