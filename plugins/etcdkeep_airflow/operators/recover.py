"""The steps of a recovery of single objects as operators: each opens the cluster, calls the domain, and returns its answer."""

from __future__ import annotations

from contextlib import ExitStack
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from airflow.providers.standard.utils.skipmixin import SkipMixin

from etcdkeep.approval.answers import UNKNOWN, check_run, check_version, page_digest
from etcdkeep.errors import NeedsAttention, NotApproved, SecretUnavailable
from etcdkeep.objects.live_cluster import cluster_uid
from etcdkeep.objects.stored_set import StoredSet
from etcdkeep.recover.applying import apply_plan
from etcdkeep.recover.approval_page import render_plan
from etcdkeep.recover.form import OPENED, RecoveryForm
from etcdkeep.recover.gather import gather
from etcdkeep.recover.planning import check_same_cluster, plan_recovery
from etcdkeep.recover.record import GATES, RecoveryProposal, RecoveryRecord
from etcdkeep.sets.choosing import choose_set
from etcdkeep_airflow.operators.approval import ApprovalGate, Question, check_page, rules_of, this_run
from etcdkeep_airflow.operators.base import ClusterOperator, filled_in, naming_copies, run_backup_id

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow.sdk import Context

    from etcdkeep.recover.plan import RecoveryPlan
    from etcdkeep.sealing.age_keys import Identity
    from etcdkeep.site.site import Site

RECOVERY_COLOR = "#e3d9f2"
PAGE = "page"


class RecoveryOperator(ClusterOperator):
    """One step of a recovery."""

    ui_color = RECOVERY_COLOR

    def form(self, context: Context) -> RecoveryForm:
        """Return what was filled in."""
        return RecoveryForm.model_validate(filled_in(context))

    def record(self, context: Context) -> RecoveryRecord:
        """Return the record of this recovery, the same in every try."""
        return record_of(self.site, self.backup_id(context))

    def identities(self) -> list[Identity]:
        """Return the private age identities; see :func:`identities_of`."""
        return identities_of(self.site)


def record_of(site: Site, recovery: str) -> RecoveryRecord:
    """Return the record of a recovery by its id."""
    cluster = site.cluster
    return RecoveryRecord(site.repository.records, cluster.name, recovery, cluster.age_recipients)


def identities_of(site: Site) -> list[Identity]:
    """
    Return the private age identities.

    :raises SecretUnavailable: when none is configured.
    """
    found = site.identities()
    if found is None:
        raise SecretUnavailable(
            f"cluster {site.cluster.name!r} has no age_identity here, and without it no backup can be opened: configure one, or "
            "run these tasks on the queue where it is (verify_queue)."
        )
    return found


def page_of(site: Site, record: RecoveryRecord, plan: RecoveryPlan) -> str:
    """Return the page of a plan, as the approver is shown it."""
    return render_plan(plan, f"`{record.page_name(plan.digest)}` in {site.repository.store.url} (age -d | zstd -d)")


class ChooseSetOperator(RecoveryOperator):
    """Finds the backup that is meant, and refuses one that is not good."""

    def execute(self, context: Context) -> dict[str, Any]:
        form = self.form(context)
        form.selection()
        cluster_uid(self.site.own_api)  # better now than after the backup was opened
        with naming_copies(self.site.cluster, self.repository):
            found = choose_set(self.site.repository, self.cluster, form.backup, allow=OPENED)
        self.log.info("cluster %s: backup %s (%s)", self.cluster, found.backup_id, found.state)
        return {"backup_id": found.backup_id, "state": found.state}


class PlanRecoveryOperator(RecoveryOperator, SkipMixin):
    """
    Reads the objects out of the backup, cleans them, has each tried by the API server, and shows what differs.

    Touches nothing. A dry run ends here, as does a plan with nothing to do: what comes after is skipped.

    :param backup: The backup's id.
    """

    template_fields: Sequence[str] = ("cluster", "repository", "backup")
    inherits_from_skipmixin = True

    def __init__(self, *, backup: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.backup = backup

    def execute(self, context: Context) -> dict[str, Any]:
        site, form, record, identities = self.site, self.form(context), self.record(context), self.identities()
        found = choose_set(site.repository, self.cluster, self.backup, allow=OPENED)
        with ExitStack() as stack:
            source = StoredSet(stack, site.repository.store, found, lambda: identities, prefix=site.cluster.etcd_prefix)
            check_same_cluster(site.own_api, source)
            plan = plan_recovery(
                site.own_api,
                gather(source, form.selection()),
                cluster=self.cluster,
                backup_id=self.backup,
                recovery_id=self.backup_id(context),
                reason=form.reason,
                meant=form.meant,
                overwrite=form.overwrite,
                include_left_out=form.include_left_out,
            )
        record.keep_plan(plan, identities)
        page = page_of(site, record, plan)
        self.log.info("%s", page)
        context["ti"].xcom_push(key=PAGE, value=page)
        if form.dry_run or not plan.writes:
            self.log.info("%s: the run ends here; nothing was changed", "dry run" if form.dry_run else "nothing to do")
            self.skip(ti=context["ti"], tasks=context["task"].get_flat_relatives(upstream=False))  # raises
        signed = record.propose(
            RecoveryProposal(
                run=this_run(context),
                backup_id=self.backup,
                plan_sha256=plan.digest,
                page_sha256=page_digest(page),
                requested_by=str(context["dag_run"].triggering_user_name or UNKNOWN),
            )
        )
        return {"plan": plan.digest, "proposal": signed.digest, "recovery": plan.recovery_id, **plan.counts}


class RecoveryApproval(ApprovalGate):
    """The gate of a recovery: shows the page of the plan that `plan` signed."""

    all_gates = GATES

    def question(self, context: Context) -> Question:
        record = record_of(self.site, run_backup_id(self.cluster, context))
        proposal = record.proposal()
        check_run(proposal, this_run(context))
        plan = record.plan(proposal.body.plan_sha256, identities_of(self.site))
        subject = f"Recover objects of cluster {self.cluster} from backup {proposal.body.backup_id}?"
        return Question(proposal, record.gates, subject, check_page(proposal, page_of(self.site, record, plan)))


class ApplyRecoveryOperator(RecoveryOperator):
    """Applies the approved plan, object by object, and reports what became of each."""

    def execute(self, context: Context) -> dict[str, Any]:
        record, identities, now = self.record(context), self.identities(), datetime.now(UTC)
        proposal = record.proposal()
        check_run(proposal, this_run(context))
        record.gates.check(proposal, rules_of(self.site.cluster, GATES), now=now)
        if (applied := record.applied(proposal)) is not None:
            if applied.complete:  # a worker that died right after it
                return {**applied.counts, "report": applied.file}
            raise NotApproved(
                f"recovery {proposal.subject!r} was applied as far as possible, and its approval is spent. Nothing was done. Start a new run for the rest."
            )
        check_version(proposal)
        plan = record.plan(proposal.body.plan_sha256, identities)
        report = apply_plan(self.site.own_api, plan)
        failures = report.failures(plan)
        name = record.keep_report(proposal, report, identities, complete=not failures)
        self.log.info("in all: %s", ", ".join(f"{count} {outcome}" for outcome, count in sorted(report.counts.items())))
        if failures:
            raise NeedsAttention(
                f"{len(failures)} of {plan.writes} objects could not be recovered, the others are. Start a new run for the rest:",
                failures,
            )
        return {**report.counts, "report": name}
