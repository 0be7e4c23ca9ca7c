"""What a prune plan keeps: by example, and by what always holds."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from etcdkeep.config.retention import CALENDAR, Retention
from etcdkeep.retention.plan import SetFacts, plan_prune
from tests.unit.retention.histories import NOW, counts, facts, histories, rules

if TYPE_CHECKING:
    import random

BELIEVED = ("good", "bad", "unverified")


def night(days_ago, state="good", hour=2, **fields):
    at = (NOW - timedelta(days=days_ago)).replace(hour=hour)
    return SetFacts(f"{at:%Y%m%dT%H%M%SZ}-0000000{hour % 10}", at, state, state in BELIEVED, **fields)


def kept(plan):
    return [each.found for each in plan.kept]


def days_kept(sets, **policy):
    """Return the ages in days of what is kept; the floor is one set, so that the rules show."""
    found = kept(plan_prune(sets, Retention(**{"min_good": 1, **policy}), NOW))
    return sorted((NOW - each.taken_at).days for each in found)


def reasons(plan, found):
    return next(each.reasons for each in plan.verdicts if each.found == found)


# --- by example ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("policy", "days"),
    [
        pytest.param({"keep_last": 3}, [0, 1, 2], id="last"),
        pytest.param({"daily": 4}, [0, 1, 2, 3], id="daily"),
        pytest.param({"weekly": 3}, [0, 1, 8], id="weekly"),  # 23 November 2026 is a Monday
        pytest.param({"monthly": 2}, [0, 23], id="monthly"),
        pytest.param({"yearly": 2}, [0], id="one-year"),
        pytest.param({"keep_within": "3d"}, [0, 1, 2], id="within"),
        pytest.param({"daily": 2, "weekly": 2}, [0, 1], id="a-set-may-count-for-two-rules"),
    ],
)
def test_the_rules(policy, days):
    assert days_kept([night(day) for day in range(40)], **policy) == days


def test_days_without_a_set_do_not_count():
    assert days_kept([night(day) for day in (0, 9, 20, 31)], daily=3) == [0, 9, 20]


def test_days_are_those_of_utc_whatever_zone_a_time_is_in():
    late, early = datetime(2026, 11, 20, 23, 30, tzinfo=UTC), datetime(2026, 11, 21, 0, 30, tzinfo=UTC)
    zone = datetime.now().astimezone().tzinfo
    sets = [SetFacts("a", late.astimezone(zone)), SetFacts("b", early.astimezone(zone)), SetFacts("c", NOW)]
    assert [each.backup_id for each in kept(plan_prune(sets, Retention(daily=3, min_good=1), NOW))] == ["a", "b", "c"]


def test_only_good_sets_count():
    bad = [night(day, "bad") for day in range(3)]
    assert days_kept([*bad, *(night(day) for day in (3, 4, 5, 6))], daily=2) == [0, 1, 2, 3, 4]


def test_a_week_of_failing_backups_leaves_the_last_good_ones():
    good = [night(day) for day in range(8, 12)]
    failing = [night(day, "bad", hour=hour) for day in range(8) for hour in (1, 2, 3)]
    plan = plan_prune([*good, *failing], Retention(keep_last=1, min_good=3, keep_bad_days=1), NOW)
    assert [each.found for each in plan.removed] == [good[-1]]
    assert reasons(plan, failing[0]) == ("no newer verified set",)


def test_sets_taken_by_hand_use_up_no_night():
    by_hand = [night(0, hour=hour, by_hand=True) for hour in (3, 4, 5)]
    nights = [night(day) for day in range(5)]
    plan = plan_prune([*nights, *by_hand], Retention(keep_last=2, min_good=1), NOW)
    assert kept(plan) == [nights[1], nights[0], *by_hand[1:]]


@pytest.mark.parametrize(
    ("better", "worse"),
    [
        pytest.param({"drilled": True}, {}, id="drilled"),
        pytest.param({"restorable": "yes"}, {}, id="restorable"),
        pytest.param({}, {"restorable": "no"}, id="not-found-unrestorable"),
        pytest.param({"restorable": "yes"}, {"drilled": True, "restorable": "no"}, id="what-cannot-be-restored-helps-nobody"),
    ],
)  # fmt: skip
def test_within_a_period_the_better_set_is_kept(better, worse):
    first, second = night(3, hour=1, **better), night(3, hour=2, **worse)
    plan = plan_prune([first, second, night(0)], Retention(daily=9, min_good=1), NOW)
    assert [each.found for each in plan.removed] == [second]


def test_of_equal_sets_the_newest_is_kept():
    first, second = night(3, hour=1), night(3, hour=2)
    plan = plan_prune([first, second, night(0)], Retention(daily=9, min_good=1), NOW)
    assert [each.found for each in plan.removed] == [first]


def test_sets_from_the_future_count_for_nothing_and_stay():
    future = [night(-3), night(-2, "future")]
    sets = [*future, *(night(day) for day in range(4))]
    assert days_kept(sets, keep_last=1) == [-3, -2, 0]
    assert reasons(plan_prune(sets, Retention(daily=1), NOW), future[0]) == ("from the future, and ignored",)


def test_the_floor_takes_restorable_sets_before_newer_ones():
    nights = [night(day, restorable="no" if day < 3 else "yes") for day in range(8)]
    plan = plan_prune(nights, Retention(keep_last=1, min_good=2), NOW)
    assert [(NOW - each.taken_at).days for each in plan.floor] == [3, 4]
    assert sorted((NOW - each.taken_at).days for each in kept(plan)) == [0, 3, 4]
    assert reasons(plan, nights[3]) == ("floor of 2",)


def test_the_floor_is_held_by_others_where_nothing_is_restorable():
    nights = [night(day, restorable="no") for day in range(8)]
    assert days_kept(nights, keep_last=1, min_good=3) == [0, 1, 2]


@pytest.mark.parametrize("state", ["bad", "unverified"])
def test_other_sets_go_after_a_time_when_newer_ones_are_good(state):
    old, young = night(15, state), night(13, state)
    plan = plan_prune([old, young, *map(night, range(3))], Retention(daily=3, keep_bad_days=14), NOW)
    assert [each.found for each in plan.removed] == [old]
    assert reasons(plan, old) == (f"{state}, older than 14 days",)
    assert "kept for analysis until 2026-11-24" in reasons(plan, young)[0]


@pytest.mark.parametrize("state", ["bad", "unverified"])
def test_nothing_goes_while_the_floor_is_not_full(state):
    old = night(300, state)
    plan = plan_prune([old, night(1), night(0)], Retention(daily=2, min_good=3), NOW)
    assert plan.removed == ()
    assert reasons(plan, old) == ("fewer than 3 verified sets",)


def test_an_unverified_set_stays_where_a_rule_would_keep_it_and_takes_no_place_of_a_good_one():
    good = [night(day) for day in range(6)]
    lonely, beside = night(40, "unverified"), night(5, "unverified", hour=3)
    plan = plan_prune([*good, lonely, beside], Retention(daily=6, monthly=2, keep_bad_days=1), NOW)
    assert reasons(plan, lonely) == ("unverified; if it were good: monthly 2026-10",)
    assert [each.found for each in plan.removed] == [beside]
    assert set(good) <= set(kept(plan))


def test_sets_that_are_not_believed_make_no_share_small():
    junk = [replace(night(day, "unsigned", hour=5), believed=False) for day in range(100)]
    plan = plan_prune([*junk, *(night(day) for day in range(8))], Retention(daily=4, max_remove_share=0.25), NOW)
    assert "4 of 8 sets would be removed" in (plan.over_share or "")


@pytest.mark.parametrize("state", ["unsigned", "foreign", "moved", "bad"])
def test_what_is_not_known_to_be_ours_stays(state):
    foreign = replace(night(300, state), believed=False)
    assert foreign in kept(plan_prune([foreign, night(0)], Retention(daily=1), NOW))


@pytest.mark.parametrize(
    ("held", "said"),
    [
        ({"pinned": "before the upgrade"}, "pinned: before the upgrade"),
        ({"pinned": ""}, "pinned: no reason given"),
        ({"in_use": "restore-1"}, "in use by restore-1"),
        ({"doubted": "harbor/x/pins/y.json"}, "harbor/x/pins/y.json is not believed; check it"),
        ({"locked_until": NOW + timedelta(days=2)}, "locked until 2026-11-25"),
    ],
)
@pytest.mark.parametrize("state", ["good", "bad", "unverified"])
def test_what_is_held_stays(held, said, state):
    old = night(300, state, **held)
    plan = plan_prune([old, night(0)], Retention(daily=1, min_good=1), NOW)
    assert reasons(plan, old) == (said,)
    assert plan.removed == ()


def test_a_lock_that_has_run_out_holds_nothing():
    old = night(300, locked_until=NOW)
    assert [each.found for each in plan_prune([old, night(0)], Retention(daily=1, min_good=1), NOW).removed] == [old]


@pytest.mark.parametrize(("total", "keep", "refused"), [(40, 30, False), (40, 29, True), (4, 3, False), (4, 2, True), (2, 1, False)])  # fmt: skip
def test_a_large_share_needs_a_person(total, keep, refused):
    plan = plan_prune([night(day) for day in range(total)], Retention(keep_last=keep, min_good=1), NOW)
    assert len(plan.removed) == total - keep
    assert bool(plan.over_share) == refused
    if refused:
        assert f"{total - keep} of {total} sets would be removed" in plan.over_share


def test_nothing_is_planned_of_nothing():
    plan = plan_prune([], Retention(daily=1), NOW)
    assert (plan.verdicts, plan.floor, plan.over_share) == ((), (), None)


# --- what always holds ---------------------------------------------------------------------------------------------


@given(histories, rules)
def test_the_floor_holds(sets, policy):
    found = kept(plan_prune(sets, policy, NOW))
    present = [each for each in sets if each.state == "good" and each.taken_at <= NOW + timedelta(minutes=5)]
    for pool in (present, [each for each in present if each.could_be_restored]):
        assert sum(each in found for each in pool) >= min(policy.min_good, len(pool))


@given(histories, rules)
def test_the_newest_verified_set_stays_and_whatever_goes_has_a_newer_one(sets, policy):
    plan = plan_prune(sets, policy, NOW)
    good = [each for each in kept(plan) if each.state == "good" and each.taken_at <= NOW + timedelta(minutes=5)]
    newest = max((each.order for each in sets if each.state == "good" and each.taken_at <= NOW + timedelta(minutes=5)), default=None)  # fmt: skip
    assert max((each.order for each in good), default=None) == newest
    for each in plan.removed:
        assert each.found.order < newest


@given(histories, rules)
def test_what_is_pinned_locked_in_use_or_not_believed_stays(sets, policy):
    for each in plan_prune(sets, policy, NOW).removed:
        found = each.found
        assert found.believed
        assert found.pinned is None
        assert found.in_use is None
        assert found.locked_until is None or found.locked_until <= NOW
        assert found.taken_at <= NOW


@given(histories, rules, st.data())
def test_deleted_verifications_cost_no_period_and_no_floor(sets, policy, data):
    """Whoever deletes records makes good sets unverified; what the rules kept then still has a set of the same period."""
    sets = [each for each in sets if each.state != "unverified"]
    doubted = data.draw(st.sets(st.sampled_from([each.backup_id for each in sets]))) if sets else set()
    forged = [replace(each, state="unverified") if each.state == "good" and each.backup_id in doubted else each for each in sets]  # fmt: skip
    left = {each.backup_id for each in kept(plan_prune(forged, policy, NOW))}
    before = plan_prune(sets, policy, NOW)
    after = plan_prune([each for each in sets if each.backup_id in left], policy, NOW)
    assert _periods(after) == _periods(before)
    assert len(after.floor) == len(before.floor)


def _periods(plan):
    said = {period for each in plan.verdicts for period in each.by_rule}
    return {period for period in said if not period.removeprefix("by hand, ").startswith(("last", "within"))}


@given(histories, rules, st.randoms(use_true_random=False))
def test_the_order_of_the_listing_does_not_matter(sets, policy, order: random.Random):
    shuffled = list(sets)
    order.shuffle(shuffled)
    assert plan_prune(shuffled, policy, NOW) == plan_prune(sets, policy, NOW)


@given(histories, rules)
def test_a_second_run_finds_nothing_to_do(sets, policy):
    first = plan_prune(sets, policy, NOW)
    second = plan_prune(kept(first), policy, NOW)
    assert second.removed == ()
    assert [each.by_rule for each in second.verdicts] == [each.by_rule for each in first.kept]


@given(histories, rules)
def test_every_set_has_one_verdict_with_its_reasons(sets, policy):
    plan = plan_prune(sets, policy, NOW)
    assert sorted(each.found.order for each in plan.verdicts) == sorted(each.order for each in sets)
    assert all(each.reasons for each in plan.verdicts)
    assert all(each.keep or not each.by_rule for each in plan.verdicts)


@given(histories, st.fixed_dictionaries(dict.fromkeys(CALENDAR, counts)), facts, st.floats(-1, 1))
def test_one_more_set_of_an_hour_takes_no_set_of_another_hour(sets, policy, more, minutes):
    """In an hour that has a good set already, so that no period is new."""
    assume(any(policy.values()))
    present = [each for each in sets if each.state == "good" and each.taken_at <= NOW]
    assume(present)
    beside = present[0]
    at = beside.taken_at.astimezone(UTC).replace(minute=30) + timedelta(minutes=29 * minutes)
    added = replace(more, backup_id="added", taken_at=at, state="good", believed=True, by_hand=beside.by_hand)
    assume(at <= NOW)
    rules = Retention(**policy)
    before = [each for each in plan_prune(sets, rules, NOW).verdicts if each.by_rule]
    after = {each.found.backup_id: each for each in plan_prune([*sets, added], rules, NOW).verdicts}
    for each in before:
        lost = set(each.by_rule) - set(after[each.found.backup_id].by_rule)
        ours = after["added"].by_rule
        assert lost <= set(ours), "a set loses a period only to the new one of that same period"


@given(histories, rules)
def test_more_of_a_rule_keeps_more(sets, policy):
    fewer = {each.backup_id for each in kept(plan_prune(sets, policy, NOW)) if each.state == "good"}
    more = policy.model_copy(update={"daily": (policy.daily or 0) + 1, "min_good": policy.min_good + 1})
    wanted = {each.found.backup_id for each in plan_prune(sets, policy, NOW).verdicts if each.by_rule}
    assert wanted <= {each.backup_id for each in kept(plan_prune(sets, more, NOW))}
    assert len(fewer) <= len([each for each in kept(plan_prune(sets, more, NOW)) if each.state == "good"])
