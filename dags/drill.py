"""
Check that a backup restores: restore it into a throw-away etcd on the worker, read every key, compare, wipe.

**Changes nothing** in the cluster, and never connects to it. It adds its result to the backup set: level `drill` with the
seconds of each phase, or what is wrong.

**When it fails:** "does not restore, and is marked bad" is about the backup. Take another backup at once, and keep this one
for analysis. Any other message is about the worker: no etcd program or one that is too old, a full disk, no age identity.
It ends with the next step, and the backup keeps its state.

**By hand:** trigger it. `backup` takes a backup id; empty means the newest good one. `repository` takes one of the cluster's copies; empty
means its own repository, or a copy where that is gone or its set is damaged, which the log says.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from airflow.sdk import DAG, Param

from etcdkeep.config.models import Cluster, Drill
from etcdkeep.config.values import AFTER_BACKUP
from etcdkeep_airflow.notifications.backups import drill_callbacks, task_callbacks
from etcdkeep_airflow.operators.base import RETRIES, clusters_with, placed_with_keys, repository_param
from etcdkeep_airflow.operators.drill import DrillOperator
from etcdkeep_airflow.operators.verify import backup_asset

PARAMS = {
    "backup": Param(
        "", type=["string", "null"], title="Backup", description="Id of the backup; empty: the newest good one."
    ),
}
GRACE = timedelta(minutes=5)
"""The drill gives itself up before Airflow does."""


def drill_dag(cluster: Cluster, drill: Drill) -> DAG:
    with DAG(
        dag_id=f"drill__{cluster.name}",
        doc_md=__doc__,
        schedule=[backup_asset(cluster.name)] if drill.schedule == AFTER_BACKUP else drill.schedule,
        start_date=datetime(2026, 1, 1, tzinfo=UTC),
        catchup=False,
        max_active_runs=1,
        params={**PARAMS, **repository_param([cluster])},
        tags=["drill", cluster.profile, *cluster.tags],
        **drill_callbacks(cluster),
    ) as dag:
        DrillOperator(
            task_id="drill",
            cluster=cluster.name,
            backup="{{ params.backup or '' }}",
            repository="{{ params.get('repository') or '' }}",
            owner="etcdkeep",
            **placed_with_keys(cluster),
            retries=3,
            retry_delay=timedelta(seconds=30),
            retry_policy=RETRIES,
            execution_timeout=timedelta(seconds=drill.time_limit_s) + GRACE,
            **task_callbacks(cluster),
        )
    return dag


for each in clusters_with("drill__"):
    if each.drill:
        globals()[f"drill__{each.name}"] = drill_dag(each, each.drill)
