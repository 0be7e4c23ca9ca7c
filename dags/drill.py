"""
Prove that a backup restores: restore it into a throw-away etcd on the worker, read every key, compare, wipe.

**Changes nothing** in the cluster, and never speaks to it. It adds its result to the backup set: level `drill` with the
seconds of each phase, or what is wrong.

**When it fails:** "does not restore, and is marked bad" is about the backup: take another one at once, keep this one for
analysis. Any other message is about the worker (no etcd program, too old a one, no room, no age identity), ends with
the next step, and leaves the backup as it was.

**By hand:** trigger it; `backup` takes a backup id, empty means the newest good one.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from airflow.sdk import DAG, Param, get_parsing_context

from etcdkeep.config import AFTER_BACKUP, Cluster, Drill
from etcdkeep.config_file import load_config
from etcdkeep_airflow.operators.base import RETRIES
from etcdkeep_airflow.operators.drill import DrillOperator
from etcdkeep_airflow.operators.verify import backup_asset

PARAMS = {
    "backup": Param("", type=["string", "null"], title="Backup", description="Its id; empty: the newest good one."),
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
        params=PARAMS,
        tags=["drill", cluster.profile, *cluster.tags],
    ) as dag:
        DrillOperator(
            task_id="drill",
            cluster=cluster.name,
            backup="{{ params.backup or '' }}",
            owner="etcdkeep",
            queue=cluster.verify_queue or cluster.queue,
            retries=3,
            retry_delay=timedelta(seconds=30),
            retry_policy=RETRIES,
            execution_timeout=timedelta(seconds=drill.time_limit_s) + GRACE,
        )
    return dag


wanted = get_parsing_context().dag_id
for each in load_config().clusters.values():
    if each.drill and wanted in (None, f"drill__{each.name}"):
        globals()[f"drill__{each.name}"] = drill_dag(each, each.drill)
