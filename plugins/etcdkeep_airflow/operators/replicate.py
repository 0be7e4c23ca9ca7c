"""The operator that brings a cluster's verified backups to its copies."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from etcdkeep.adapters.stores.opening import duplicate
from etcdkeep.copies.replicate import Replicator, raise_if_failed
from etcdkeep_airflow.operators.base import BACKUP_COLOR, ClusterOperator

if TYPE_CHECKING:
    from airflow.sdk import Context


class ReplicateOperator(ClusterOperator):
    """
    Copies every verified set that a copy lacks, the newest first, and reads it back.

    Fails where a copy could not be made, so that it is seen; the backup stays as good as it is, and the next run copies
    what is missing.
    """

    ui_color = BACKUP_COLOR

    def execute(self, context: Context) -> dict[str, Any]:
        site = self.site
        by = f"{self.dag_id} {context['run_id']}"
        replicator = Replicator(site.repository, site.cluster, duplicate, by, lambda: datetime.now(UTC))
        reports = replicator.run(site.copies)
        for report in reports:
            self.log.info(
                "cluster %s: copy %s: %d present, %d copied, %d healed, %d failed",
                self.cluster,
                report.url,
                report.present,
                len(report.copied),
                len(report.healed),
                len(report.failed),
            )
        raise_if_failed(self.cluster, reports)
        return {report.url: {"copied": report.copied, "healed": report.healed} for report in reports}
