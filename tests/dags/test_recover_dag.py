"""``dags/recover_objects.py``: the graph, the form, the gate."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
from airflow.serialization.serialized_objects import DagSerialization

from etcdkeep.errors import NeedsAttention, NotApproved, TransientError

GRAPH = {"resolve_backup": {"plan"}, "plan": {"approve"}, "approve": {"apply"}, "apply": set()}


@pytest.fixture
def dag(read_dags, clusters):
    bag = read_dags(*clusters, file="recover_objects.py")
    assert bag.import_errors == {}
    return bag.dags["recover_objects"]


def test_the_graph(dag):
    assert {task.task_id: task.downstream_task_ids for task in dag.tasks} == GRAPH


def test_it_runs_only_by_hand(dag):
    assert dag.schedule is None
    assert dag.catchup is False
    assert dag.tags == {"recover"}


def test_its_page_names_every_task_and_says_what_to_do_when_it_fails(dag):
    assert "When it fails" in dag.doc_md
    for task in GRAPH:
        assert f"`{task}`" in dag.doc_md


def test_the_form_is_safe_unless_said_otherwise(dag):
    assert dag.params.dump() == {
        "cluster": None,
        "backup": "",
        "namespace": "",
        "kinds": "",
        "labels": "",
        "name": "",
        "overwrite": False,
        "include_left_out": False,
        "dry_run": True,
        "reason": None,
    }


@pytest.mark.parametrize(("name", "wrong"), [("cluster", "elsewhere"), ("reason", ""), ("overwrite", "yes")])
def test_the_form_refuses(dag, name, wrong):
    with pytest.raises(ValueError, match=r"is not|too short|non-empty"):
        dag.params.get_param(name).resolve(wrong)


def test_clusters_are_a_drop_down(dag):
    assert dag.params.get_param("cluster").schema["enum"] == ["harbor", "skiff"]


def test_each_queue_has_a_dag_of_its_own_with_its_clusters(read_dags, clusters):
    other = read_dags(*clusters, file="recover_objects.py").dags["recover_objects__restore"]
    assert other.params.get_param("cluster").schema["enum"] == ["fleet"]
    assert {task.queue for task in other.tasks} == {"restore"}
    assert other.tags == {"recover", "fleet"}


def test_the_gate_never_answers_itself(dag):
    gate = dag.get_task("approve")
    assert gate.retry_policy.evaluate(NotApproved("x"), 1, 3).action.value == "fail"
    assert not gate.defaults
    assert gate.response_timeout == timedelta(hours=4)


def test_what_decides_is_no_template_of_any_task(dag):
    for name, own in {"approve": set(), "apply": set(), "plan": {"backup"}}.items():
        assert set(dag.get_task(name).template_fields) == {"cluster", "repository"} | own


def test_retries_go_by_the_kind_of_error(dag):
    for name in ("resolve_backup", "plan", "apply"):
        task = dag.get_task(name)
        assert task.retries == 3
        assert task.retry_policy.evaluate(TransientError("x"), 1, 3).action.value == "retry"
        assert task.retry_policy.evaluate(NeedsAttention("x"), 1, 3).action.value == "fail"


def test_every_parse_gives_the_same(read_dags, clusters):
    def serialised():
        return DagSerialization.to_dict(read_dags(*clusters, file="recover_objects.py").dags["recover_objects"])

    assert json.dumps(serialised()) == json.dumps(serialised())
