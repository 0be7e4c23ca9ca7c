"""The forms of all DAGs, as Airflow's UI takes them."""

from __future__ import annotations

import pytest

from etcdkeep_airflow.operators.base import filled_in


@pytest.mark.parametrize("file", ["backup.py", "drill.py", "recover_objects.py", "restore.py"])
def test_what_may_be_left_empty_can_be(read_dags, clusters, file):
    """The UI takes an empty field for an error unless its type admits null, and lets nobody trigger."""
    bag = read_dags(*({**entry, "drill": {}} for entry in clusters), file=file)
    params = [dag.params.get_param(name) for dag in bag.dags.values() for name in dag.params]
    empty = [param for param in params if param.value == ""]
    assert empty
    for param in empty:
        assert param.schema["type"] == ["string", "null"]
        assert param.resolve(None) is None


@pytest.mark.parametrize("file", ["drill.py", "recover_objects.py", "restore.py"])
def test_a_form_offers_the_repositories_where_there_are_copies(read_dags, clusters, file):
    with_copies = {**clusters[0], "drill": {}, "copies": [{"repository": "s3://copies/etcd"}]}
    for bag, has_field in (
        (read_dags(with_copies, file=file), True),
        (read_dags({**clusters[0], "drill": {}}, file=file), False),
    ):
        for dag in bag.dags.values():
            assert ("repository" in dag.params) is has_field
            if has_field:
                param = dag.params.get_param("repository")
                assert param.schema["enum"] == ["", clusters[0]["repository"], "s3://copies/etcd", None]
                assert param.resolve("s3://copies/etcd") == "s3://copies/etcd"
            for chosen in ("", None, "s3://copies/etcd") if has_field else ("",):
                params = {name: chosen if name == "repository" else "x" for name in dag.params}
                given = {
                    dag.get_template_env().from_string(task.repository).render(params=params) for task in dag.tasks
                }
                assert given == {chosen or ""}


def test_no_task_can_run_for_ever(read_dags, clusters):
    clusters[0]["limits"] = {"task_s": 20000}
    bag = read_dags(*({**entry, "drill": {}} for entry in clusters))
    limits = {(dag.dag_id, task.task_id): task.execution_timeout for dag in bag.dags.values() for task in dag.tasks}
    assert [task for task, limit in limits.items() if limit is None] == []
    assert bag.dags["backup__harbor"].get_task("verify").execution_timeout.total_seconds() == 20000
    assert bag.dags["backup__fleet"].get_task("verify").execution_timeout.total_seconds() == 4 * 3600
    assert bag.dags["restore"].get_task("swap").execution_timeout.total_seconds() == 20000


def test_an_emptied_field_is_as_one_never_filled_in():
    assert filled_in({"params": {"backup": None, "name": "", "dry_run": False}}) == {"name": "", "dry_run": False}
