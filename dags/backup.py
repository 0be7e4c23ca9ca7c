"""
Back up one cluster's control plane, and check that the backup is good.

**Changes nothing** in the cluster: one snapshot file is in the etcd pod during the run, and `cleanup` removes it, however
the run ends. The set appears in the repository when `upload` has written its manifest. It counts as good when `verify` has
read it back and found nothing wrong. `rehearse` then runs the checks of a restore's preflight with this set on the live
site, and records the answer: could it be restored tonight? `replicate`, where the cluster has `copies`, brings the verified sets to each
of them and reads them back.

**When it fails:** the log of the failed task names the object, what was found and the next step. You may clear each task by
itself; a cleared run never makes a second set. A set that `verify` rejects stays, marked bad, and is never offered for a
restore. When `replicate` fails, a copy of the set is missing; the set is good and stays. Clear it, or let the next run copy what
is missing (`python -m etcdkeep replicate CLUSTER`). When `rehearse` fails, the set is good and stays. Correct what its log names, so that a restore can work.
List the sets of a cluster: `python -m etcdkeep list CLUSTER`.

**Who is notified:** the cluster's `notifications`, when the run has finally failed; its `ping` (docs/monitoring.md).

**By hand:** trigger it with a reason.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from airflow.sdk import DAG, Param, TriggerRule

from etcdkeep.config.models import Cluster
from etcdkeep_airflow.notifications.backups import backup_callbacks, ping_start, ping_success, task_callbacks
from etcdkeep_airflow.operators.backup import (
    CleanupOperator,
    CopyOutOperator,
    DiscoverOperator,
    FetchPkiOperator,
    SnapshotOperator,
    UploadOperator,
)
from etcdkeep_airflow.operators.base import RETRIES, clusters_with, placed, placed_with_keys
from etcdkeep_airflow.operators.rehearse import RehearseOperator
from etcdkeep_airflow.operators.replicate import ReplicateOperator
from etcdkeep_airflow.operators.verify import VerifyOperator, backup_asset

PARAMS = {
    "reason": Param(
        "",
        type=["string", "null"],
        title="Reason",
        description="Why this backup is taken. It is recorded in the manifest.",
    ),
    "pin": Param(
        False,
        type="boolean",
        title="Pin",
        description="Keep this set whatever the rules of retention say, until somebody unpins it (python -m etcdkeep unpin).",
    ),
}


def backup_dag(cluster: Cluster) -> DAG:
    has_nodes = cluster.control_plane.has_nodes
    with_keys = placed_with_keys(cluster)
    with DAG(
        dag_id=f"backup__{cluster.name}",
        doc_md=__doc__,
        schedule=cluster.schedule,
        start_date=datetime(2026, 1, 1, tzinfo=UTC),
        catchup=False,
        max_active_runs=1,
        tags=["backup", cluster.profile, *cluster.tags],
        default_args={
            "owner": "etcdkeep",
            "cluster": cluster.name,
            **placed(cluster),
            "retries": 3,
            "retry_delay": timedelta(seconds=30),
            "retry_policy": RETRIES,
            "execution_timeout": timedelta(seconds=cluster.limits.task_s),
            **task_callbacks(cluster),
        },
        **backup_callbacks(cluster),
    ) as dag:
        discover = DiscoverOperator(task_id="discover", **ping_start(cluster))
        snapshot = SnapshotOperator(task_id="snapshot", discovery=discover.output)
        copy_out = CopyOutOperator(task_id="copy_out", discovery=discover.output, snapshot=snapshot.output)
        fetch_pki = FetchPkiOperator(task_id="fetch_pki", discovery=discover.output) if has_nodes else None
        upload = UploadOperator(
            task_id="upload",
            discovery=discover.output,
            copied=copy_out.output,
            node_files=fetch_pki.output if fetch_pki else None,
        )
        verify = VerifyOperator(
            task_id="verify",
            **with_keys,
            outlets=[backup_asset(cluster.name)],
            **ping_success(cluster),
        )
        if cluster.copies:
            # Also where verify was skipped for want of an age identity: the bytes were compared with the manifest.
            verify >> ReplicateOperator(task_id="replicate", **with_keys, trigger_rule=TriggerRule.NONE_FAILED)
        if cluster.rehearse:
            verify >> RehearseOperator(task_id="rehearse", **with_keys)
        cleanup = CleanupOperator(task_id="cleanup", discovery=discover.output).as_teardown(on_failure_fail_dagrun=True)

        # The outputs above are the other arrows: each that is drawn twice costs time at a parse.
        upload >> [verify, cleanup]
        if fetch_pki:
            fetch_pki >> cleanup
    # Last, for each task would carry a copy; added, for those that are assigned are validated, for each DAG anew. A thousand
    # DAGs would take four times as long to serialise, and half as long again to parse.
    dag.params.update(PARAMS)
    return dag


for each in clusters_with("backup__"):
    globals()[f"backup__{each.name}"] = backup_dag(each)
