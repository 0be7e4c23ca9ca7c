"""The operator that reads a published set back and proves it good."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.sdk import Asset
from airflow.sdk.exceptions import AirflowSkipException

from etcdkeep.errors import VerificationFailed
from etcdkeep.plain_text import one_line
from etcdkeep.sets.pins import Pin
from etcdkeep.verify.run import verify_set
from etcdkeep_airflow.operators.base import VERIFY_COLOR, ClusterOperator, filled_in

if TYPE_CHECKING:
    from airflow.sdk import Context

    from etcdkeep.sets.backup_set import BackupSet


def backup_asset(cluster: str) -> Asset:
    """Return the asset that says: this cluster has a new verified backup."""
    return Asset(name=f"backup__{cluster}", uri=f"etcdkeep://{cluster}/backup")


class VerifyOperator(ClusterOperator):
    """
    Reads a published set back and records the levels it reached.

    Fails for a set that is not good. Ends as skipped, so that nobody takes the backup for verified, where no age
    identity is configured: then only the stored bytes could be compared.
    """

    ui_color = VERIFY_COLOR

    def execute(self, context: Context) -> dict[str, Any]:
        site = self.site
        site.signer("verify")  # better now than after everything was read
        found = site.repository.get(self.cluster, self.backup_id(context))
        record = verify_set(site.repository, site.cluster, found, site.identities())
        site.repository.record(found, record)
        for warning in record.warnings:
            self.log.warning("backup %s: %s", found.name, one_line(warning))
        if found.manifest is None or not record.ok:
            raise VerificationFailed(
                f"backup {found.name} is marked bad; the cluster's older sets are untouched:", record.problems
            )
        self.log.info("backup %s: verified %s", found.name, ", ".join(record.levels))
        self._pin(context, found)
        if not record.complete:
            raise AirflowSkipException(
                f"backup {found.name} was only compared with its checksums (level stored): no age_identity is configured here, so it cannot be opened. It counts as unverified until `python -m etcdkeep verify` has run where the identity is."
            )
        facts: dict[str, Any] = {
            "backup_id": found.backup_id,
            "revision": found.manifest.revision,
            "levels": list(record.levels),
        }
        context["outlet_events"][backup_asset(self.cluster)].extra = facts
        return facts

    def _pin(self, context: Context, found: BackupSet) -> None:
        """Pin the set where the form asks for it. Once: a cleared task takes no later `unpin` back."""
        params = filled_in(context)
        if not params.get("pin") or found.pins:
            return
        by = f"{self.dag_id} {context['run_id']}"
        self.site.repository.record_pin(
            found, Pin(pinned=True, reason=params.get("reason") or "as its form says", by=by)
        )
        self.log.info("backup %s: pinned", found.name)
