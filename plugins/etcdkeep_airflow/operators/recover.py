"""The steps of a recovery of single objects as operators: each opens the cluster, calls the domain, and returns its answer."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from airflow.providers.standard.utils.skipmixin import SkipMixin

from etcdkeep.errors import NotApproved, RecoveryIncomplete, SecretUnavailable
from etcdkeep.objects.live_cluster import cluster_uid
from etcdkeep.objects.stored_set import StoredSet
from etcdkeep.recover.applying import apply_plan
from etcdkeep.recover.form import RecoveryForm, choose_set
from etcdkeep.recover.gather import gather
from etcdkeep.recover.planning import check_same_cluster, plan_recovery
from etcdkeep.recover.record import RecoveryRecord
from etcdkeep.recover.show import render_plan
from etcdkeep_airflow.operators.approval import ApprovalGate
from etcdkeep_airflow.operators.base import ClusterOperator, filled_in

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from airflow.sdk import Context

    from etcdkeep.adapters.site import Site
    from etcdkeep.age_keys import Identity
    from etcdkeep.approval import Answer

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
        """
        Return the private age identities.

        :raises SecretUnavailable: when none is configured.
        """
        found = self.site.identities()
        if found is None:
            raise SecretUnavailable(
                f"cluster {self.cluster!r} has no age_identity here, and without it no backup can be opened: configure one, or "
                "run these tasks on the queue where it is (verify_queue)."
            )
        return found


def record_of(site: Site, recovery: str) -> RecoveryRecord:
    """Return the record of a recovery by its id."""
    cluster = site.cluster
    return RecoveryRecord(site.repository.store, cluster.name, recovery, cluster.age_recipients)


class ChooseSetOperator(RecoveryOperator):
    """Finds the backup that is meant, and refuses one that is not good."""

    def execute(self, context: Context) -> dict[str, Any]:
        form = self.form(context)
        form.selection()
        cluster_uid(self.site.own_api)  # better now than after the backup was opened
        found = choose_set(self.site.repository, form)
        self.log.info("cluster %s: backup %s (%s)", self.cluster, found.backup_id, found.state)
        return {"backup_id": found.backup_id, "state": found.state}


class PlanRecoveryOperator(RecoveryOperator, SkipMixin):
    """
    Reads the objects out of the backup, cleans them, has each tried by the API server, and shows what differs.

    Touches nothing. A dry run ends here, as does a plan with nothing to do: what comes after is skipped.

    :param backup: The backup's id.
    """

    template_fields: Sequence[str] = ("cluster", "backup")
    inherits_from_skipmixin = True

    def __init__(self, *, backup: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.backup = backup

    def execute(self, context: Context) -> dict[str, Any]:
        site, form, record, identities = self.site, self.form(context), self.record(context), self.identities()
        found = site.repository.get(self.cluster, self.backup)
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
        digest = record.keep_plan(plan, identities)
        page = render_plan(plan, f"`{record.page_name(digest)}` in {site.repository.store.url} (age -d | zstd -d)")
        self.log.info("%s", page)
        context["ti"].xcom_push(key=PAGE, value=page)
        if form.dry_run or not plan.writes:
            self.log.info("%s: it ends here, nothing was touched", "dry run" if form.dry_run else "nothing to do")
            self.skip(ti=context["ti"], tasks=context["task"].get_flat_relatives(upstream=False))  # raises
        return {"digest": digest, "recovery": plan.recovery_id, **plan.counts}


class RecoveryApproval(ApprovalGate):
    """A gate whose answer goes into the record of the recovery."""

    template_fields: Collection[str] = (*ApprovalGate.template_fields, "cluster", "recovery")

    def __init__(self, *, cluster: str, recovery: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.cluster = cluster
        self.recovery = recovery

    def keep(self, context: Context, answer: Answer) -> None:
        """Put an answer on record, be it yes or no."""
        from etcdkeep_airflow.hooks import open_site

        record_of(open_site(self.cluster), self.recovery).keep_answer(answer)


class ApplyRecoveryOperator(RecoveryOperator):
    """
    Applies the approved plan, object by object, and reports what became of each.

    :param digest: Of the plan, as the gate hands it on.
    """

    template_fields: Sequence[str] = ("cluster", "digest")

    def __init__(self, *, digest: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.digest = digest

    def execute(self, context: Context) -> dict[str, Any]:
        if not self.digest:
            raise NotApproved(
                "nobody has approved this recovery; nothing was applied. Clear the task `approve`, and have it answered."
            )
        record, identities = self.record(context), self.identities()
        plan = record.plan(self.digest, identities)
        report = apply_plan(self.site.own_api, plan)
        name = record.keep_report(report, identities)
        self.log.info("in all: %s", ", ".join(f"{count} {outcome}" for outcome, count in sorted(report.counts.items())))
        failures = report.failures(plan)
        if failures:
            raise RecoveryIncomplete(
                f"{len(failures)} of {plan.writes} objects could not be recovered, the others are; a new run takes up the rest:",
                failures,
            )
        return {**report.counts, "report": name}
