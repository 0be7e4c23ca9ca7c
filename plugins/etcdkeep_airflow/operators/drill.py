"""The operator that restores a backup into a throw-away etcd on the worker, and proves that all of it comes back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from etcdkeep.config.models import Drill
from etcdkeep.copies.fallback import find_in_copies
from etcdkeep.drill.choose import set_to_drill
from etcdkeep.drill.hold import held
from etcdkeep.drill.run import drill_set
from etcdkeep.errors import VerificationFailed
from etcdkeep.plain_text import one_line
from etcdkeep_airflow.operators.base import VERIFY_COLOR, ClusterOperator

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow.sdk import Context

    from etcdkeep.adapters.local_etcd.programs import LocalEtcd
    from etcdkeep.sets.backup_set import BackupSet


class DrillOperator(ClusterOperator):
    """
    Drills one backup and records the result with it.

    Fails with :class:`~etcdkeep.errors.VerificationFailed` for a set that does not restore, which is bad from then on;
    with another error where this worker could not drill, which says nothing of the set.

    Without `repository` a copy is used where the cluster's own repository is gone or its set is damaged.

    :param backup: Backup id; empty for the one that triggered the run, else the cluster's newest good one.
    """

    ui_color = VERIFY_COLOR
    template_fields: Sequence[str] = ("cluster", "backup", "repository")

    def __init__(self, *, backup: str = "", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.backup = backup
        self._local_etcd: LocalEtcd | None = None

    def execute(self, context: Context) -> dict[str, Any]:
        from etcdkeep.adapters.local_etcd.programs import LocalEtcd  # gRPC takes long to import: not at every parse

        site = self.site
        site.signer("verify")  # better now than after the drill
        self._local_etcd = LocalEtcd(site.cluster.drill)
        found = self._choose(context)
        self.log.info("backup %s: drill begins", found.name)
        limit_s = (site.cluster.drill or Drill()).time_limit_s
        with held(site.repository, found, f"{self.dag_id} {context['run_id']}", limit_s):
            record = drill_set(
                site.repository,
                found,
                site.identities(),
                self._local_etcd.open,
                lambda phase: self.log.info("backup %s: %s", found.name, phase),
            )
        site.repository.record(found, record)
        for warning in record.warnings:
            self.log.warning("backup %s: %s", found.name, one_line(warning))
        if not record.ok:
            raise VerificationFailed(f"backup {found.name} does not restore, and is marked bad:", record.problems)
        self.log.info("backup %s: restored and read back; %s s each phase", found.name, record.seconds)
        return {
            "backup_id": found.backup_id,
            "seconds": record.seconds,
            **(record.drill.model_dump() if record.drill else {}),
        }

    def _choose(self, context: Context) -> BackupSet:
        """Find the set: in the repository of the form, else in the first one that has it whole."""
        site, announced = self.site, announced_backups(context)
        if self.repository:
            return set_to_drill(site.repository, self.cluster, self.backup, announced)
        found = find_in_copies(site.repositories, lambda each: set_to_drill(each, self.cluster, self.backup, announced))
        if found.url != site.cluster.repository:
            for sentence in found.passed:
                self.log.warning("cluster %s: %s", self.cluster, one_line(sentence))
            self.log.warning("cluster %s: using the copy in %s", self.cluster, found.url)
            site.use(found.url)
        return found.found

    def on_kill(self) -> None:
        if self._local_etcd is not None:
            self._local_etcd.stop()


def announced_backups(context: Context) -> list[str]:
    """Return the backup ids that the asset events which triggered the run tell of."""
    events = context.get("triggering_asset_events") or {}
    return [event.extra["backup_id"] for found in events.values() for event in found if "backup_id" in event.extra]
