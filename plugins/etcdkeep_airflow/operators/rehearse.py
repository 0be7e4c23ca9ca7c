"""The operator that asks, on the night of a backup, what a restore of it would meet."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from airflow.sdk.exceptions import AirflowSkipException

from etcdkeep.errors import NeedsAttention
from etcdkeep.plain_text import one_line
from etcdkeep.restore.rehearse import rehearse
from etcdkeep_airflow.operators.base import VERIFY_COLOR, ClusterOperator

if TYPE_CHECKING:
    from airflow.sdk import Context


class RehearseOperator(ClusterOperator):
    """
    Asks all that a restore's preflight asks, of the set that this run made, and records the answer; changes nothing.

    Fails for a set that could not be restored; the set stays, and stays good. Ends as skipped where it is not known.
    """

    ui_color = VERIFY_COLOR

    def execute(self, context: Context) -> dict[str, Any]:
        found = self.site.repository.get(self.cluster, self.backup_id(context))
        site = self.site.with_keys_of(found)
        rehearsal = rehearse(site, found, site.identities(), now=datetime.now(UTC))
        site.repository.record_rehearsal(found, rehearsal)
        for warning in rehearsal.warnings:
            self.log.warning("backup %s: %s", found.name, one_line(warning))
        if rehearsal.restorable == "no":
            raise NeedsAttention(
                f"backup {found.name} is good, but could not be restored on this site now. The set stays. Correct these problems:",
                rehearsal.reasons,
            )
        if rehearsal.restorable == "unknown":
            raise AirflowSkipException(
                f"cannot tell whether backup {found.name} could be restored: {one_line('; '.join(rehearsal.reasons))}"
            )
        self.log.info("backup %s: could be restored now (asked in %.1f s)", found.name, rehearsal.seconds)
        return {"backup_id": found.backup_id, "restorable": rehearsal.restorable, "seconds": rehearsal.seconds}
