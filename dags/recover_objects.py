"""
Bring single objects back from a backup: a namespace that was deleted, a ConfigMap as it was last night.

**Changes nothing before somebody has approved it, and never deletes.** A live object that differs from the backup is left
unchanged, unless *Overwrite* is on. Even then it is overwritten only as the approver has seen it.

| task | does |
|---|---|
| `resolve_backup` | finds the backup: the newest verified one, or the one named |
| `plan` | reads the objects, cleans them, orders them, has the API server try each (server-side dry run) and compares. Changes nothing |
| `approve` | shows what would be created, what differs and how; a rejection ends the run |
| `apply` | server-side apply as field manager `etcdkeep`; checks each object again first |

Clusters on a queue of their own (`verify_queue`) have their own DAG, `recover_objects__<queue>`: the tag filter finds it by the
cluster's name. A dry run is the default. It ends after `plan`: read its log or its XCom `page`.

**When it fails:** `plan` names what is wrong with the selection, the backup or the API. After `apply`, the log has a line
for each object: each refused one with its reason, and the others are done. Start a new run for the rest; what exists already
counts as unchanged. You may clear a task at any time. Plan, manifests and report are sealed in the repository under
`CLUSTER/recoveries/`. By hand: `python -m etcdkeep objects recover`, docs/recover-objects.md.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from airflow.sdk import DAG, Param

from etcdkeep.config.loading import load_config
from etcdkeep.config.models import Cluster
from etcdkeep_airflow.operators.base import (
    RETRIES,
    by_verify_queue,
    longest_task,
    on_queue,
    placed_on,
    repository_param,
)
from etcdkeep_airflow.operators.recover import (
    ApplyRecoveryOperator,
    ChooseSetOperator,
    PlanRecoveryOperator,
    RecoveryApproval,
)

PARAMS = {
    "backup": Param("", type=["string", "null"], title="Backup", description="Id of the backup; empty: the newest verified one."),
    "namespace": Param("", type=["string", "null"], title="Namespace", description="One, or several with commas. A namespace that is gone is recreated."),
    "kinds": Param("", type=["string", "null"], title="Kinds", description="Such as deploy, secrets, widgets.example.com; empty: all."),
    "labels": Param("", type=["string", "null"], title="Labels", description="As kubectl -l: app=web,tier in (a,b)."),
    "name": Param("", type=["string", "null"], title="Name", description="A name or a pattern: web-*."),
    "overwrite": Param(False, type="boolean", title="Overwrite", description="Overwrite live objects that differ, as shown to the approver. Off: they are left and reported."),
    "include_left_out": Param(False, type="boolean", title="Include what is left out", description="Events, finished jobs, pods of a Deployment…: what the cluster makes by itself, or what has ended."),
    "dry_run": Param(True, type="boolean", title="Dry run", description="Only plan and show. The run ends before anyone is asked."),
    "reason": Param(type="string", minLength=1, title="Reason", description="Why. The approver sees it."),
}  # fmt: skip


def recovery_dag(queue: str | None, clusters: list[Cluster]) -> DAG:
    names = sorted(cluster.name for cluster in clusters)
    choice = Param(type="string", enum=names, title="Cluster", description="Cluster of the objects.")
    with DAG(
        dag_id=on_queue("recover_objects", queue),
        doc_md=__doc__,
        schedule=None,
        start_date=datetime(2026, 1, 1, tzinfo=UTC),
        catchup=False,
        max_active_runs=4,
        params={"cluster": choice, **PARAMS, **repository_param(clusters)},
        tags=["recover", *(names if queue else ())],
        default_args={
            "owner": "etcdkeep",
            "cluster": "{{ params.cluster }}",
            "repository": "{{ params.get('repository') or '' }}",
            **placed_on(queue),
            "retries": 3,
            "retry_delay": timedelta(seconds=30),
            "retry_policy": RETRIES,
            "execution_timeout": longest_task(clusters),
        },
    ) as dag:
        resolve_backup = ChooseSetOperator(task_id="resolve_backup")
        plan = PlanRecoveryOperator(task_id="plan", backup="{{ ti.xcom_pull('resolve_backup')['backup_id'] }}")
        approve = RecoveryApproval(task_id="approve")
        apply = ApplyRecoveryOperator(task_id="apply")

        resolve_backup >> plan >> approve >> apply
    return dag


for each, of_queue in by_verify_queue(load_config().clusters.values()).items():
    globals()[on_queue("recover_objects", each)] = recovery_dag(each, of_queue)
