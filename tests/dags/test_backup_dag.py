"""``dags/backup.py``: one DAG per usable cluster, and what each is made of."""

from __future__ import annotations

import gc
import json
from datetime import timedelta

import pytest
from airflow.dag_processing.dagbag import DagBag
from airflow.sdk import DAG
from airflow.serialization.serialized_objects import DagSerialization

from etcdkeep.config.loading import CONFIG_VARIABLE
from etcdkeep.errors import StreamCut
from tests.builders import make_entry, make_file
from tests.dags.conftest import DAGS

NODE_GRAPH = {
    "discover": {"snapshot", "copy_out", "fetch_pki", "upload", "cleanup"},
    "snapshot": {"copy_out"},
    "copy_out": {"upload"},
    "fetch_pki": {"upload", "cleanup"},
    "upload": {"verify", "cleanup"},
    "verify": {"rehearse"},
    "rehearse": set(),
    "cleanup": set(),
}
NODELESS_GRAPH = {
    "discover": {"snapshot", "copy_out", "upload", "cleanup"},
    "snapshot": {"copy_out"},
    "copy_out": {"upload"},
    "upload": {"verify", "cleanup"},
    "verify": {"rehearse"},
    "rehearse": set(),
    "cleanup": set(),
}


def graph(dag):
    return {task.task_id: task.downstream_task_ids for task in dag.tasks}


def serialised(bag):
    return {dag_id: DagSerialization.to_dict(dag) for dag_id, dag in bag.dags.items()}


def test_every_cluster_has_its_dag_and_no_file_has_an_error(read_dags, clusters):
    bag = read_dags(*clusters)
    assert bag.import_errors == {}
    assert {"backup__harbor", "backup__skiff", "backup__fleet"} <= set(bag.dags)


@pytest.mark.parametrize(
    ("name", "expected"), [("harbor", NODE_GRAPH), ("fleet", NODE_GRAPH), ("skiff", NODELESS_GRAPH)]
)
def test_the_graph(read_dags, clusters, name, expected):
    assert graph(read_dags(*clusters, file="backup.py").dags[f"backup__{name}"]) == expected


def test_copies_add_a_task_after_verify(read_dags):
    copies = [{"repository": "s3://copies/etcd"}]
    dag = read_dags(make_entry(copies=copies, verify_queue="restore"), file="backup.py").dags["backup__harbor"]
    assert graph(dag)["verify"] == {"rehearse", "replicate"}
    replicate = dag.get_task("replicate")
    assert (replicate.queue, replicate.trigger_rule) == ("restore", "none_failed")


def test_what_every_dag_says_of_itself(read_dags, clusters):
    for name, dag in read_dags(*clusters, file="backup.py").dags.items():
        assert dag.catchup is False
        assert dag.max_active_runs == 1
        assert "When it fails" in dag.doc_md
        assert {"backup"} <= set(dag.tags), name
        assert dag.start_date.tzinfo is not None


def test_schedule_tags_and_queues_come_from_the_cluster(read_dags, clusters):
    dags = read_dags(*clusters, file="backup.py").dags
    assert dags["backup__harbor"].schedule == "30 2 * * *"
    assert dags["backup__skiff"].schedule == "@daily"
    assert set(dags["backup__skiff"].tags) == {"backup", "gke-user-kubeception", "prod"}
    queues = {task.task_id: task.queue for task in dags["backup__fleet"].tasks}
    assert queues == {**dict.fromkeys(NODE_GRAPH, "backup"), "verify": "restore", "rehearse": "restore"}


def test_pools_and_executor_come_from_the_cluster(read_dags):
    entry = make_entry(pool="site_east", verify_pool="drills", executor="LocalExecutor")
    dag = read_dags(entry, file="backup.py").dags["backup__harbor"]
    assert {task.task_id: task.pool for task in dag.tasks} == {
        **dict.fromkeys(NODE_GRAPH, "site_east"),
        "verify": "drills",
        "rehearse": "drills",
    }
    assert {task.executor for task in dag.tasks} == {"LocalExecutor"}


def test_the_form_is_the_dags_and_no_task_carries_a_copy(read_dags):
    dag = read_dags(make_entry(), file="backup.py").dags["backup__harbor"]
    assert set(dag.params) == {"reason", "pin"}
    assert all(not task.params for task in dag.tasks)


def test_no_schedule_is_no_schedule(read_dags):
    text = make_file(make_entry()).replace("name: harbor", "name: harbor\n  schedule: null")
    assert read_dags(text, file="backup.py").dags["backup__harbor"].schedule is None


def test_every_task_is_retried_by_the_kind_of_error(read_dags, clusters):
    for dag in read_dags(*clusters, file="backup.py").dags.values():
        for task in dag.tasks:
            assert (task.retries, task.retry_delay, task.owner) == (3, timedelta(seconds=30), "etcdkeep")
            assert task.retry_policy.evaluate(StreamCut("x"), 1, 3).action.value == "retry"


def test_cleanup_always_runs_and_its_failure_shows(read_dags, clusters):
    for dag in read_dags(*clusters, file="backup.py").dags.values():
        teardowns = [task for task in dag.tasks if task.is_teardown]
        assert [task.task_id for task in teardowns] == ["cleanup"]
        assert teardowns[0].on_failure_fail_dagrun
        assert teardowns[0].trigger_rule == "all_done_setup_success"


def test_only_verify_updates_the_asset(read_dags, clusters):
    for dag in read_dags(*clusters, file="backup.py").dags.values():
        name = dag.dag_id.removeprefix("backup__")
        outlets = {task.task_id: [asset.uri for asset in task.outlets] for task in dag.tasks if task.outlets}
        assert outlets == {"verify": [f"etcdkeep://{name}/backup"]}


def test_a_run_by_hand_has_a_reason_and_a_pin(read_dags, clusters):
    params = read_dags(*clusters, file="backup.py").dags["backup__harbor"].params
    assert params.validate() == {"reason": "", "pin": False}  # Airflow does not at a parse
    for name, wrong in (("pin", "yes"), ("reason", 7)):
        with pytest.raises(ValueError, match="is not of type"):
            params.get_param(name).resolve(wrong)


def test_no_secret_and_no_time_of_parsing_is_serialised(read_dags, clusters):
    first, second = (serialised(read_dags(*clusters, file="backup.py")) for _ in range(2))
    assert first == second
    text = json.dumps(first)
    assert "PRIVATE" not in text
    assert "AGE-SECRET" not in text


def test_a_wrong_entry_leaves_the_others_their_dags_and_is_shown_with_every_problem(read_dags, clusters):
    clusters[2] |= {"schedule": "99 * * * *", "spool": "x"}
    bag = read_dags(*clusters)
    assert {dag_id for dag_id in bag.dags if dag_id.startswith("backup__")} == {"backup__harbor", "backup__skiff"}
    shown = {file.rpartition("/")[2]: text for file, text in bag.import_errors.items()}
    assert list(shown) == ["configuration.py"]
    assert "clusters[2] (fleet).schedule: expected five cron fields" in shown["configuration.py"]
    assert "clusters[2] (fleet).spool: " in shown["configuration.py"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        pytest.param("clusters: [", "is not valid YAML", id="malformed"),
        pytest.param("schema_version: 2\nclusters: []", "schema_version: Input should be 1", id="other-version"),
    ],
)
def test_a_file_that_cannot_be_used_is_an_import_error(read_dags, text, said):
    bag = read_dags(text)
    assert not [dag_id for dag_id in bag.dags if dag_id.startswith("backup__")]
    shown = {file.rpartition("/")[2]: text for file, text in bag.import_errors.items()}
    assert said in shown["configuration.py"]


def test_no_file_at_all_is_an_import_error(monkeypatch):
    monkeypatch.delenv(CONFIG_VARIABLE, raising=False)
    (error,) = DagBag(DAGS / "configuration.py").import_errors.values()
    assert "ETCDKEEP_CONFIG is not set" in error


def test_a_file_without_clusters_has_no_dags_and_no_error(read_dags):
    bag = read_dags("schema_version: 1\nclusters: []\n", file="backup.py")
    assert (dict(bag.dags), bag.import_errors) == ({}, {})


def test_a_task_process_makes_only_the_dag_it_runs(read_dags, clusters, monkeypatch):
    monkeypatch.setenv("_AIRFLOW_PARSING_CONTEXT_DAG_ID", "backup__skiff")
    bag = read_dags(*clusters, file="backup.py")
    assert list(bag.dags) == ["backup__skiff"]


def test_the_garbage_collector_rests_while_dags_are_made_and_no_longer(read_dags, clusters, monkeypatch):
    states = []
    made = DAG.__attrs_post_init__
    monkeypatch.setattr(DAG, "__attrs_post_init__", lambda dag: (states.append(gc.isenabled()), made(dag))[1])
    read_dags(*clusters, file="backup.py")
    assert set(states) == {False}
    assert gc.isenabled()
    monkeypatch.setattr(DAG, "__attrs_post_init__", lambda dag: 1 / 0)
    assert read_dags(*clusters, file="backup.py").import_errors
    assert gc.isenabled()


def test_a_thousand_clusters_have_a_thousand_dags(read_dags, monkeypatch):
    monkeypatch.setenv("AIRFLOW__CORE__DAGBAG_IMPORT_TIMEOUT", "600")  # how long it takes is for `make bench` to say
    bag = read_dags(*(make_entry(name=f"cluster-{number}") for number in range(1000)), file="backup.py")
    assert bag.import_errors == {}
    assert len(bag.dags) == 1000
