"""
Bring single objects back from a backup: a namespace that was deleted, a ConfigMap as it was last night.

**Changes nothing before somebody has approved it, and never deletes.** A live object that differs from the backup is
left as it is, unless *Overwrite* is on; then too it is overwritten only as the approver has seen it.

| task | does |
|---|---|
| `resolve_backup` | finds the backup: the newest verified one, or the one named |
| `plan` | reads the objects, cleans them, puts them in order, has the API server try each (server-side dry run) and compares. Touches nothing |
| `approve` | shows what would be made, what differs and how; a rejection ends the run |
| `apply` | server-side apply as field manager `etcdkeep`; each object is looked at again first |

A dry run, which is what you get unless you say otherwise, ends after `plan`: read its log or its XCom `page`.

**When it fails:** `plan` names what is wrong with the selection, the backup or the API. After `apply`, the log has a line
for each object; what was refused is named with the reason, and the others are done. A new run takes up the rest: what is
there already counts as unchanged. A task may be cleared at any time. Plan, manifests and report lie sealed in the
repository under `CLUSTER/recoveries/`. By hand: `python -m etcdkeep objects recover`, docs/recover-objects.md.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from airflow.sdk import DAG, Param

from etcdkeep.config_file import load_config
from etcdkeep_airflow.operators.base import RETRIES, longest_task
from etcdkeep_airflow.operators.recover import (
    ApplyRecoveryOperator,
    ChooseSetOperator,
    PlanRecoveryOperator,
    RecoveryApproval,
)

CLUSTERS = load_config().clusters
QUEUES = {cluster.verify_queue or cluster.queue for cluster in CLUSTERS.values()}

PARAMS = {
    "cluster": Param(type="string", enum=sorted(CLUSTERS), title="Cluster", description="Whose objects they are."),
    "backup": Param("", type=["string", "null"], title="Backup", description="Its id; empty for the newest verified one."),
    "namespace": Param("", type=["string", "null"], title="Namespace", description="One, or several with commas. The namespace itself comes back too when it is gone."),
    "kinds": Param("", type=["string", "null"], title="Kinds", description="Such as deploy, secrets, widgets.example.com; empty for all."),
    "labels": Param("", type=["string", "null"], title="Labels", description="As kubectl -l: app=web,tier in (a,b)."),
    "name": Param("", type=["string", "null"], title="Name", description="A name or a pattern: web-*."),
    "overwrite": Param(False, type="boolean", title="Overwrite", description="Also live objects that differ, as the approver sees them; off: they are left and reported."),
    "include_left_out": Param(False, type="boolean", title="Include what is left out", description="Events, finished jobs, pods of a Deployment…: what the cluster makes by itself, or what has had its time."),
    "dry_run": Param(True, type="boolean", title="Dry run", description="Only plan and show; ends before anybody is asked."),
    "reason": Param(type="string", minLength=1, title="Reason", description="Why; the approver sees it."),
}  # fmt: skip

with DAG(
    dag_id="recover_objects",
    doc_md=__doc__,
    schedule=None,
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=4,
    params=PARAMS,
    tags=["recover"],
    default_args={
        "owner": "etcdkeep",
        "cluster": "{{ params.cluster }}",
        "queue": QUEUES.pop() if len(QUEUES) == 1 else None,  # a queue cannot depend on the form
        "retries": 3,
        "retry_delay": timedelta(seconds=30),
        "retry_policy": RETRIES,
        "execution_timeout": longest_task(CLUSTERS.values()),
    },
) as dag:
    resolve_backup = ChooseSetOperator(task_id="resolve_backup")
    plan = PlanRecoveryOperator(task_id="plan", backup="{{ ti.xcom_pull('resolve_backup')['backup_id'] }}")
    approve = RecoveryApproval(task_id="approve")
    apply = ApplyRecoveryOperator(task_id="apply")

    resolve_backup >> plan >> approve >> apply
