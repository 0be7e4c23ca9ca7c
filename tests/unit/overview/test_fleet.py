"""The line of a cluster: one word, one sentence, one next step, and the order of risk."""

from __future__ import annotations

from datetime import timedelta

import pytest

from etcdkeep.backup.publish import record_attempt
from etcdkeep.documents import write
from etcdkeep.errors import StoreUnavailable
from etcdkeep.freshness.check import check_stored, not_checked
from etcdkeep.freshness.glance import JudgedSets, glance
from etcdkeep.freshness.report import TOPICS
from etcdkeep.overview.fleet import (
    NEXT_STEPS,
    DagFacts,
    by_risk,
    fleet_row,
    unreadable_row,
    unusable_row,
    waiting_row,
    with_airflow,
)
from etcdkeep.sets.results import DrillResult
from tests.builders import make_verification
from tests.shelf import Shelf


@pytest.fixture
def shelf(tmp_path):
    return Shelf(tmp_path, rehearse=False, schedule="0 2 * * *")


def row_of(shelf):
    """Return the line as the fleet shows it when every backup was read."""
    return fleet_row(glance(shelf.repository, shelf.cluster, shelf.now, JudgedSets(), everything=True), shelf.now)


def nights(shelf, *days_ago, **settings):
    return [shelf.add(day, **settings) for day in sorted(days_ago, reverse=True)]


def test_every_topic_of_a_check_has_a_next_step():
    assert set(TOPICS) <= set(NEXT_STEPS)


def test_a_fresh_cluster(shelf):
    nights(shelf, 2, 1, 0.1)
    row = row_of(shelf)
    assert (row.state, row.status, row.problem, row.next_step, row.more) == ("fresh", "OK", "", "", 0)
    assert (row.sets, row.sizes, row.newest_backup) == (3, (20480, 20480, 20480), shelf.ids()[-1])
    assert row.newest["good"].taken_at == shelf.now - timedelta(days=0.1)
    assert "drilled" not in row.newest, "no drills are configured"


def test_a_cluster_without_any_backup(shelf):
    row = row_of(shelf)
    assert (row.state, row.status) == ("never", "CRITICAL")
    assert row.next_step == NEXT_STEPS["never"]
    assert row.newest["good"].taken_at is None


def test_a_cluster_with_only_bad_backups(shelf):
    nights(shelf, 1, 0.2, state="bad")
    assert row_of(shelf).state == "never"


def test_a_stale_cluster(shelf):
    nights(shelf, 5, 4)
    row = row_of(shelf)
    assert (row.state, row.status, row.next_step) == ("stale", "CRITICAL", NEXT_STEPS["good"])
    assert "is 4 d 0 h old" in row.problem


def test_a_newest_backup_that_is_bad(shelf):
    nights(shelf, 1)
    nights(shelf, 0.2, state="bad")
    row = row_of(shelf)
    assert (row.state, row.status) == ("failing", "WARNING")
    assert "a page is damaged" in row.problem


def test_a_backup_that_cannot_be_restored(tmp_path):
    shelf = Shelf(tmp_path, schedule="0 2 * * *")
    nights(shelf, 1, 0.1, restorable="no")
    row = row_of(shelf)
    assert (row.state, row.status, row.next_step) == ("failing", "CRITICAL", NEXT_STEPS["restorable"])


def test_the_last_drill_that_measured_it_estimates_a_restore(shelf):
    first, second = nights(shelf, 1, 0.1)
    for identifier, days, seconds in ((second, 0.05, None), (first, 0.5, 8.4)):
        drill = DrillResult(etcd_version="3.5.16", tool="etcdutl 3.5.16", restore_s=seconds)
        at = shelf.now - timedelta(days=days)
        shelf.repository.record(
            shelf.get(identifier), make_verification(at=at, levels=("drill",), complete=False, drill=drill)
        )
    assert row_of(shelf).restore_s == 8.4


def test_what_others_wrote_is_harmless(shelf):
    reason = "<b>bold</b> [click](http://evil) \x1b]0;title\x07\x1b[31mred\u202e"
    nights(shelf, 0.2)
    identifier = shelf.add(0.1, run={"reason": reason})
    shelf.repository.record(shelf.get(identifier), make_verification(at=shelf.now, levels=(), problems=(reason,)))
    said = row_of(shelf).problem
    assert "red" in said
    assert not {"\x1b", "\x07", "\u202e"} & set(said)


# --- what the page knows besides -----------------------------------------------------------------------------------


def test_an_entry_that_cannot_be_used(shelf):
    row = unusable_row("broken", "clusters[0] (broken).schedule: \x1b[31mnonsense", shelf.now)
    assert (row.state, row.status, row.usable) == ("failing", "CRITICAL", False)
    assert "\x1b" not in row.problem


def test_an_unreadable_repository_keeps_the_last_known_state(shelf):
    nights(shelf, 1, 0.1)
    row = unreadable_row(row_of(shelf), "no route to host")
    assert (row.state, row.status, row.sets) == ("unknown", "UNKNOWN", 2)
    assert "no route to host" in row.problem
    stale = unreadable_row(fleet_row(check_stored(shelf.repository, shelf.cluster, shelf.now + timedelta(days=9)), shelf.now), "no route")  # fmt: skip
    assert (stale.status, stale.last_error) == ("CRITICAL", "no route"), "what is worse is said first"
    assert "limit" in stale.problem


def test_a_cluster_that_was_never_read(shelf):
    failed = not_checked("harbor", str(StoreUnavailable("the bucket does not answer")), shelf.now)
    row = fleet_row(failed, shelf.now)
    assert (row.state, row.status) == ("unknown", "UNKNOWN")
    assert "does not answer" in row.problem
    assert waiting_row(shelf.cluster, shelf.now).problem == ""


def test_a_paused_dag_is_said_before_what_follows_from_it(shelf):
    nights(shelf, 4)
    row = with_airflow(row_of(shelf), DagFacts(paused=True, next_run_at=shelf.now))
    assert "is paused" in row.problem
    assert (row.state, row.more, row.paused, row.next_run_at) == ("stale", 1, True, None)


def test_a_dag_that_airflow_lost(shelf):
    nights(shelf, 0.1)
    row = with_airflow(row_of(shelf), None)
    assert (row.state, row.status) == ("failing", "WARNING")
    assert "no DAG backup__harbor" in row.problem


def test_the_next_run(shelf):
    nights(shelf, 0.1)
    row = with_airflow(row_of(shelf), DagFacts(paused=False, next_run_at=shelf.now))
    assert (row.state, row.next_run_at, row.paused) == ("fresh", shelf.now, False)


def test_who_needs_a_person_most_comes_first(tmp_path):
    made = {}
    for name, days, settings in (
        ("fine", (1, 0.1), {}),
        ("stale", (4,), {}),
        ("staler", (9,), {}),
        ("failing", (0.2,), {"state": "good"}),
        ("never", (), {}),
    ):
        shelf = Shelf(tmp_path, rehearse=False, schedule="0 2 * * *", name=name)
        nights(shelf, *days, **settings)
        if name == "failing":
            shelf.add(0.15, state="bad")
        made[name] = row_of(shelf)
    assert [row.cluster for row in by_risk(list(made.values()))] == ["never", "staler", "stale", "failing", "fine"]


# --- the calendar --------------------------------------------------------------------------------------------------


def test_the_last_days(shelf):
    nights(shelf, 8, 7, 6, 4, 1)
    shelf.add(3, state="bad")
    record_attempt(shelf.store, "harbor", shelf.identifier(2), "scheduled__x")
    removed = shelf.identifier(9)
    record_attempt(shelf.store, "harbor", removed, "scheduled__y")
    shelf.bury(removed)
    forged = shelf.identifier(5)
    write(shelf.store, f"harbor/removed/{forged}/20260101T000000.000000Z.json", b"{}")
    days = row_of(shelf).calendar
    assert len(days) == 90
    assert days[:80] == "-" * 80, "nothing was due before the first sign of a backup"
    assert days[80:89] == "rgggmgbbg"


def test_a_cluster_by_hand_misses_nothing(tmp_path):
    shelf = Shelf(tmp_path, rehearse=False)
    nights(shelf, 20, 3)
    by_hand = shelf.cluster.model_copy(update={"schedule": None})
    row = fleet_row(check_stored(shelf.repository, by_hand, shelf.now), shelf.now)
    assert set(row.calendar) == {"g", "-"}


def test_a_day_whose_run_may_still_go_on_is_not_missed(tmp_path):
    shelf = Shelf(tmp_path, rehearse=False, schedule="* * * * *")
    nights(shelf, 1)
    now = shelf.now.replace(hour=0, minute=30) + timedelta(days=1)
    row = fleet_row(check_stored(shelf.repository, shelf.cluster, now), now)
    assert row.calendar[-1] == "-"
