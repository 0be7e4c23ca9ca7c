"""
Pruning a cluster: plan, read the floor back, remove what no rule keeps, finish what an earlier run began, sweep orphans.

A dry run only reads. Nothing is removed of a cluster that is not configured or has no `retention`.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING

from etcdkeep.config.retention import Retention
from etcdkeep.errors import AccessDenied, ConfigError, EtcdkeepError, RequestRefused
from etcdkeep.records import CLOCK_SKEW
from etcdkeep.retention.gather import gather, skew_problem
from etcdkeep.retention.locks import extend_locks, locks_anything, locks_due
from etcdkeep.retention.plan import plan_prune
from etcdkeep.retention.removal import finish_removals, remove_set
from etcdkeep.retention.sweep import orphans, spool_orphans, sweep
from etcdkeep.retention.turn import may_not_delete, turn
from etcdkeep.verify.run import verify_set

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from datetime import datetime

    from etcdkeep.config.models import Cluster
    from etcdkeep.ports import ObjectStore, StoredObject
    from etcdkeep.retention.gather import Known
    from etcdkeep.retention.plan import PrunePlan, SetFacts
    from etcdkeep.retention.turn import Turn
    from etcdkeep.sets.backup_set import BackupSet
    from etcdkeep.sets.repository import Repository

log = logging.getLogger(__name__)


@dataclass
class PruneReport:
    """
    What a run did, or a dry run would do.

    :param refused: Why nothing may be removed now, one sentence each.
    :param read_back: The sets of the floor that were read back and are as recorded.
    :param removed: Backup ids that are gone.
    :param stayed: Backup ids that were to go and did not, each with why.
    :param finished: Backup ids whose removal an earlier run had begun.
    :param attention: What else a person has to see, one sentence each.
    :param orphans: How many orphaned objects there were; removed, but in a dry run.
    """

    plan: PrunePlan
    dry_run: bool
    refused: tuple[str, ...] = ()
    read_back: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    stayed: dict[str, str] = field(default_factory=dict)
    finished: list[str] = field(default_factory=list)
    orphans: int = 0
    attention: tuple[str, ...] = ()
    warnings: list[str] = field(default_factory=list)

    def raise_if_refused(self, cluster: str) -> None:
        """:raises RequestRefused: when nothing may be removed, or the store kept something."""
        if self.refused:
            raise RequestRefused(f"no backup of cluster {cluster!r} was removed:", self.refused)
        if self.stayed:
            reasons = tuple(f"{identifier}: {why}" for identifier, why in self.stayed.items())
            raise RequestRefused(f"{len(reasons)} backup(s) of cluster {cluster!r} were not removed:", reasons)


def rules_of(cluster: Cluster) -> Retention:
    """
    Return the cluster's rules.

    :raises ConfigError: when it has none.
    """
    if cluster.retention is None:
        raise ConfigError(
            f"cluster {cluster.name!r} has no retention: nothing of it is ever removed. Set retention, such as "
            "{daily: 14, weekly: 8}, in its entry or in defaults."
        )
    return cluster.retention


def plan_cluster(repository: Repository, cluster: Cluster, now: datetime) -> tuple[PrunePlan, Known]:
    """Return the plan for a cluster and what it was made from; reads only."""
    known = gather(repository, cluster, now)
    return plan_prune(known.facts, rules_of(cluster), now), known


@dataclass(frozen=True)
class Pruner:
    """
    Prunes one cluster.

    :param open_spool: Opens the store that holds the spool.
    :param by: Who, or which run; a retry has the same.
    :param clock: Gives the present, by this worker's clock.
    """

    repository: Repository
    cluster: Cluster
    open_spool: Callable[[], ObjectStore]
    by: str
    clock: Callable[[], datetime]

    def dry_run(self) -> PruneReport:
        """Return what would be done; reads only."""
        now = self.clock()
        plan, known = plan_cluster(self.repository, self.cluster, now)
        refused = (*known.problems, *((plan.over_share,) if plan.over_share else ()))
        report = PruneReport(plan, dry_run=True, refused=refused, attention=known.attention)
        report.orphans = sum(len(found) for _, found in self._orphans(now))
        return report

    def run(self, *, confirmed: bool = False) -> PruneReport:
        """
        Remove what the rules do not keep.

        :param confirmed: Whether a person has confirmed that more than `max_remove_share` may go.
        :raises RequestRefused: when another housekeeping of this cluster runs.
        :raises TransientError: when the store fails; what is done is done, and another run goes on.
        """
        rules_of(self.cluster)
        self.repository.records.require_signer("verify")  # better now than after the floor was read
        with turn(self.repository.store, self.cluster.name, self.by, self.clock()) as held:
            now, stored_at = self.clock(), held.stored_at
            plan, known = plan_cluster(self.repository, self.cluster, now)
            problems = [*known.problems]
            if abs(now - stored_at) > CLOCK_SKEW:
                problems = [skew_problem(self.cluster.name, (now - stored_at).total_seconds())]
            report = PruneReport(plan, dry_run=False, refused=tuple(problems), attention=known.attention)
            if problems:
                return report
            report.finished = finish_removals(self.repository, self.cluster.name)
            if plan.over_share and not confirmed:
                report.refused = (plan.over_share,)
            elif plan.removed:
                self._remove(plan, known, report, held)
            if not report.refused:
                self._sweep(stored_at, report)
        return report

    def renew_locks(self) -> list[str]:
        """
        Extend locks, whether sets may be removed now or not; return what was not locked, one sentence each.

        :raises RequestRefused: when another housekeeping of this cluster runs.
        """
        if not locks_anything(self.cluster):
            return []
        with turn(self.repository.store, self.cluster.name, self.by, self.clock()) as held:
            now, stored_at = self.clock(), held.stored_at
            if abs(now - stored_at) > CLOCK_SKEW:
                return [skew_problem(self.cluster.name, (now - stored_at).total_seconds())]
            known = gather(self.repository, self.cluster, now)
            plan = plan_prune(known.facts, self.cluster.retention or Retention(keep_last=1), now)
            return extend_locks(self.repository.store, known.sets, locks_due(plan, self.cluster, now))

    def _remove(self, plan: PrunePlan, known: Known, report: PruneReport, held: Turn) -> None:
        problems = [problem for each in plan.floor if (problem := self._read_back(each, known.sets, report))]
        problems += may_not_delete(self.repository.store, self.cluster.name, self.clock())
        if problems or not plan.floor:
            report.refused = tuple(problems) or ("there is no verified set",)
            return
        for verdict in plan.removed:
            try:
                held.check(self.clock())
            except RequestRefused as err:
                report.refused = (str(err),)
                return
            found = known.sets[verdict.found.backup_id]
            try:
                stayed = remove_set(
                    self.repository, found, verdict, by=self.by, floor=report.read_back, now=self.clock()
                )
            except AccessDenied as err:
                stayed = f"the store refuses to delete it: {err}"
            if stayed is None:
                report.removed.append(found.backup_id)
            else:
                report.stayed[found.backup_id] = stayed

    def _read_back(self, wanted: SetFacts, sets: Mapping[str, BackupSet], report: PruneReport) -> str | None:
        """Read every stored byte of a set of the floor and compare it with the manifest; return what is wrong."""
        found = sets[wanted.backup_id]
        record = verify_set(self.repository, self.cluster, found, None, write_index=False)
        if record.ok:
            report.read_back.append(found.backup_id)
            return None
        try:
            self.repository.record(found, record)
        except EtcdkeepError as err:
            log.warning("backup %s is bad, and this could not be recorded: %s", found.name, err)
        return f"{found.name}, a verified set that must stay, was read back and is bad: {'; '.join(record.problems)}"

    def _orphans(self, now: datetime) -> Iterator[tuple[ObjectStore, list[StoredObject]]]:
        """Yield each store with its orphans."""
        since = now - timedelta(days=rules_of(self.cluster).keep_bad_days)
        store, spool = self.repository.store, self.open_spool()
        yield store, list(orphans(store, self.cluster.name, since))
        yield spool, list(spool_orphans(spool, store, self.cluster.name, since))

    def _sweep(self, stored_at: datetime, report: PruneReport) -> None:
        try:
            for store, found in self._orphans(stored_at):
                report.orphans += sweep(store, found)
        except AccessDenied as err:
            report.warnings.append(f"orphans were not removed: {err}")
