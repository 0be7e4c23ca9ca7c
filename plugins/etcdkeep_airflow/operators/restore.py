"""The steps of a restore as operators: each opens the record and the cluster, calls the domain, and returns its answer."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.providers.standard.utils.skipmixin import SkipMixin
from airflow.sdk import ExceptionRetryPolicy, RetryAction, RetryRule
from airflow.sdk.exceptions import AirflowSkipException

from etcdkeep import naming
from etcdkeep.adapters.restore_world import open_world
from etcdkeep.control_plane import read_file_argv
from etcdkeep.errors import (
    EtcdkeepError,
    NoAnswer,
    NotApproved,
    PermanentError,
    RestoreRefused,
    TransientError,
    VerificationFailed,
)
from etcdkeep.ports import StreamLimits
from etcdkeep.restore.ending import hold, restored, take_back
from etcdkeep.restore.engine import Engine
from etcdkeep.restore.form import Form, choose_backup
from etcdkeep.restore.loss import find_losses
from etcdkeep.restore.prepare import look_round, prepare
from etcdkeep.restore.record import RestoreRecord
from etcdkeep.restore.report import inspect
from etcdkeep.restore.request import render_request
from etcdkeep.restore.runbook import undo_line
from etcdkeep.restore.steps import OUTAGE, Phase, Plan
from etcdkeep_airflow.operators.approval import ApprovalGate
from etcdkeep_airflow.operators.base import RESTORE_COLOR, ClusterOperator, filled_in

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from airflow.sdk import Context

    from etcdkeep.adapters.restore_world import RestoreWorld
    from etcdkeep.approval import Answer
    from etcdkeep.ports import KubeApi
    from etcdkeep.restore.loss import Losses
    from etcdkeep.restore.preflight import Circumstances
    from etcdkeep.restore.prepare import Prepared

SOON = timedelta(seconds=5)
"""After a worker that died: the control plane may be down."""
TRY_EVERY = timedelta(seconds=15)
TRIES = 20
"""Five minutes for a store that does not answer. Nodes are waited for by the engine, within ``limits.unreachable_s``."""
RESTORE_RETRIES = ExceptionRetryPolicy(
    rules=[
        RetryRule(exception=PermanentError, action=RetryAction.FAIL, reason="same inputs, same failure: take it back"),
        RetryRule(
            exception=NoAnswer, action=RetryAction.FAIL, reason="it was waited for as long as limits.unreachable_s says"
        ),
        RetryRule(
            exception=TransientError,
            action=RetryAction.RETRY,
            retry_delay=TRY_EVERY,
            reason="the network or the store misbehaved, and the control plane may be down: soon again",
        ),
    ]
)
ROLLBACK_RETRIES = ExceptionRetryPolicy(
    rules=[
        RetryRule(
            exception=EtcdkeepError,
            action=RetryAction.RETRY,
            retry_delay=timedelta(seconds=30),
            reason="taking back again is harmless, and what stood in the way may be gone",
        )
    ]
)
READ_S = 60.0
PAGE = "page"


def restore_name(cluster: str, context: Context) -> str:
    """Return the name of the restore that this run makes, the same in every try."""
    return naming.restore_id(cluster, started_at(context), context["run_id"])


def started_at(context: Context) -> datetime:
    """Return the run's time."""
    when: datetime = context["dag_run"].run_after
    return when


class RestoreOperator(ClusterOperator):
    """One step of a restore."""

    ui_color = RESTORE_COLOR

    def record(self, context: Context) -> RestoreRecord:
        """Return the record of this restore."""
        return RestoreRecord(self.site.repository.store, self.cluster, restore_name(self.cluster, context))

    def form(self, context: Context) -> Form:
        """Return what was filled in."""
        return Form.model_validate(filled_in(context))


class ResolveBackupOperator(RestoreOperator):
    """Checks the confirmation and finds the backup that is meant."""

    def execute(self, context: Context) -> dict[str, Any]:
        form = self.form(context)
        form.check_confirmed()
        found = choose_backup(self.site.repository, form)
        self.log.info("cluster %s: backup %s (%s)", self.cluster, found.backup_id, found.state)
        return {"backup_id": found.backup_id, "state": found.state, "levels": list(found.levels)}


class PreflightOperator(RestoreOperator, SkipMixin):
    """
    Looks everything over, plans, and ends the run where objections forbid to go on. Touches nothing.

    A dry run ends here: what comes after is skipped.

    :param backup: The backup's id.
    """

    template_fields: Sequence[str] = ("cluster", "backup")
    inherits_from_skipmixin = True

    def __init__(self, *, backup: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.backup = backup

    def execute(self, context: Context) -> dict[str, Any]:
        form, record, now = self.form(context), self.record(context), datetime.now(UTC)
        ready, losses = self.look_over(context, form, record, now)
        page = render_request(ready, losses, form, str(context["dag_run"].triggering_user_name or "unknown"))
        self.log.info("%s", page)
        context["ti"].xcom_push(key=PAGE, value=page)
        if form.dry_run:
            self.log.info("dry run: it ends here, nothing was touched")
            self.skip(ti=context["ti"], tasks=context["task"].get_flat_relatives(upstream=False))  # raises
        plan = ready.plan_to_approve(self.cluster, override=form.override)
        return {"digest": record.keep_plan(plan, page, now)}

    def look_over(self, context: Context, form: Form, record: RestoreRecord, now: datetime) -> tuple[Prepared, Losses]:
        """Ask set, nodes and API for all that speaks for and against it."""
        site = self.site
        store, identities = site.repository.store, site.identities()
        found = site.repository.get(self.cluster, self.backup)
        site.fall_back_to(found)
        known = look_round(site.cluster, found, store, identities, lambda: site.api, now=now)
        known = replace(known, running_backup=running_backup(self.cluster, context), taken_by=record.taken_by())
        ready = prepare(
            site.cluster,
            found,
            form.options(record.restore, started_at(context)),
            known,
            open_node=site.open_node,
            open_api=lambda: site.api,
            choose_way=form.way == "auto",
        )
        nodes = ready.facts if isinstance(ready.facts, tuple) else ()
        return ready, find_losses(found, store, identities, self.live_api(known), site.open_node, nodes)

    def live_api(self, known: Circumstances) -> KubeApi | None:
        """Return the API of the cluster's own objects, where there is one to be asked."""
        if self.site.cluster.control_plane.has_nodes:
            return self.site.api if known.live_uid else None
        return self.site.own_api if self.site.cluster.own_kubeconfig else None


def running_backup(cluster: str, context: Context) -> str | None:
    """Return the DAG of a backup of this cluster that is under way."""
    dag_id = f"backup__{cluster}"
    return dag_id if context["ti"].get_dr_count(dag_id=dag_id, states=["running"]) else None


class RestoreApproval(ApprovalGate):
    """A gate whose answer goes into the record of the restore."""

    template_fields: Collection[str] = (*ApprovalGate.template_fields, "cluster")

    def __init__(self, *, cluster: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.cluster = cluster

    def keep(self, context: Context, answer: Answer) -> None:
        """Put an answer on record, be it yes or no."""
        from etcdkeep_airflow.hooks import open_site

        store = open_site(self.cluster).repository.store
        RestoreRecord(store, self.cluster, restore_name(self.cluster, context)).keep_answer(answer)


class WalkOperator(RestoreOperator):
    """Walks a plan, forward or back."""

    @contextmanager
    def walking(self, context: Context, plan: Plan, record: RestoreRecord) -> Iterator[tuple[Engine, RestoreWorld]]:
        """
        Take the cluster, and open the places of a plan and the journal of this walk.

        :raises RestoreRefused: when another restore has the cluster, or has changed it since.
        """
        record.take()
        site = self.site
        found = site.repository.get(self.cluster, plan.backup_id)
        site.fall_back_to(found)
        world = open_world(site, plan, found)
        with world, record.journal(self.task_id, datetime.now(UTC)) as tell:
            limits = site.cluster.limits
            yield Engine(plan, world, tell, undo_line=undo_line, unreachable_s=limits.unreachable_s), world


class PlanOperator(WalkOperator):
    """
    Carries out a part of the approved plan.

    :param digest: Of the plan, as the second gate hands it on.
    """

    phases: ClassVar[tuple[Phase, ...]] = ()
    template_fields: Sequence[str] = ("cluster", "digest")

    def __init__(self, *, digest: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.digest = digest

    def execute(self, context: Context) -> dict[str, Any]:
        record = self.record(context)
        plan = self.plan(record)
        with self.walking(context, plan, record) as (engine, _):
            engine.walk(self.phases)
        return {"steps": [step.name for phase in self.phases for step in plan.phase(phase)]}

    def plan(self, record: RestoreRecord) -> Plan:
        """
        Return the plan that was approved.

        :raises NotApproved: when none was.
        :raises PlanChanged: when the stored one is another.
        """
        if not self.digest:
            raise NotApproved(
                f"restore {record.restore!r} refused: two people have not approved it; nothing was done. Clear the task `approve`, and have "
                "both gates answered."
            )
        return record.plan(self.digest)


class StageOperator(PlanOperator):
    """Takes the cluster for this restore, and brings the files beside what runs."""

    phases = ("stage",)

    def execute(self, context: Context) -> dict[str, Any]:
        record, override = self.record(context), self.form(context).override
        plan = self.plan(record)
        if not override and (dag_id := running_backup(self.cluster, context)):
            raise RestoreRefused(
                f"restore {record.restore!r} refused: a run of `{dag_id}` of this cluster is under way since the plan was made; nothing was done. "
                "Wait for its end, or stop it, then clear `stage`."
            )
        record.take(override=override)
        record.begin(plan.digest)
        return super().execute(context)


class DockerEtcdRestoreOperator(PlanOperator):
    """
    Restores the snapshot into an empty folder of every node and checks it, while the control plane runs.

    With docker, nerdctl or ctr and the profile's image, or etcdutl or etcdctl of the node: as `preflight` found.
    """

    phases = ("restore_etcd",)


class SwapOperator(PlanOperator):
    """The outage: stops the control plane, swaps certificates and data, and starts it. One process, no scheduler in between."""

    phases = OUTAGE


class VerifyRestoreOperator(PlanOperator):
    """Waits until the control plane serves, compares it with the backup, and gives the cluster free."""

    phases = ("verify",)

    def execute(self, context: Context) -> dict[str, Any]:
        record, site = self.record(context), self.site
        plan = self.plan(record)
        with self.walking(context, plan, record) as (engine, world):
            engine.walk(self.phases)
            found = site.repository.get(self.cluster, plan.backup_id)
            counts = [each.live_keys for each in found.verifications if each.live_keys]
            live_keys = counts[-1] if counts else None
            report = engine.patiently(
                "comparison with the backup",
                lambda: inspect(world, site.cluster, plan, api=lambda: site.api, live_keys=live_keys),
            )
        if report.problems:
            raise VerificationFailed(
                f"restore {record.restore} did not bring cluster {self.cluster!r} back; the task `rollback` says where things stand:",
                report.problems,
            )
        return restored(record, plan, report, datetime.now(UTC)).model_dump(mode="json")


class FetchKubeconfigOperator(PlanOperator):
    """Reads the administrator's kubeconfig from a node and seals it into the record."""

    def execute(self, context: Context) -> dict[str, Any]:
        record, cluster = self.record(context), self.site.cluster
        plan = self.plan(record)
        if plan.way == "pods":
            raise AirflowSkipException(
                "its certificates were not touched: the kubeconfig of before is as good as it was"
            )
        path = cluster.control_plane.admin_conf
        with self.site.open_node(plan.places[0].address) as shell:
            text = shell.run(read_file_argv(path), StreamLimits(READ_S)).stdout
        name = record.keep_kubeconfig(text, cluster.age_recipients)
        self.log.info("%s of node %s is sealed in %s", path, plan.places[0].name, name)
        return {"kubeconfig": name}


class RollbackOperator(WalkOperator):
    """
    Takes a failed restore back, or leaves it for a person where the form says `hold`; when nothing was begun, skips.

    It is of the plan that was begun, whatever was planned or approved since.
    """

    def execute(self, context: Context) -> dict[str, Any]:
        record = self.record(context)
        begun = record.begun()
        if begun is None:
            record.give_free()
            raise AirflowSkipException("nothing was begun, so nothing is to be taken back")
        plan = record.plan(begun.digest)
        with self.walking(context, plan, record) as (engine, _):
            if self.form(context).on_failure == "hold" and not record.rests():
                return hold(record, plan, engine, datetime.now(UTC)).model_dump(mode="json")
            return take_back(record, plan, engine, partial(datetime.now, UTC)).model_dump(mode="json")
