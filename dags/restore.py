"""
Bring one cluster's control plane back to a backup. **Changes nothing before two people have approved it.**

Trigger it by hand. Clusters on a queue of their own (`verify_queue`) have their own DAG, `restore__<queue>`: the tag filter finds
it by the cluster's name. A dry run is the default. It ends after `preflight`: read that task's log or its XCom `page` for the plan,
every finding and what will be lost.

| task | does |
|---|---|
| `resolve_backup` | checks the confirmation, finds the backup (newest verified, or the one named) |
| `preflight` | checks set, nodes and API; collects every finding; plans. Changes nothing |
| `approve`, `approve_second` | two different people read the plan and approve, within four hours each; each answer is signed. A rejection ends the run |
| `stage` | copies snapshot, certificates and keys to each node, beside the live ones |
| `restore_etcd` | restores the snapshot into an empty folder with the real tool, and checks it; everything still runs |
| `swap` | **the outage**: stop, swap by renames, start |
| `verify` | waits until etcd and API serve; compares revision, cluster id, keys, pods and nodes with the backup; the approvals are spent |
| `fetch_kubeconfig` | seals the node's new kubeconfig into the record: `python -m etcdkeep kubeconfig CLUSTER --to FILE` |
| `rollback` | only when a task from `stage` to `verify` failed: rolls back, or reports the current state (`hold`) |

`swap` is one task, where the design draws three. The control plane is down while it runs, and each hand-over between tasks
costs seconds. A scheduler that dies between two tasks would leave it down. Everything slow is done before.

**When it fails:** `rollback` ends with the exact state and, if something is left to do, with a script. The run counts as
failed even when everything was rolled back. Nothing is ever deleted: what was set aside stays on the nodes until you remove
it with `python -m etcdkeep restore-leftovers`. You may clear any task: each asks the nodes what is done, and each checks the
two signed approvals of this run. They are spent when the restore has ended. To go back from a restore that ended well, start
a new restore. After `hold`, clear the failed task to continue, or `rollback` to roll back. If Airflow is gone: docs/runbook.md.
"""

from __future__ import annotations

from datetime import UTC, datetime

from airflow.sdk import DAG, Param, TriggerRule

from etcdkeep.config.loading import load_config
from etcdkeep.config.models import Cluster
from etcdkeep_airflow.notifications.restores import restore_ended
from etcdkeep_airflow.notifications.runs import keep_error
from etcdkeep_airflow.operators.base import by_verify_queue, longest_task, on_queue, placed_on, repository_param
from etcdkeep_airflow.operators.restore import (
    RESTORE_RETRIES,
    ROLLBACK_RETRIES,
    SOON,
    TRIES,
    DockerEtcdRestoreOperator,
    FetchKubeconfigOperator,
    PreflightOperator,
    ResolveBackupOperator,
    RestoreApproval,
    RollbackOperator,
    StageOperator,
    SwapOperator,
    VerifyRestoreOperator,
)

PARAMS = {
    "backup": Param("", type=["string", "null"], title="Backup", description="Id of the backup; empty: the newest verified one."),
    "what": Param("etcd+pki", enum=["etcd+pki", "etcd", "pki", "etcd+config", "config"], title="What", description="etcd's data, certificates and keys, the API server's configuration (encryption at rest); pki includes config."),
    "bump_revision": Param(True, type="boolean", title="Raise revisions", description="So that clients do not keep stale caches."),
    "way": Param("auto", enum=["auto", "kubelet", "manifests"], title="Way to stop", description="Stop the kubelet, or park the manifests (a second or two longer). auto: kubelet where possible."),
    "dry_run": Param(True, type="boolean", title="Dry run", description="Only check and plan. The run ends before anyone is asked."),
    "on_failure": Param("rollback", enum=["rollback", "hold"], title="If a step fails", description="Roll back. Or hold: leave everything as it is for a person."),
    "override": Param(False, type="boolean", title="Override", description="Continue even if overridable problems exist. The approvers see them."),
    "reason": Param(type="string", minLength=1, title="Reason", description="Why. The approvers see it, and the record keeps it."),
    "confirm": Param(type="string", minLength=1, title="Confirm", description="Type the cluster's name."),
}  # fmt: skip


def restore_dag(queue: str | None, clusters: list[Cluster]) -> DAG:
    names = sorted(cluster.name for cluster in clusters)
    choice = Param(type="string", enum=names, title="Cluster", description="The control plane to restore.")
    with DAG(
        dag_id=on_queue("restore", queue),
        doc_md=__doc__,
        schedule=None,
        start_date=datetime(2026, 1, 1, tzinfo=UTC),
        catchup=False,
        max_active_runs=16,  # of different clusters; one cluster has one restore at a time
        params={"cluster": choice, **PARAMS, **repository_param(clusters)},
        tags=["restore", *(names if queue else ())],
        on_success_callback=restore_ended,
        on_failure_callback=restore_ended,
        default_args={
            "owner": "etcdkeep",
            "cluster": "{{ params.cluster }}",
            "repository": "{{ params.get('repository') or '' }}",
            **placed_on(queue),
            "retries": TRIES,
            "retry_delay": SOON,
            "retry_policy": RESTORE_RETRIES,
            "execution_timeout": longest_task(clusters),
            "on_failure_callback": keep_error,
        },
    ) as dag:
        resolve_backup = ResolveBackupOperator(task_id="resolve_backup")
        preflight = PreflightOperator(task_id="preflight", backup="{{ ti.xcom_pull('resolve_backup')['backup_id'] }}")
        approve = RestoreApproval(task_id="approve")
        approve_second = RestoreApproval(task_id="approve_second")
        stage = StageOperator(task_id="stage")
        restore_etcd = DockerEtcdRestoreOperator(task_id="restore_etcd")
        swap = SwapOperator(task_id="swap")
        verify = VerifyRestoreOperator(task_id="verify")
        fetch_kubeconfig = FetchKubeconfigOperator(task_id="fetch_kubeconfig")
        rollback = RollbackOperator(
            task_id="rollback", trigger_rule=TriggerRule.ONE_FAILED, retries=3, retry_policy=ROLLBACK_RETRIES
        )

        (
            resolve_backup
            >> preflight
            >> approve
            >> approve_second
            >> stage
            >> restore_etcd
            >> swap
            >> verify
            >> fetch_kubeconfig
        )
        [stage, restore_etcd, swap, verify] >> rollback
    return dag


for each, of_queue in by_verify_queue(load_config().clusters.values()).items():
    globals()[on_queue("restore", each)] = restore_dag(each, of_queue)
