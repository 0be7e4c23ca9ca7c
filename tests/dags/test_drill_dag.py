"""``dags/drill.py``: a DAG for each cluster that has drills, and only for these."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
from airflow.serialization.serialized_objects import DagSerialization

from etcdkeep.errors import DrillImpossible, StoreUnavailable
from tests.builders import make_entry, make_file


@pytest.fixture
def dags(read_dags, clusters):
    for entry, drill in zip(
        clusters, ({}, {"schedule": "0 5 * * 0", "time_limit_s": 60}, {"schedule": None}), strict=True
    ):
        entry["drill"] = drill
    bag = read_dags(*clusters, make_entry(name="undrilled"), file="drill.py")
    assert bag.import_errors == {}
    return bag.dags


def test_a_cluster_with_drills_has_its_dag_and_the_others_have_none(dags):
    assert set(dags) == {"drill__harbor", "drill__skiff", "drill__fleet"}


def test_the_schedule_is_the_verified_backup_a_cron_or_none(dags):
    assert [asset.uri for asset in dags["drill__harbor"].timetable.asset_condition.objects] == [
        "etcdkeep://harbor/backup"
    ]
    assert dags["drill__skiff"].schedule == "0 5 * * 0"
    assert dags["drill__fleet"].schedule is None


def test_what_every_dag_says_of_itself(dags):
    for dag in dags.values():
        assert (dag.catchup, dag.max_active_runs, dag.start_date.tzinfo is not None) == (False, 1, True)
        assert "When it fails" in dag.doc_md
        assert "drill" in dag.tags
        assert [task.task_id for task in dag.tasks] == ["drill"]


def test_the_task_runs_where_the_identity_is_and_is_retried_by_the_kind_of_error(dags):
    task = dags["drill__fleet"].get_task("drill")
    assert (task.queue, task.owner, task.retries) == ("restore", "etcdkeep", 3)
    assert task.retry_policy.evaluate(DrillImpossible("x"), 1, 3).action.value == "fail"
    assert task.retry_policy.evaluate(StoreUnavailable("x"), 1, 3).action.value == "retry"


def test_a_drill_gives_itself_up_before_airflow_does(dags):
    assert dags["drill__skiff"].get_task("drill").execution_timeout == timedelta(seconds=60, minutes=5)


def test_a_backup_can_be_chosen(dags):
    params = dags["drill__harbor"].params
    assert params.dump() == {"backup": ""}
    assert dags["drill__harbor"].get_task("drill").repository == "{{ params.get('repository') or '' }}"
    assert dags["drill__harbor"].get_task("drill").backup == "{{ params.backup or '' }}"


def test_nothing_of_the_parsing_is_serialised(read_dags):
    first, second = (
        {
            name: DagSerialization.to_dict(dag)
            for name, dag in read_dags(make_entry(drill={}), file="drill.py").dags.items()
        }
        for _ in range(2)
    )
    assert first == second
    assert "PRIVATE" not in json.dumps(first)


def test_a_task_process_makes_only_the_dag_it_runs(read_dags, clusters, monkeypatch):
    monkeypatch.setenv("_AIRFLOW_PARSING_CONTEXT_DAG_ID", "drill__skiff")
    assert list(read_dags(*({**entry, "drill": {}} for entry in clusters), file="drill.py").dags) == ["drill__skiff"]


@pytest.mark.parametrize(
    "drill", [{"schedule": "99 * * * *"}, {"schedule": "after_backups"}, {"colour": "blue"}, {"time_limit_s": 0}]
)
def test_a_wrong_setting_is_an_import_error(read_dags, drill):
    bag = read_dags(make_file(make_entry(drill=drill)))
    assert not [name for name in bag.dags if name.startswith("drill__")]
    assert "clusters[0] (harbor).drill." in "".join(bag.import_errors.values())
