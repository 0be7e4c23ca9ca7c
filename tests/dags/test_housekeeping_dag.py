"""``dags/housekeeping.py``: one DAG, one mapped task for each cluster, on the queue that has the keys."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
from airflow.serialization.serialized_objects import DagSerialization

from etcdkeep.errors import NeedsAttention, RequestRefused, StoreUnavailable
from etcdkeep.retention.turn import TURN_LASTS
from tests.builders import make_file


@pytest.fixture
def dag(read_dags, clusters):
    bag = read_dags(*clusters, file="housekeeping.py")
    assert bag.import_errors == {}
    (found,) = bag.dags.values()
    return found


def test_each_cluster_is_kept_by_a_mapped_task_on_its_queue(dag):
    assert dag.dag_id == "housekeeping"
    mapped = {task.task_id: task for task in dag.tasks if task.task_id != "report"}
    assert {name: task.queue for name, task in mapped.items()} == {"housekeeping": "default", "housekeeping__restore": "restore"}  # fmt: skip
    assert {name: task.expand_input.value["cluster"] for name, task in mapped.items()} == {
        "housekeeping": ["harbor", "skiff"],
        "housekeeping__restore": ["fleet"],
    }


def test_the_report_comes_last_whatever_happened(dag):
    report = dag.get_task("report")
    assert report.upstream_task_ids == {"housekeeping", "housekeeping__restore"}
    assert report.trigger_rule == "all_done"
    assert report.clusters == ["harbor", "skiff", "fleet"]


def test_a_report_is_repeated_when_its_worker_is_lost_and_not_when_a_person_must_act(dag):
    report = dag.get_task("report")
    assert report.retries == 3
    assert report.retry_policy.evaluate(NeedsAttention("x"), 1, 4).action.value == "fail"
    assert report.retry_policy.evaluate(ConnectionError("x"), 1, 4).action.value != "fail"


def test_what_the_dag_says_of_itself(dag):
    assert (dag.catchup, dag.max_active_runs, dag.schedule) == (False, 1, "0 6 * * *")
    assert "When it fails" in dag.doc_md
    assert dag.tags == {"housekeeping"}


def test_a_try_that_hangs_ends_before_it_keeps_its_retry_out(dag):
    for task in dag.tasks:
        assert task.execution_timeout == timedelta(hours=2)
        assert task.execution_timeout < TURN_LASTS


def test_errors_are_retried_by_their_kind(dag):
    task = dag.get_task("housekeeping")
    assert task.retries == 3
    policy = task.partial_kwargs["retry_policy"]
    assert policy.evaluate(RequestRefused("x"), 1, 3).action.value == "fail"
    assert policy.evaluate(StoreUnavailable("x"), 1, 3).action.value == "retry"


def test_the_schedule_is_a_setting(read_dags, clusters):
    for schedule in ("@daily", None):
        bag = read_dags(make_file(*clusters, housekeeping_schedule=schedule), file="housekeeping.py")
        assert bag.dags["housekeeping"].schedule == schedule


def test_without_a_usable_cluster_there_is_no_dag(read_dags):
    assert read_dags(make_file(), file="housekeeping.py").dags == {}


def test_nothing_of_the_parsing_is_serialised(read_dags, clusters):
    first, second = (
        DagSerialization.to_dict(read_dags(*clusters, file="housekeeping.py").dags["housekeeping"]) for _ in range(2)
    )
    assert first == second
    assert "PRIVATE" not in json.dumps(first)
