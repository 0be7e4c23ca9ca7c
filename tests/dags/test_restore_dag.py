"""``dags/restore.py``: the graph, the form, the gates."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
from airflow.serialization.serialized_objects import DagSerialization

from etcdkeep.errors import NotApproved, RollbackIncomplete, StepFailed, Unreachable

GRAPH = {
    "resolve_backup": {"preflight"},
    "preflight": {"approve"},
    "approve": {"approve_second"},
    "approve_second": {"stage"},
    "stage": {"restore_etcd", "rollback"},
    "restore_etcd": {"swap", "rollback"},
    "swap": {"verify", "rollback"},
    "verify": {"fetch_kubeconfig", "rollback"},
    "fetch_kubeconfig": set(),
    "rollback": set(),
}
GATES = ("approve", "approve_second")


@pytest.fixture
def dag(read_dags, clusters):
    bag = read_dags(*clusters, file="restore.py")
    assert bag.import_errors == {}
    return bag.dags["restore"]


def test_the_graph(dag):
    assert {task.task_id: task.downstream_task_ids for task in dag.tasks} == GRAPH


def test_it_runs_only_by_hand_and_several_clusters_at_once(dag):
    assert dag.schedule is None
    assert dag.catchup is False
    assert dag.max_active_runs > 1
    assert dag.tags == {"restore"}


def test_its_page_names_every_task_and_says_what_to_do_when_it_fails(dag):
    assert "When it fails" in dag.doc_md
    for task in GRAPH:
        assert f"`{task}`" in dag.doc_md


def test_the_form_is_safe_unless_said_otherwise(dag):
    assert dag.params.dump() == {
        "cluster": None,
        "backup": "",
        "what": "etcd+pki",
        "bump_revision": True,
        "way": "auto",
        "dry_run": True,
        "on_failure": "rollback",
        "override": False,
        "reason": None,
        "confirm": None,
    }
    assert dag.params.get_param("cluster").schema["enum"] == ["harbor", "skiff"]
    for param in dag.params:
        assert dag.params.get_param(param).schema["title"]
        assert dag.params.get_param(param).description


@pytest.mark.parametrize(
    ("param", "wrong"),
    [
        ("cluster", "elsewhere"),
        ("what", "everything"),
        ("way", "reboot"),
        ("on_failure", "ignore"),
        ("dry_run", "no"),
        ("reason", ""),
        ("confirm", ""),
    ],
)
def test_the_form_takes_nothing_else(dag, param, wrong):
    with pytest.raises(ValueError, match=r"is not one of|is not of type|should be non-empty|is too short"):
        dag.params.get_param(param).resolve(wrong)


@pytest.mark.parametrize("gate", GATES)
def test_a_gate_waits_for_hours_and_is_never_answered_by_anything_but_a_person(dag, gate):
    task = dag.get_task(gate)
    assert (task.retries, task.defaults) == (3, None), "Airflow may take an early answer for a crash: asked again"
    assert task.retry_policy.evaluate(NotApproved("x"), 1, 3).action.value == "fail"
    assert task.response_timeout == timedelta(hours=4)
    assert task.ignore_downstream_trigger_rules
    assert not task.fail_on_reject


def test_what_decides_is_no_template_of_any_task(dag):
    for task in dag.tasks:
        fields = {field: str(getattr(task, field)) for field in task.template_fields}
        # The repository is one of the cluster's own, and what is read there is believed by its signature alone.
        allowed = {"cluster", "repository"} | ({"backup"} if task.task_id == "preflight" else set())
        assert {field for field, value in fields.items() if "{{" in value} <= allowed, task.task_id


def test_errors_are_tried_again_soon_or_taken_back(dag):
    for task in dag.tasks:
        if task.task_id not in (*GATES, "rollback"):
            assert (task.retries, task.retry_delay) == (20, timedelta(seconds=5))
            assert task.retry_policy.evaluate(StepFailed("x", step="s"), 1, 3).action.value == "fail"
            assert task.retry_policy.evaluate(Unreachable("x"), 1, 3).action.value == "retry"
    rollback = dag.get_task("rollback")
    assert rollback.retries == 3
    assert rollback.trigger_rule == "one_failed"
    assert rollback.retry_policy.evaluate(RollbackIncomplete("x", remaining=()), 1, 3).action.value == "retry"


def test_each_queue_has_a_dag_of_its_own_with_its_clusters(read_dags, clusters):
    clusters[0]["limits"] = {"task_s": 20000}
    dags = read_dags(*clusters, file="restore.py").dags
    assert {name: dag.params.get_param("cluster").schema["enum"] for name, dag in dags.items()} == {
        "restore": ["harbor", "skiff"],
        "restore__restore": ["fleet"],
    }
    queues = {name: {task.queue for task in dag.tasks} for name, dag in dags.items()}
    assert queues == {"restore": {"default"}, "restore__restore": {"restore"}}
    assert dags["restore__restore"].tags == {"restore", "fleet"}, "the tag filter finds it by the cluster's name"
    assert (
        dags["restore__restore"].get_task("swap").execution_timeout < dags["restore"].get_task("swap").execution_timeout
    )


def test_no_task_of_a_cluster_with_queues_is_on_the_default_queue(read_dags, clusters):
    queued = [{**each, "queue": "backup", "verify_queue": "verify", "drill": {}} for each in clusters]
    bag = read_dags(*queued)
    assert bag.import_errors == {}
    queues = {(dag.dag_id, task.task_id): task.queue for dag in bag.dags.values() for task in dag.tasks}
    elsewhere = {task for task, queue in queues.items() if queue not in ("backup", "verify")}
    assert elsewhere == {("housekeeping", "report")}, "it needs no key: it reports what the others found"


def test_where_there_are_pods_the_queue_chooses_the_template(read_dags, clusters, monkeypatch):
    monkeypatch.setenv("ETCDKEEP_POD_TEMPLATES", "/etc/etcdkeep-pods")
    bag = read_dags(*({**each, "queue": "backup", "verify_queue": "verify", "drill": {}} for each in clusters))
    assert bag.import_errors == {}
    placed = {
        (task.queue, str(task.executor_config))
        for dag in bag.dags.values()
        for task in dag.tasks
        if task.task_id != "report"
    }
    assert placed == {
        (queue, str({"pod_template_file": f"/etc/etcdkeep-pods/{queue}.yaml"})) for queue in ("backup", "verify")
    }


@pytest.mark.parametrize("wrong", ["a queue", "a/b", ""])
def test_a_queue_that_can_name_no_dag_is_an_error_of_that_cluster_alone(read_dags, clusters, wrong):
    clusters[2]["verify_queue"] = wrong
    bag = read_dags(*clusters, file="restore.py")
    assert bag.import_errors == {}
    assert list(bag.dags) == ["restore"]


def test_reading_it_twice_gives_the_same(read_dags, clusters):
    first, second = (
        DagSerialization.to_dict(read_dags(*clusters, file="restore.py").dags["restore"]) for _ in range(2)
    )
    assert first == second
    assert "PRIVATE" not in json.dumps(first)


def test_without_clusters_there_is_nothing_to_choose_and_no_error(read_dags):
    bag = read_dags("schema_version: 1\nclusters: []\n", file="restore.py")
    assert bag.import_errors == {}
