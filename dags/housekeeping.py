"""
Keep each cluster's backups as its `retention` says, and check that they are fresh.

**What it changes:** with `retention: {enforce: true}` it removes the backups that no rule keeps, after the verified ones that
must stay were read back; each leaves a signed tombstone in `removed/`. Without `enforce` it only reports what it would
remove; without `retention` it only checks. It never speaks to a cluster.

**When it fails:** `report` names each cluster with what is wrong and the next step. A cluster whose removal was refused lost
nothing. `housekeeping` fails where a repository does not answer: clear it.

**By hand:** `python -m etcdkeep prune CLUSTER --dry-run`, `python -m etcdkeep check CLUSTER`. A removal that is larger than
`max_remove_share` waits for a person: `python -m etcdkeep prune CLUSTER --yes`.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from airflow.sdk import DAG

from etcdkeep.config.loading import Config, load_config
from etcdkeep_airflow.operators.base import RETRIES, by_verify_queue, on_queue, placed_on
from etcdkeep_airflow.operators.housekeeping import HousekeepingOperator, ReportOperator

TIME_LIMIT = timedelta(hours=2)
"""Shorter than a housekeeping keeps others out, so that a retry is never refused by the try that hangs."""


def housekeeping_dag(config: Config) -> DAG:
    with DAG(
        dag_id="housekeeping",
        doc_md=__doc__,
        schedule=config.housekeeping_schedule,
        start_date=datetime(2026, 1, 1, tzinfo=UTC),
        catchup=False,
        max_active_runs=1,
        tags=["housekeeping"],
        default_args={
            "owner": "etcdkeep",
            "retries": 3,
            "retry_delay": timedelta(seconds=30),
            "retry_policy": RETRIES,
            "execution_timeout": TIME_LIMIT,
        },
    ) as dag:
        kept = [
            HousekeepingOperator.partial(
                task_id=on_queue("housekeeping", queue),
                map_index_template="{{ task.cluster }}",
                **placed_on(queue),
            ).expand(cluster=[cluster.name for cluster in clusters])
            for queue, clusters in by_verify_queue(config.clusters.values()).items()
        ]
        report = ReportOperator(
            task_id="report",
            clusters=list(config.clusters),
            results=[each.output for each in kept],
            trigger_rule="all_done",
        )
        kept >> report
    return dag


loaded = load_config()
if loaded.clusters:
    dag = housekeeping_dag(loaded)
