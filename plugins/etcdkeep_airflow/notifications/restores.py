"""The callbacks of restores and of gates: who waits for an approval, and how a restore ended."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.providers.standard.operators.hitl import HITLOperator
from airflow.sdk import BaseNotifier

from etcdkeep.config.loading import load_cluster
from etcdkeep.notifications.events import make_event
from etcdkeep_airflow.notifications import telling
from etcdkeep_airflow.notifications.quiet import quietly
from etcdkeep_airflow.notifications.runs import ended_run, run_link

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow.sdk import Context

    from etcdkeep_airflow.notifications.runs import EndedRun

ENDINGS = {
    "restored": "the restore ended well: the cluster runs on the backup.",
    "rolled-back": "the restore failed and was rolled back: the cluster is as before.",
    "held": "the restore failed and is held as it is. A person must continue it or roll it back.",
    "incomplete": "the restore failed, and could not be rolled back completely. The control plane may be down. See the log of `rollback` for the remaining steps.",
    "failed": "the restore failed before it changed anything.",
    "rejected": "the restore was rejected. Nothing was changed.",
}


class GateWaits(BaseNotifier):
    """Tells that a gate waits for an answer, with the link to it."""

    def notify(self, context: Context) -> None:
        """Tell it; never raises."""
        gate_waits(context)


@quietly
def gate_waits(context: Mapping[str, Any]) -> None:
    """Tell that a gate waits. A gate that asks again is told again: the earlier answer does not count."""
    gate, ti = context["task"], context["ti"]
    cluster = load_cluster(gate.cluster)
    again = ", once more: an earlier answer does not count" if ti.try_number > 1 else ""
    event = make_event(
        "approval_waiting",
        cluster.name,
        telling.now(),
        f"`{ti.dag_id}` waits for an approval (gate {gate.task_id}{again}).",
        details=(str(gate.subject),),
        link=_gate_link(context) or run_link(ti.dag_id, ti.run_id),
        dag_id=ti.dag_id,
        run_id=ti.run_id,
        gate=gate.task_id,
    )
    telling.tell(cluster, event, context)


@quietly
def restore_ended(context: Mapping[str, Any]) -> None:
    """Tell how a restore ended; a dry run is told to nobody."""
    form = context.get("params") or {}
    run = ended_run(context)
    kind = _ending(run, context)
    if kind is None or form.get("dry_run") or not form.get("cluster"):
        return
    cluster = load_cluster(str(form["cluster"]))
    event = make_event(
        "restore_ended",
        cluster.name,
        telling.now(),
        ENDINGS[kind],
        details=run.words(),
        link=run.link,
        dag_id=run.dag_id,
        run_id=run.run_id,
        outcome=kind,
        failed_tasks=list(run.failed),
    )
    telling.tell(cluster, event, context)


def _ending(run: EndedRun, context: Mapping[str, Any]) -> str | None:
    """Return how it ended; None where no restore was begun and none failed."""
    rollback = run.states.get("rollback")
    if run.succeeded("verify"):
        return "restored"
    if rollback == "success":
        outcome = context["ti"].xcom_pull(task_ids="rollback")
        kind = outcome.get("kind") if isinstance(outcome, dict) else None
        return str(kind) if kind in ENDINGS else "incomplete"
    if rollback in ("failed", "upstream_failed"):
        return "incomplete"
    if run.failed or not run.states:
        return "failed"
    return "rejected" if run.succeeded("approve") else None


def _gate_link(context: Mapping[str, Any]) -> str:
    try:
        return HITLOperator.generate_link_to_ui_from_context(context=context)  # type: ignore[arg-type]
    except ValueError:
        return ""  # Airflow's own address is not configured
