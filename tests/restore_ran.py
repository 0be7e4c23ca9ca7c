"""One run of the restore DAG, task by task, as Airflow would execute it; against a site of fakes, or any other."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG

from etcdkeep.restore.record import RestoreRecord
from etcdkeep_airflow.operators.restore import (
    DockerEtcdRestoreOperator,
    FetchKubeconfigOperator,
    PreflightOperator,
    ResolveBackupOperator,
    RestoreApproval,
    RollbackOperator,
    StageOperator,
    SwapOperator,
    VerifyRestoreOperator,
    restore_name,
)
from tests.gate import approve
from tests.unit.restore.builders import PLANNED_AT

if TYPE_CHECKING:
    from datetime import datetime

    from tests.restore_site import RestoreSite

RUN = "manual__2026-11-23"
BACKUP = "20261120T023000Z-1f0c9a3e"
WALK = {
    "stage": StageOperator,
    "restore_etcd": DockerEtcdRestoreOperator,
    "swap": SwapOperator,
    "verify": VerifyRestoreOperator,
    "rollback": RollbackOperator,
    "fetch_kubeconfig": FetchKubeconfigOperator,
}
FORWARD = ("stage", "restore_etcd", "swap", "verify")
PEOPLE = {"approve": "alice", "approve_second": "bob"}


class RestoreTasks:
    """One run of the DAG for a cluster, task by task."""

    def __init__(self, cluster: str, backup: str, started: datetime, /, **form: Any) -> None:
        self.cluster = cluster
        self.backup = backup
        self.started = started
        self.params: dict[str, Any] = {"cluster": cluster, "confirm": cluster, "reason": "a test", "dry_run": False}
        self.params |= form
        self.backups = 0
        self.pushed: dict[str, Any] = {}
        self.run_id = RUN

    def context(self) -> dict[str, Any]:
        ti = SimpleNamespace(
            xcom_push=lambda key, value: self.pushed.update({key: value}),
            get_dr_count=lambda dag_id, states: self.backups,
            map_index=-1,
        )
        task = SimpleNamespace(get_flat_relatives=lambda upstream: [EmptyOperator(task_id="approve")])
        dag_run = SimpleNamespace(
            run_id=self.run_id, dag_id="restore", run_after=self.started, triggering_user_name="carol"
        )
        return {"run_id": self.run_id, "dag_run": dag_run, "ti": ti, "params": self.params, "task": task}

    def task(self, operator: Any, **arguments: Any) -> Any:
        with DAG(dag_id="restore", schedule=None):
            made = operator(task_id="task", cluster=self.cluster, **arguments)
        return json.loads(json.dumps(made.execute(self.context())))

    def resolve(self) -> Any:
        return self.task(ResolveBackupOperator)

    def preflight(self) -> Any:
        return self.task(PreflightOperator, backup=self.backup)

    def walk(self, *tasks: str) -> Any:
        return [self.task(WALK[name]) for name in tasks][-1]

    def gates(self, people: dict[str, str] = PEOPLE, **gate: Any) -> None:
        approve(RestoreApproval, self.cluster, self.context(), people, **gate)

    def approve(self) -> None:
        self.preflight()
        self.gates()


class Ran(RestoreTasks):
    """One run of the DAG against a site of fakes."""

    def __init__(self, site: RestoreSite, **form: Any) -> None:
        super().__init__("prod", BACKUP, PLANNED_AT, **form)
        self.site = site

    @property
    def record(self) -> RestoreRecord:
        return RestoreRecord(self.site.repository.records, self.cluster, restore_name(self.cluster, self.context()))
