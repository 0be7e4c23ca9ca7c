"""The steps of a restore as operators: each opens the record and the cluster, calls the domain, and returns its answer."""

from __future__ import annotations

from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.providers.standard.utils.skipmixin import SkipMixin
from airflow.sdk import ExceptionRetryPolicy, RetryAction, RetryRule
from airflow.sdk.exceptions import AirflowSkipException

from etcdkeep import naming
from etcdkeep.approval.answers import UNKNOWN, check_run
from etcdkeep.control_plane.node_archive import read_file_argv
from etcdkeep.errors import (
    EtcdkeepError,
    NoAnswer,
    NotApproved,
    NotFound,
    PermanentError,
    RequestRefused,
    TransientError,
    VerificationFailed,
)
from etcdkeep.ports import StreamLimits
from etcdkeep.restore.approval_page import render_request
from etcdkeep.restore.authority import GATES, authorise
from etcdkeep.restore.ending import hold, restored, roll_back
from etcdkeep.restore.engine import Engine
from etcdkeep.restore.form import Form
from etcdkeep.restore.judge.finding import needs_attention
from etcdkeep.restore.loss import Losses, find_losses
from etcdkeep.restore.node_memory import check_memory
from etcdkeep.restore.prepare import prepare_restore
from etcdkeep.restore.proposal import check_same_set, make_proposal, plan_anew
from etcdkeep.restore.record import RestoreRecord
from etcdkeep.restore.report import inspect
from etcdkeep.restore.runbook import rollback_script
from etcdkeep.restore.steps import OUTAGE, Phase, Plan
from etcdkeep.sets.choosing import choose_set
from etcdkeep.site.restore_world import open_world
from etcdkeep_airflow.operators.approval import ApprovalGate, Question, check_page, rules_of, this_run
from etcdkeep_airflow.operators.base import RESTORE_COLOR, ClusterOperator, filled_in, naming_copies

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from airflow.sdk import Context

    from etcdkeep.ports import KubeApi
    from etcdkeep.records import Signed
    from etcdkeep.restore.authority import Act
    from etcdkeep.restore.prepare import Prepared
    from etcdkeep.restore.proposal import RestoreProposal
    from etcdkeep.sets.backup_set import BackupSet
    from etcdkeep.site.restore_world import RestoreWorld
    from etcdkeep.site.site import Site

SOON = timedelta(seconds=5)
"""After a worker that died: the control plane may be down."""
NO_WAY_TO_OBJECTS = "there is no own_kubeconfig, so that the cluster's own API cannot be asked. Set it to see this here"
TRY_EVERY = timedelta(seconds=15)
TRIES = 20
"""Five minutes for a store that does not answer. Nodes are waited for by the engine, within ``limits.unreachable_s``."""
RESTORE_RETRIES = ExceptionRetryPolicy(
    rules=[
        RetryRule(exception=PermanentError, action=RetryAction.FAIL, reason="same inputs, same failure: roll back"),
        RetryRule(
            exception=NoAnswer, action=RetryAction.FAIL, reason="it was retried for limits.unreachable_s already"
        ),
        RetryRule(
            exception=TransientError,
            action=RetryAction.RETRY,
            retry_delay=TRY_EVERY,
            reason="the network or the store misbehaved, and the control plane may be down: retry soon",
        ),
    ]
)
ROLLBACK_RETRIES = ExceptionRetryPolicy(
    rules=[
        *(
            RetryRule(exception=kind, action=RetryAction.FAIL, reason="not allowed: a person has to look")
            for kind in (NotApproved, RequestRefused)
        ),
        RetryRule(
            exception=EtcdkeepError,
            action=RetryAction.RETRY,
            retry_delay=timedelta(seconds=30),
            reason="rolling back again is harmless, and the cause may be gone",
        ),
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
        return RestoreRecord(self.site.repository.records, self.cluster, restore_name(self.cluster, context))

    def form(self, context: Context) -> Form:
        """Return what was filled in; only for the tasks before the approvals, which cover it from then on."""
        return Form.model_validate(filled_in(context))

    def authorise(self, context: Context, act: Act, now: datetime | None = None) -> Signed[RestoreProposal]:
        """Return the proposal that this task may carry out; see :func:`etcdkeep.restore.authority.authorise`."""
        rules = rules_of(self.site.cluster, GATES)
        return authorise(self.record(context), this_run(context), rules, act, now or datetime.now(UTC))


class ResolveBackupOperator(RestoreOperator):
    """Checks the confirmation and finds the backup that is meant."""

    def execute(self, context: Context) -> dict[str, Any]:
        form = self.form(context)
        form.check_confirmed()
        with naming_copies(self.site.cluster, self.repository):
            found = choose_set(self.site.repository, self.cluster, form.backup)
        self.log.info("cluster %s: backup %s (%s)", self.cluster, found.backup_id, found.state)
        return {"backup_id": found.backup_id, "state": found.state, "levels": list(found.levels)}


class PreflightOperator(RestoreOperator, SkipMixin):
    """
    Gathers, judges and plans, and ends the run at blocking problems. Changes nothing.

    A dry run ends here: what comes after is skipped.

    :param backup: The backup's id.
    """

    template_fields: Sequence[str] = ("cluster", "repository", "backup")
    inherits_from_skipmixin = True

    def __init__(self, *, backup: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.backup = backup

    def execute(self, context: Context) -> dict[str, Any]:
        form, record, now = self.form(context), self.record(context), datetime.now(UTC)
        found = self.site.repository.get(self.cluster, self.backup)
        ready, losses = self.prepare(context, found, form, record, now)
        requested_by = str(context["dag_run"].triggering_user_name or UNKNOWN)
        page = render_request(ready, losses, form, requested_by)
        self.log.info("%s", page)
        context["ti"].xcom_push(key=PAGE, value=page)
        if form.dry_run and (problems := needs_attention(ready.findings, override=form.override)):
            raise RequestRefused(
                f"dry run: a restore of cluster {self.cluster!r} would be refused. Nothing was changed. Blocking problems:",
                tuple(each.sentence for each in problems),
            )
        if form.dry_run:
            self.log.info("dry run: the run ends here; nothing was changed")
            self.skip(ti=context["ti"], tasks=context["task"].get_flat_relatives(upstream=False))  # raises
        plan = ready.plan_to_approve(self.cluster, override=form.override)
        if ready.facts is None:
            raise RequestRefused(
                f"restore of cluster {self.cluster!r} refused: nothing is known about its nodes. Nothing was done."
            )
        proposal = make_proposal(this_run(context), plan, page, form, ready.facts, ready.options, found, requested_by)
        signed = record.propose(proposal)
        plan_anew(signed, self.site.cluster)  # what cannot be planned anew could not be carried out
        return {"plan": plan.digest, "proposal": signed.digest}

    def prepare(
        self, context: Context, found: BackupSet, form: Form, record: RestoreRecord, now: datetime
    ) -> tuple[Prepared, Losses]:
        """Prepare the restore, and count what it would undo."""
        site = self.site.with_keys_of(found)
        identities = site.identities()
        ready = prepare_restore(
            site,
            found,
            form.options(record.restore, started_at(context)),
            identities,
            now=now,
            choose_way=form.way == "auto",
            locked_by=record.locked_by(),
            running_backup=running_backup(self.cluster, context),
        )
        if not (site.cluster.control_plane.has_nodes or site.cluster.own_kubeconfig):
            return ready, Losses(unknown=NO_WAY_TO_OBJECTS)
        nodes = ready.facts if isinstance(ready.facts, tuple) else ()
        api = live_api(site, ready)
        return ready, find_losses(found, site.repository.store, identities, api, site.open_node, nodes)


def live_api(site: Site, ready: Prepared) -> KubeApi | None:
    """Return the API of the cluster's own objects, where it answers."""
    if site.cluster.control_plane.has_nodes:
        return site.api if ready.api_answers else None
    return site.own_api


def running_backup(cluster: str, context: Context) -> str | None:
    """Return the DAG of a backup of this cluster that is under way."""
    dag_id = f"backup__{cluster}"
    return dag_id if context["ti"].get_dr_count(dag_id=dag_id, states=["running"]) else None


class RestoreApproval(ApprovalGate):
    """A gate of a restore: shows the page of the plan that `preflight` signed."""

    all_gates = GATES

    def question(self, context: Context) -> Question:
        record = RestoreRecord(self.site.repository.records, self.cluster, restore_name(self.cluster, context))
        proposal = record.proposal()
        check_run(proposal, this_run(context))
        subject = f"Restore cluster {self.cluster} from backup {proposal.body.backup_id}?"
        return Question(proposal, record.gates, subject, check_page(proposal, proposal.body.page))


class WalkOperator(RestoreOperator):
    """Walks an approved plan, forward or back."""

    def set_of(self, plan: Plan) -> BackupSet | None:
        """Return the plan's backup; None when it is gone, which a way back can do without."""
        try:
            return self.site.repository.get(self.cluster, plan.backup_id)
        except NotFound as err:
            self.log.warning("%s", err)
            return None

    @contextmanager
    def walking(
        self, context: Context, proposal: Signed[RestoreProposal], phases: Sequence[Phase] = ()
    ) -> Iterator[tuple[Engine, RestoreWorld]]:
        """
        Lock the cluster, plan anew, compare what the nodes hold of this restore, and open the journal of this walk.

        :param phases: That will be walked; none for the way back.
        :raises RequestRefused: when the cluster is locked by another restore, or was changed by one since.
        """
        record, plan = self.record(context), plan_anew(proposal, self.site.cluster)
        record.lock()
        found = self.set_of(plan)
        if phases:
            check_same_set(proposal, found or self.site.repository.get(self.cluster, plan.backup_id))
        with open_world(self.site.with_keys_of(found), plan, found) as world:
            check_memory(world, plan, phases)
            with record.journal(self.task_id, datetime.now(UTC)) as tell:
                by_hand = partial(rollback_script, ssh=self.site.ssh)
                limits = self.site.cluster.limits
                yield Engine(plan, world, tell, by_hand=by_hand, unreachable_s=limits.unreachable_s), world


class PlanOperator(WalkOperator):
    """Carries out a part of the plan that two people have approved."""

    phases: ClassVar[tuple[Phase, ...]] = ()

    def execute(self, context: Context) -> dict[str, Any]:
        return self.walk(context, self.authorise(context, "go on"))

    def walk(self, context: Context, proposal: Signed[RestoreProposal]) -> dict[str, Any]:
        """Walk this task's phases."""
        with self.walking(context, proposal, self.phases) as (engine, _):
            engine.walk(self.phases)
        plan = plan_anew(proposal, self.site.cluster)
        return {"steps": [step.name for phase in self.phases for step in plan.phase(phase)]}


class StageOperator(PlanOperator):
    """Locks the cluster for this restore, and brings the files beside what runs."""

    phases = ("stage",)

    def execute(self, context: Context) -> dict[str, Any]:
        record, proposal = self.record(context), self.authorise(context, "start")
        override = proposal.body.form.override
        if not override and (dag_id := running_backup(self.cluster, context)):
            raise RequestRefused(
                f"restore {record.restore!r} refused: a run of `{dag_id}` of this cluster began since the plan was made. Nothing was done. "
                "Wait until it ends, or stop it. Then clear `stage`."
            )
        locked_at = record.lock(override=override)
        try:
            self.authorise(context, "start", max(locked_at, datetime.now(UTC)))  # by the store's clock too
        except NotApproved:
            record.release()
            raise
        record.begin(proposal)
        return self.walk(context, proposal)


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
    """Waits until the control plane serves, compares it with the backup, and releases the cluster."""

    phases = ("verify", "close")

    def execute(self, context: Context) -> dict[str, Any]:
        record, site = self.record(context), self.site
        if (end := record.end()) is not None and end.kind == "restored":
            self.log.info("it has ended before: %s", end.words)  # a worker that died right after it
            record.release()
            return end.model_dump(mode="json")
        proposal = self.authorise(context, "go on")
        plan = plan_anew(proposal, site.cluster)
        with self.walking(context, proposal, self.phases) as (engine, world):
            engine.walk(self.phases[:1])
            found = site.repository.get(self.cluster, plan.backup_id)
            counts = [each.live_keys for each in found.verifications if each.live_keys]
            live_keys = counts[-1] if counts else None
            report = engine.patiently(
                "comparison with the backup",
                lambda: inspect(world, site.cluster, plan, api=lambda: site.api, live_keys=live_keys),
            )
            if report.problems:
                raise VerificationFailed(
                    f"restore {record.restore} did not bring cluster {self.cluster!r} back. The task `rollback` reports the current state:",
                    report.problems,
                )
            engine.walk(self.phases[1:])  # from here on nothing is rolled back
        return restored(record, plan, report, datetime.now(UTC)).model_dump(mode="json")


class FetchKubeconfigOperator(WalkOperator):
    """Reads the administrator's kubeconfig from a node and seals it into the record."""

    def execute(self, context: Context) -> dict[str, Any]:
        record, cluster = self.record(context), self.site.cluster
        plan = plan_anew(self.authorise(context, "after the end"), cluster)
        if plan.way == "pods":
            raise AirflowSkipException("its certificates were not changed: the earlier kubeconfig still works")
        site, path = self.site.with_keys_of(self.set_of(plan)), cluster.control_plane.admin_conf
        with site.open_node(plan.places[0].address) as shell:
            text = shell.run(read_file_argv(path), StreamLimits(READ_S)).stdout
        name = record.keep_kubeconfig(text, cluster.age_recipients)
        self.log.info("%s of node %s is sealed in %s", path, plan.places[0].name, name)
        return {"kubeconfig": name}


class RollbackOperator(WalkOperator):
    """
    Rolls a failed restore back, or holds it for a person where the form says so; when nothing was begun, skips.

    It follows the plan that was begun, whatever was planned or approved since, and only that of an approved run.
    """

    def execute(self, context: Context) -> dict[str, Any]:
        record = self.record(context)
        if record.begun() is None:
            record.release()
            raise AirflowSkipException("the restore had not begun: there is nothing to roll back")
        proposal = self.authorise(context, "roll back")
        plan = plan_anew(proposal, self.site.cluster)
        with self.walking(context, proposal) as (engine, _):
            if proposal.body.form.on_failure == "hold" and not record.is_held():
                return hold(record, plan, engine, datetime.now(UTC)).model_dump(mode="json")
            return roll_back(record, plan, engine, partial(datetime.now, UTC)).model_dump(mode="json")
