"""Values for Airflow's own trigger forms: the page starts nothing by itself."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from etcdkeep_airflow.page.answers import Form

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from etcdkeep.overview.cluster import ClusterView


def forms(view: ClusterView, existing: Collection[str], backup_id: str = "") -> Sequence[Form]:
    """
    Return the forms of a cluster, or of one of its backups.

    :param existing: The DAGs that the person may read.
    """
    cluster = view.row.cluster
    offered = (
        ("Back up now", f"backup__{cluster}", {"reason": "", "pin": False}, "Takes a backup and verifies it. To pin it from the start, set pin to true."),
        ("Drill", view.drill_dag, {"backup": backup_id}, "Starts a throw-away etcd from the backup and compares it. Changes nothing."),
        ("Restore…", view.restore_dag, {"cluster": cluster, "backup": backup_id, "dry_run": True, "reason": "", "confirm": cluster}, "A dry run: it only checks and plans. Fill in the reason; set dry_run to false when the plan is right."),
        ("Recover objects…", view.recover_dag, {"cluster": cluster, "backup": backup_id, "namespace": "", "kinds": "", "name": "", "dry_run": True, "reason": ""}, "A dry run: it only plans and shows. Fill in what to recover and the reason."),
    )  # fmt: skip
    only_of_cluster = {"Back up now"} if backup_id else set()
    return [
        Form(label, dag_id, _json(values), words)
        for label, dag_id, values, words in offered
        if dag_id in existing and label not in only_of_cluster
    ]


def _json(values: dict[str, Any]) -> str:
    return json.dumps(values, indent=2)
