"""Housekeeping as operators: what is removed when, what is answered, and when the report fails."""

from __future__ import annotations

import json

import pytest
from airflow.sdk import DAG

from etcdkeep.adapters.stores.directory import DirectoryStore
from etcdkeep.errors import AccessDenied, NeedsAttention, StoreUnavailable
from etcdkeep.retention.turn import turn
from etcdkeep_airflow.operators.housekeeping import HousekeepingOperator, ReportOperator
from tests.fake_site import FakeSite
from tests.shelf import Shelf

RULES = {"daily": 3, "min_good": 2, "max_remove_share": 0.5}
RUN = "scheduled__2026-11-23"


@pytest.fixture
def open_shelf(tmp_path, monkeypatch):
    """Return a function that makes a shelf with five nights, and the site that operators open."""

    def make(retention, **settings):
        shelf = Shelf(tmp_path, rehearse=False, retention=retention, **settings)
        for day in reversed(range(5)):
            shelf.add(day)
        monkeypatch.setattr("etcdkeep_airflow.hooks.open_site", lambda name: FakeSite(tmp_path, shelf.cluster))
        return shelf

    return make


def keep(context):
    with DAG(dag_id="housekeeping", schedule=None):
        operator = HousekeepingOperator(task_id="housekeeping", cluster="harbor")
    return json.loads(json.dumps(operator.execute(context)))


def report(*answers, clusters=("harbor",)):
    with DAG(dag_id="housekeeping", schedule=None):
        operator = ReportOperator(task_id="report", clusters=list(clusters), results=[list(answers)])
    return operator.execute({})


def test_without_enforce_it_is_a_dry_run(open_shelf, make_context):
    shelf = open_shelf(RULES)
    before = shelf.names()
    answer = keep(make_context())
    assert answer == {
        "cluster": "harbor",
        "status": "OK",
        "alarms": [],
        "late": [],
        "retention": "dry run",
        "removed": [],
        "would_remove": shelf.ids()[:2],
        "refused": [],
        "stayed": {},
        "attention": [],
        "kept": 3,
        "unlocked": [],
    }
    assert shelf.names() == before
    assert report(answer) == {"harbor": "OK"}


def test_enforced_it_removes_and_a_second_try_finds_nothing(open_shelf, make_context):
    shelf = open_shelf({**RULES, "enforce": True})
    removed = shelf.ids()[:2]
    assert keep(make_context())["removed"] == removed
    assert len(shelf.ids()) == 3
    answer = keep(make_context(try_number=2))
    assert (answer["removed"], answer["kept"]) == ([], 3)


def test_without_retention_it_only_checks(open_shelf, make_context):
    shelf = open_shelf(None)
    answer = keep(make_context())
    assert (answer["status"], answer["retention"], len(shelf.ids())) == ("OK", "none", 5)


def test_a_removal_that_is_refused_fails_the_report_and_not_the_task(open_shelf, make_context):
    shelf = open_shelf({**RULES, "daily": 1, "min_good": 1, "enforce": True})
    answer = keep(make_context())
    assert len(shelf.ids()) == 5
    with pytest.raises(NeedsAttention, match="harbor: nothing was removed: 4 of 5 sets would be removed"):
        report(answer)


def test_a_week_of_a_failing_cluster_keeps_the_last_good_ones_and_fails_each_report(open_shelf, make_context):
    """One housekeeping a day, so everybody is told once a day, not once an attempt."""
    shelf = open_shelf({**RULES, "daily": 2, "enforce": True}, freshness={"warn_after": "1h", "fail_after": "2h"})
    newest_first = sorted(shelf.ids(), reverse=True)
    for name in shelf.names(f"harbor/{newest_first[0]}/verification/"):
        shelf.store.delete(name)  # the last one was never verified, and the next ones are bad
    reports = 0
    for day in range(7):
        shelf.add(0.001 * (7 - day), "bad", suffix=f"{day + 1:08}")
        with pytest.raises(NeedsAttention, match="harbor: CRITICAL: newest good backup") as told:
            report(keep(make_context()))
        reports += str(told.value).count("CRITICAL")
    assert reports == 7
    states = {found.backup_id: found.state for found in shelf.repository.sets("harbor")}
    assert [identifier for identifier, state in states.items() if state == "good"] == sorted(newest_first[1:3])


@pytest.mark.parametrize(("removed", "said"), [([], "nothing was removed"), (["a"], "removing has stopped")])
def test_a_run_that_stopped_says_whether_it_removed_something(removed, said):
    answer = {"cluster": "harbor", "status": "OK", "retention": "enforced", "removed": removed, "refused": ["why"]}
    with pytest.raises(NeedsAttention, match=f"harbor: {said}: why"):
        report(answer)


@pytest.mark.parametrize("mode", ["dry run", "enforced"])
def test_what_somebody_changed_in_the_repository_fails_the_report(mode):
    answer = {"cluster": "harbor", "status": "OK", "retention": mode, "attention": ["backup x has lost its manifest"]}
    with pytest.raises(NeedsAttention, match="harbor: backup x has lost its manifest"):
        report(answer)


def test_a_dry_run_over_the_share_fails_nothing(open_shelf, make_context):
    open_shelf({**RULES, "daily": 1, "min_good": 1})
    answer = keep(make_context())
    assert answer["refused"]
    assert report(answer) == {"harbor": "OK"}


def test_stale_backups_fail_the_report(open_shelf, make_context):
    open_shelf(None, freshness={"warn_after": "1h", "fail_after": "2h"}, schedule="@hourly")
    shelf_of_old = keep(make_context())
    assert report(shelf_of_old) == {"harbor": "OK"}
    shelf_of_old |= {"status": "CRITICAL", "alarms": ["CRITICAL: newest good backup x is 3 d 0 h old"]}
    with pytest.raises(NeedsAttention, match="harbor: CRITICAL: newest good backup x is 3 d 0 h old"):
        report(shelf_of_old)


def test_a_warning_alone_fails_nothing():
    assert report({"cluster": "harbor", "status": "WARNING", "alarms": ["WARNING: x"]}) == {"harbor": "WARNING"}


def test_a_cluster_without_an_answer_fails_the_report():
    for answers in ([], [None], ["x"], [{"cluster": "other", "status": "OK"}]):
        with pytest.raises(NeedsAttention, match="harbor: its housekeeping failed; see that task's log"):
            report(*answers)


def test_another_housekeeping_of_the_cluster_fails_the_report_and_freshness_is_still_checked(open_shelf, make_context):
    shelf = open_shelf({**RULES, "enforce": True})
    with turn(shelf.store, "harbor", "somebody", shelf.now):
        answer = keep(make_context())
    assert (answer["status"], len(shelf.ids())) == ("OK", 5)
    with pytest.raises(NeedsAttention, match="harbor: nothing was removed: another housekeeping of cluster 'harbor' has run since"):  # fmt: skip
        report(answer)


@pytest.mark.parametrize("retention", [None, RULES, {**RULES, "enforce": True}], ids=["none", "dry-run", "enforced"])
def test_locks_are_renewed_whatever_is_removed_and_a_refusal_fails_the_report(
    open_shelf, make_context, monkeypatch, retention
):
    open_shelf(retention, immutable_days=30)
    asked = []
    monkeypatch.setattr(DirectoryStore, "protect", lambda self, name, until: bool(asked.append(name)) or True)
    assert report(keep(make_context())) == {"harbor": "OK"}
    assert asked

    def refuse(self, name, until):
        raise AccessDenied("403")

    monkeypatch.setattr(DirectoryStore, "protect", refuse)
    with pytest.raises(NeedsAttention, match="was not extended: 403"):
        report(keep(make_context()))


def test_a_repository_that_does_not_answer_fails_the_task(open_shelf, make_context, monkeypatch):
    open_shelf(RULES)

    def fail(self, prefix=""):
        raise StoreUnavailable("503")

    monkeypatch.setattr(DirectoryStore, "list", fail)
    with pytest.raises(StoreUnavailable):
        keep(make_context())


def test_every_template_field_is_an_argument():
    with DAG(dag_id="housekeeping", schedule=None):
        operator = ReportOperator(task_id="report", clusters=["a"], results=[["{{ 1 }}"]])
    assert [getattr(operator, name) for name in ReportOperator.template_fields] == [[["{{ 1 }}"]]]


def test_a_copy_is_pruned_by_its_own_rules_and_one_that_is_gone_is_reported(open_shelf, make_context, tmp_path):
    own = {"keep_last": 1, "min_good": 1, "max_remove_share": 1, "enforce": True}
    shelf = open_shelf(None, copies=[{"repository": f"file://{tmp_path}/copy", "retention": own}])
    of_copy = Shelf(tmp_path / "of-copy", DirectoryStore(tmp_path / "copy"))
    for day in (1, 0):
        of_copy.add(day)
    newest = of_copy.ids()[-1]
    answer = keep(make_context())
    assert answer["copies"] == []
    assert of_copy.ids() == [newest]
    assert len(shelf.ids()) == 5
    with turn(of_copy.store, "harbor", "somebody else", shelf.now):
        answer = keep(make_context(run_id="another"))
    assert f"copy file://{tmp_path}/copy: nothing was removed: another housekeeping" in answer["copies"][0]
    with pytest.raises(NeedsAttention, match="another housekeeping"):
        report(answer)
