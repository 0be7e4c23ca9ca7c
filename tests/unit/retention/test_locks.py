"""How long each set is locked: by its tier, by the floor, by a pin, and never by a mistake for a century."""

from __future__ import annotations

from datetime import timedelta

import pytest

from etcdkeep import naming
from etcdkeep.config.loading import parse_config
from etcdkeep.errors import AccessDenied
from etcdkeep.retention.locks import locks_due
from etcdkeep.retention.plan import SetFacts, plan_prune
from etcdkeep.retention.prune import Pruner
from etcdkeep.sets.pins import Pin
from tests.builders import make_cluster, make_entry, make_file, make_repository
from tests.shelf import Shelf
from tests.tripwire import Tripwire
from tests.unit.retention.histories import NOW

TIERS = {"daily": 7, "weekly": 4, "monthly": 12, "lock_days": {"daily": 7, "weekly": 28, "monthly": 365}}


def night(days_ago, **fields):
    at = (NOW - timedelta(days=days_ago)).replace(hour=2)
    return SetFacts(f"{at:%Y%m%dT%H%M%SZ}-00000000", at, **fields)


def due(sets, cluster):
    """Return days ago of each set → until when it is to be locked, in days from when it was taken."""
    plan = plan_prune(sets, cluster.retention, NOW)
    ends = locks_due(plan, cluster, NOW)
    return {(NOW - each.taken_at).days: (ends[each.backup_id] - each.taken_at).days for each in sets if each.backup_id in ends}  # fmt: skip


def test_a_set_is_locked_by_its_tier_once_its_period_is_over():
    cluster = make_cluster(retention={**TIERS, "enforce": True, "min_good": 1})
    found = due([night(day) for day in range(60)], cluster)
    # 23 November 2026 is a Monday: the newest set is that of a day, week and month that are not over.
    assert found == {1: 28, 2: 7, 3: 7, 4: 7, 5: 7, 6: 7, 8: 28, 15: 28, 23: 365, 54: 365}


def test_without_enforce_no_tier_locks():
    assert due([night(day) for day in range(60)], make_cluster(retention=TIERS)) == {}


def test_the_floor_and_pins_are_locked_from_now_on_and_others_are_not():
    cluster = make_cluster(retention={"daily": 9, "min_good": 2}, immutable_days=30)
    sets = [night(0), night(1), night(2), night(3, pinned="golden"), night(4, state="bad", pinned="for analysis")]
    assert due(sets, cluster) == {0: 30, 1: 31, 3: 33, 4: 34}
    assert due([night(1, believed=False, state="unsigned", pinned="x")], cluster) == {}


def test_while_backups_fail_the_lock_of_the_floor_moves_on():
    cluster = make_cluster(retention={"daily": 3, "min_good": 1}, immutable_days=10)
    sets = [night(40), *(night(day, state="bad") for day in range(40))]
    assert due(sets, cluster)[40] == 50


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        pytest.param({"immutable_days": 36500}, "immutable_days: ", id="a-century"),
        pytest.param({"immutable_days": 401}, "immutable_days: ", id="every-set-longer-than-a-year"),
        pytest.param(
            {"retention": {"monthly": 12, "lock_days": {"monthly": 3650}}},
            "lock_days.monthly is 3650, longer than monthly: 12 keeps a set (372 days)",
            id="longer-than-the-rule",
        ),
        pytest.param(
            {"retention": {"daily": 12, "lock_days": {"yearly": 300}}},
            "lock_days.yearly is 300, but there is no rule yearly",
            id="no-such-rule",
        ),
        pytest.param({"retention": {"yearly": 99, "lock_days": {"yearly": 36500}}}, "retention.lock_days.yearly: ", id="a-century-of-years"),
        pytest.param({"retention": {"daily": 1, "lock_days": {"dayly": 1}}}, "retention.lock_days.dayly", id="mistyped"),
    ],
)  # fmt: skip
def test_a_lock_that_is_too_long_is_a_configuration_error(entry, said):
    (problem,) = parse_config(make_file(make_entry(**entry)), "clusters.yaml").problems
    assert said in problem
    assert problem.startswith("clusters[0] (harbor).")


def test_the_longest_lock_of_a_rule_is_taken():
    entry = make_entry(retention={"monthly": 12, "lock_days": {"monthly": 372}}, immutable_days=400)
    parse_config(make_file(entry), "clusters.yaml").raise_for_problems()


# --- in a store ----------------------------------------------------------------------------------------------------


class Locking(Tripwire):
    """Remembers what is locked until when; refuses for names with `refused` in them."""

    def __init__(self, store, *, can=True, refused="-"):
        super().__init__(store)
        self.locked, self.can, self.refused = {}, can, refused

    def protect(self, name, until):
        if self.refused in name:
            raise AccessDenied(f"{name}: 403")
        self.locked[name] = until
        return self.can


def pruner(shelf, store, **overrides):
    fields = {"by": "a test", "clock": lambda: shelf.now, "open_spool": lambda: shelf.store}
    return Pruner(make_repository(store), shelf.cluster, **{**fields, **overrides})


@pytest.mark.parametrize("retention", [None, {"daily": 30}])
def test_without_enforce_the_floor_is_renewed_and_nothing_else_happens(tmp_path, retention):
    shelf = Shelf(tmp_path, immutable_days=5, retention=retention)
    nights = [shelf.add(day) for day in (40, 9, 8, 7)]
    before, store = shelf.names(), Locking(shelf.store, refused="no such name")
    assert pruner(shelf, store).renew_locks() == []
    assert {name.split("/")[1] for name in store.locked} == set(nights[1:])
    assert set(store.locked.values()) == {shelf.now + timedelta(days=5)}
    assert shelf.names() == before


def test_records_that_make_a_set_good_and_pinned_are_locked_with_it(tmp_path):
    shelf = Shelf(tmp_path, immutable_days=5)
    identifier = shelf.add(1)
    shelf.repository.record_pin(shelf.get(identifier), Pin(pinned=True, reason="golden"))
    store = Locking(shelf.store, refused="no such name")
    pruner(shelf, store).renew_locks()
    assert sorted(store.locked) == shelf.names(naming.set_prefix("harbor", identifier))
    assert {"pins", "verification"} <= {name.split("/")[2] for name in store.locked}


def test_clocks_that_differ_lock_nothing(tmp_path):
    shelf = Shelf(tmp_path, immutable_days=5)
    shelf.add(1)
    store = Locking(shelf.store)
    (problem,) = pruner(shelf, store, clock=lambda: shelf.now + timedelta(days=9000)).renew_locks()
    assert "the clocks of this worker and of the store" in problem
    assert store.locked == {}


def test_a_store_that_cannot_lock_says_so_once_and_one_that_refuses_a_set_goes_on(tmp_path, caplog):
    shelf = Shelf(tmp_path, immutable_days=5)
    older, newest = shelf.add(1), shelf.add(0)
    assert pruner(shelf, Locking(shelf.store, can=False, refused="no such name")).renew_locks() == []
    assert caplog.text.count("cannot forbid deletion") == 1
    store = Locking(shelf.store, refused=older)
    (problem,) = pruner(shelf, store).renew_locks()
    assert f"the lock of harbor/{older} was not extended: " in problem
    assert {name.split("/")[1] for name in store.locked} == {newest}


def test_without_locks_nothing_is_written(tmp_path):
    shelf = Shelf(tmp_path)
    shelf.add(1)
    store = Tripwire(shelf.store, only=("create", "delete"))
    assert pruner(shelf, store).renew_locks() == []
    assert store.seen == []
