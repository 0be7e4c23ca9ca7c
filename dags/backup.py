"""
Back up one cluster's control plane, and prove the backup good.

**Changes nothing** in the cluster: one snapshot file lies in the etcd pod while the run lasts, and `cleanup` removes
it, however the run ends. The set appears in the repository when `upload` has written its manifest, and counts as good
when `verify` has read it back and found nothing wrong. `rehearse` then asks everything that a restore's preflight would ask,
of this set, on the live site, and records the answer: could it be restored tonight?

**When it fails:** the failed task's log names the object, what was found and the next step. Each task may be cleared
by itself; a cleared run never makes a second set. A set that `verify` rejects stays, marked bad, and is never offered
for a restore. When `rehearse` fails, the set is good and stays: correct what its log names, so that a restore can work.
The sets of a cluster: `python -m etcdkeep list CLUSTER`.

**By hand:** trigger it with a reason.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from airflow.sdk import DAG, Param, get_parsing_context

from etcdkeep.config import Cluster
from etcdkeep.config_file import load_config
from etcdkeep_airflow.operators.backup import (
    CleanupOperator,
    CopyOutOperator,
    DiscoverOperator,
    FetchPkiOperator,
    SnapshotOperator,
    UploadOperator,
)
from etcdkeep_airflow.operators.base import RETRIES
from etcdkeep_airflow.operators.rehearse import RehearseOperator
from etcdkeep_airflow.operators.verify import VerifyOperator, backup_asset

PARAMS = {
    "reason": Param(
        "", type=["string", "null"], title="Reason", description="Why this backup is taken; stands in its manifest."
    ),
    "pin": Param(
        False,
        type="boolean",
        title="Pin",
        description="Mark the set as pinned in its manifest. Nothing removes sets yet, pinned or not.",
    ),
}


def backup_dag(cluster: Cluster) -> DAG:
    has_nodes = cluster.control_plane.has_nodes
    with DAG(
        dag_id=f"backup__{cluster.name}",
        doc_md=__doc__,
        schedule=cluster.schedule,
        start_date=datetime(2026, 1, 1, tzinfo=UTC),
        catchup=False,
        max_active_runs=1,
        params=PARAMS,
        tags=["backup", cluster.profile, *cluster.tags],
        default_args={
            "owner": "etcdkeep",
            "cluster": cluster.name,
            "queue": cluster.queue,
            "retries": 3,
            "retry_delay": timedelta(seconds=30),
            "retry_policy": RETRIES,
            "execution_timeout": timedelta(seconds=cluster.limits.task_s),
        },
    ) as dag:
        discover = DiscoverOperator(task_id="discover")
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
            queue=cluster.verify_queue or cluster.queue,
            outlets=[backup_asset(cluster.name)],
        )
        if cluster.rehearse:
            verify >> RehearseOperator(task_id="rehearse", queue=cluster.verify_queue or cluster.queue)
        cleanup = CleanupOperator(task_id="cleanup", discovery=discover.output).as_teardown(on_failure_fail_dagrun=True)

        discover >> snapshot >> copy_out >> upload >> [verify, cleanup]
        if fetch_pki:
            discover >> fetch_pki >> [upload, cleanup]
    return dag


wanted = get_parsing_context().dag_id
for each in load_config().clusters.values():
    if wanted in (None, f"backup__{each.name}"):
        globals()[f"backup__{each.name}"] = backup_dag(each)
