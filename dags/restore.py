"""
Bring one cluster's control plane back to a backup. **Changes nothing before two people have approved it.**

Trigger it by hand. The first run is a dry run unless you say otherwise: it ends after `preflight`, and the plan, every
objection and what will be lost stand in that task's log and in its XCom `page`.

| task | does |
|---|---|
| `resolve_backup` | checks the confirmation, finds the backup (newest verified, or the one named) |
| `preflight` | asks set, nodes and API; collects every objection; plans. Touches nothing |
| `approve`, `approve_second` | two different people read the plan and approve, within four hours each; each answer is signed. A rejection ends the run |
| `stage` | brings snapshot, certificates and keys to each node, beside what runs |
| `restore_etcd` | restores the snapshot into an empty folder with the real tool, and checks it; everything still runs |
| `swap` | **the outage**: stop, swap by renames, start |
| `verify` | waits until etcd and API serve; compares revision, cluster id, keys, pods and nodes with the backup; the approvals are spent |
| `fetch_kubeconfig` | seals the node's new kubeconfig into the record: `python -m etcdkeep kubeconfig CLUSTER --to FILE` |
| `rollback` | only when a task from `stage` to `verify` failed: rolls back, or says where things stand (`hold`) |

`swap` is one task, where the design draws three: while it runs nobody is served, each hand-over between tasks costs seconds
of that, and a scheduler that dies between two tasks would leave the control plane down. Everything slow is done before.

**When it fails:** `rollback` ends with the exact state and, where something is left to do, with a script. The run counts as
failed even when everything was rolled back. Nothing is ever deleted: what was set aside stays on the nodes until
`python -m etcdkeep restore-leftovers` is told to remove it. Any task may be cleared: each asks the nodes what is done, and each
checks the two signed approvals of this run. They are spent when the restore has ended: going back from a restore that ended
well is a new restore. After `hold`, clear the failed task to go on, or `rollback` to roll back. Airflow gone: docs/runbook.md.
"""

from __future__ import annotations

from datetime import UTC, datetime

from airflow.sdk import DAG, Param, TriggerRule

from etcdkeep.config_file import load_config
from etcdkeep_airflow.operators.base import longest_task
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

CLUSTERS = load_config().clusters
QUEUES = {cluster.verify_queue or cluster.queue for cluster in CLUSTERS.values()}

PARAMS = {
    "cluster": Param(type="string", enum=sorted(CLUSTERS), title="Cluster", description="Which control plane is brought back."),
    "backup": Param("", type=["string", "null"], title="Backup", description="Its id; empty for the newest verified one."),
    "what": Param("etcd+pki", enum=["etcd+pki", "etcd", "pki", "etcd+config", "config"], title="What", description="etcd's data, certificates and keys, the API server's configuration (encryption at rest); pki includes config."),
    "bump_revision": Param(True, type="boolean", title="Raise revisions", description="So that clients do not keep stale caches."),
    "way": Param("auto", enum=["auto", "kubelet", "manifests"], title="Way to stop", description="Stop the kubelet, or park the manifests (a second or two longer); auto: the first where it can be."),
    "dry_run": Param(True, type="boolean", title="Dry run", description="Only look and plan; ends before anybody is asked."),
    "on_failure": Param("rollback", enum=["rollback", "hold"], title="If a step fails", description="Roll back, or hold: leave it as it is for a person."),
    "override": Param(False, type="boolean", title="Override", description="Go on even if overridable problems exist; the approvers see them."),
    "reason": Param(type="string", minLength=1, title="Reason", description="Why; the approvers see it, and it stays in the record."),
    "confirm": Param(type="string", minLength=1, title="Confirm", description="Type the cluster's name."),
}  # fmt: skip

with DAG(
    dag_id="restore",
    doc_md=__doc__,
    schedule=None,
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=16,  # of different clusters; one cluster has one restore at a time
    params=PARAMS,
    tags=["restore"],
    default_args={
        "owner": "etcdkeep",
        "cluster": "{{ params.cluster }}",
        "queue": QUEUES.pop() if len(QUEUES) == 1 else None,  # a queue cannot depend on the form
        "retries": TRIES,
        "retry_delay": SOON,
        "retry_policy": RESTORE_RETRIES,
        "execution_timeout": longest_task(CLUSTERS.values()),
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
