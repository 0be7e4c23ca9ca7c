"""
The callbacks of backups and drills.

The pings of a good backup are sent by its tasks. Everything else is decided when the run has ended, in the DAG processor:
so it is decided once, after all retries, and no backup waits for it.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

from airflow.sdk.definitions.callback import AsyncCallback
from airflow.sdk.definitions.deadline import DeadlineAlert, DeadlineReference

from etcdkeep.config.loading import load_cluster
from etcdkeep.notifications.events import make_event
from etcdkeep_airflow.notifications import telling
from etcdkeep_airflow.notifications.quiet import quietly
from etcdkeep_airflow.notifications.runs import ended_run, keep_error, run_link

if TYPE_CHECKING:
    from collections.abc import Mapping

    from etcdkeep.config.models import Cluster
    from etcdkeep.notifications.events import Event
    from etcdkeep_airflow.notifications.runs import EndedRun

BACKUP, LATE, RESTORABLE, DRILL = "backup", "late", "restorable", "drill"
"""What may be in trouble."""


def backup_callbacks(cluster: Cluster) -> dict[str, Any]:
    """Return the DAG arguments of a backup that tell people; none where nobody is to be told."""
    arguments: dict[str, Any] = {}
    if cluster.notifications or cluster.ping:
        arguments["on_failure_callback"] = partial(backup_failed, cluster.name)
    if cluster.notifications:
        arguments["on_success_callback"] = partial(backup_succeeded, cluster.name)
    if any("backup_late" in entry.events for entry in cluster.notifications):
        arguments["deadline"] = DeadlineAlert(
            reference=DeadlineReference.DAGRUN_QUEUED_AT,
            interval=timedelta(seconds=cluster.limits.run_s),
            callback=AsyncCallback(backup_late, kwargs={"cluster": cluster.name}),
            name="backup_late",
        )
    return arguments


def drill_callbacks(cluster: Cluster) -> dict[str, Any]:
    """Return the DAG arguments of a drill that tell people; none where nobody is to be told."""
    if not cluster.notifications:
        return {}
    return {
        "on_failure_callback": partial(drill_failed, cluster.name),
        "on_success_callback": partial(drill_succeeded, cluster.name),
    }


def task_callbacks(cluster: Cluster) -> dict[str, Any]:
    """Return the arguments of each task of a run whose failure is told."""
    return {"on_failure_callback": keep_error} if cluster.notifications else {}


def ping_start(cluster: Cluster) -> dict[str, Any]:
    """Return the arguments of a run's first task."""
    return {"on_execute_callback": partial(backup_started, cluster.name)} if cluster.ping else {}


def ping_success(cluster: Cluster) -> dict[str, Any]:
    """Return the arguments of the task after which a backup is good."""
    return {"on_success_callback": partial(backup_verified, cluster.name)} if cluster.ping else {}


@quietly
def backup_started(name: str, context: Mapping[str, Any]) -> None:
    """Ping that a backup begins; by a retry too, since the first try may have died before it came to that."""
    telling.signal(load_cluster(name), "start", str(context["run_id"]))


@quietly
def backup_verified(name: str, context: Mapping[str, Any]) -> None:
    """Ping that there is a new good backup."""
    telling.signal(load_cluster(name), "success", str(context["run_id"]))


@quietly
def backup_failed(name: str, context: Mapping[str, Any]) -> None:
    """Tell of a run that finally failed: without a good backup, or with one that could not be restored."""
    cluster, run = load_cluster(name), ended_run(context)
    good = run.succeeded("verify")
    if not good:
        telling.signal(cluster, "fail", run.run_id)
    if run.failed == ("rehearse",):
        _recovered(cluster, run, (BACKUP, LATE), context)
        happened = "the backup is good, but could not be restored now. Correct the problems that the log of `rehearse` names, before a restore is needed."
        telling.tell_trouble(cluster, RESTORABLE, _event("not_restorable", cluster, run, happened, RESTORABLE), context)
        return
    happened = "the backup is good, but its run failed." if good else "the backup failed: there is no new good one."
    telling.tell_trouble(cluster, BACKUP, _event("backup_failed", cluster, run, happened, BACKUP), context)


@quietly
def backup_succeeded(name: str, context: Mapping[str, Any]) -> None:
    """Tell that a trouble is over. A run whose set could not be opened for verification ends none."""
    cluster, run = load_cluster(name), ended_run(context)
    if run.succeeded("verify"):
        over = (BACKUP, LATE, RESTORABLE) if run.succeeded("rehearse") or not cluster.rehearse else (BACKUP, LATE)
        _recovered(cluster, run, over, context)


@quietly
def drill_failed(name: str, context: Mapping[str, Any]) -> None:
    """Tell of a drill that finally failed."""
    cluster, run = load_cluster(name), ended_run(context)
    happened = "the drill failed: cannot confirm that its backups can be restored."
    telling.tell_trouble(cluster, DRILL, _event("drill_failed", cluster, run, happened, DRILL), context)


@quietly
def drill_succeeded(name: str, context: Mapping[str, Any]) -> None:
    """Tell that drills succeed again."""
    cluster, run = load_cluster(name), ended_run(context)
    _recovered(cluster, run, (DRILL,), context)


async def backup_late(cluster: str, context: Mapping[str, Any] | None = None) -> None:
    """Tell of a run that has not ended in time. Called in the triggerer, by Airflow's deadline alert."""
    await asyncio.to_thread(_tell_late, cluster, context or {})


@quietly
def _tell_late(name: str, context: Mapping[str, Any]) -> None:
    run = context.get("dag_run") or {}
    if run.get("state") not in (None, "running", "queued"):
        return  # Airflow also alerts of a run that ended in time and was cleared, or that failed
    cluster = load_cluster(name)
    dag_id, run_id = str(run.get("dag_id", f"backup__{name}")), str(run.get("dag_run_id") or run.get("run_id") or "")
    event = make_event(
        "backup_late",
        name,
        telling.now(),
        f"a backup has run for {cluster.limits.run_s / 3600:.1f} h and has not ended. Check which task it waits for.",
        topic=LATE,
        link=run_link(dag_id, run_id),
        dag_id=dag_id,
        run_id=run_id,
    )
    telling.tell_trouble(cluster, LATE, event, context)


def _recovered(cluster: Cluster, run: EndedRun, topics: tuple[str, ...], context: Mapping[str, Any]) -> None:
    happened = "drills succeed again." if topics == (DRILL,) else "backups succeed again."
    event = _event("recovered", cluster, run, happened, topics[0])
    telling.tell_recovered(cluster, topics, event, context)


def _event(name: Any, cluster: Cluster, run: EndedRun, happened: str, topic: str) -> Event:
    return make_event(
        name,
        cluster.name,
        telling.now(),
        happened,
        details=run.words(),
        topic=topic,
        link=run.link,
        dag_id=run.dag_id,
        run_id=run.run_id,
        failed_tasks=list(run.failed),
    )
