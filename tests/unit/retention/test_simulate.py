"""What a policy leaves after a time."""

from __future__ import annotations

from datetime import timedelta

from etcdkeep.config.retention import Retention
from etcdkeep.retention.plan import SetFacts
from etcdkeep.retention.simulate import simulate
from tests.unit.retention.histories import NOW

GFS = Retention(daily=7, weekly=4, monthly=12, yearly=2)


def test_a_year_and_a_half_of_nights():
    found = simulate([], GFS, "30 2 * * *", NOW, 550)
    assert found.at == NOW + timedelta(days=550)
    ages = [(found.at - each.found.taken_at).days for each in found.verdicts]
    assert ages[-7:] == [6, 5, 4, 3, 2, 1, 0]
    assert 19 <= len(ages) <= 23
    assert max(ages) > 330
    assert len(ages) < found.most < 26
    assert all(each.keep and each.by_rule for each in found.verdicts)


def test_what_is_there_now_goes_as_the_rules_say_and_pins_stay():
    old, pinned = SetFacts("old", NOW - timedelta(days=5)), SetFacts("pin", NOW - timedelta(days=6), pinned="golden")
    found = simulate([old, pinned], Retention(daily=3), "0 2 * * *", NOW, 10)
    assert found.verdicts[0].found.backup_id == "pin"
    assert len(found.verdicts) == 4


def test_without_a_schedule_nothing_new_comes_and_the_floor_stays():
    sets = [SetFacts(f"{day}", NOW - timedelta(days=day)) for day in range(5)]
    found = simulate(sets, Retention(keep_within="1d", min_good=2), None, NOW, 400)
    assert {each.found.backup_id for each in found.verdicts} == {"0", "1"}


def test_locked_sets_stay_as_long_as_they_are_locked():
    found = simulate([], Retention(keep_last=1, min_good=1), "0 2 * * *", NOW, 60, immutable_days=30)
    assert len(found.verdicts) == 30


def test_when_each_set_goes():
    sets = [SetFacts(f"{day}", NOW - timedelta(days=day)) for day in range(4)]
    found = simulate([*sets, SetFacts("pin", NOW - timedelta(days=9), pinned="golden")], Retention(daily=3, min_good=1), "0 2 * * *", NOW, 10)  # fmt: skip
    assert found.goes == {"3": NOW + timedelta(days=1), "2": NOW + timedelta(days=1), "1": NOW + timedelta(days=2), "0": NOW + timedelta(days=3)}  # fmt: skip
