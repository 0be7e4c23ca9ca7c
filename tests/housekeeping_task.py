"""The task `housekeeping` of cluster harbor, as a worker's process runs it: Airflow's metrics are set up first. As a module it is such a process."""

from __future__ import annotations

from airflow.sdk import DAG
from airflow.sdk.configuration import conf
from airflow.sdk.observability import stats
from airflow.sdk.observability.metrics import stats_utils

from etcdkeep_airflow.operators.housekeeping import HousekeepingOperator


def run_housekeeping() -> None:
    """Run it with Airflow's configuration of now."""
    stats.initialize(
        factory=stats_utils.get_stats_factory(), export_legacy_names=conf.getboolean("metrics", "legacy_names_on")
    )
    with DAG(dag_id="housekeeping", schedule=None):
        task = HousekeepingOperator(task_id="housekeeping", cluster="harbor")
    task.execute({"run_id": "scheduled__2026-11-23"})


if __name__ == "__main__":
    run_housekeeping()
